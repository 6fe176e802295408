"""Data sets of TensorFlow Datasets (TFDS), read without TensorFlow.

TFDS stores examples in array_record files, which allow random access. Images are
decoded by `images`: TFDS itself decodes with OpenCV if that is installed, reads palette
indices as grey values, and does not say which record is damaged.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from experiments import errors
from experiments.data import fingerprint, images
from experiments.runs import processes

_PEEK = 20
"""Number of examples that are checked to see whether a split has labels."""


class Prepared(Protocol):
    """The part of a TFDS builder that is used here; its stubs have no types."""

    info: Any
    as_data_source: Callable[..., Any]


def prepare(
    name: str, data_dir: str | None = None, *, download: bool = True
) -> Prepared:
    """Opens an image classification data set; downloads it if it is missing.

    Args:
        name: Name of the data set: `"cifar10"`.
        data_dir: Folder of prepared data sets. Default: $TFDS_DATA_DIR, else that of
            TensorFlow Datasets.
        download: False makes a missing data set an error.

    Returns:
        The TFDS builder; its data are on disk.

    Raises:
        RunError: If the data set is unknown, cannot be downloaded or read, or does not
            consist of images and classes.
    """
    # Importing it takes two seconds, and `digits` does without.
    import tensorflow_datasets as tfds

    folder = data_dir or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR
    folder = os.path.expanduser(folder)
    try:
        builder = tfds.builder(name, data_dir=folder, file_format="array_record")
        if not builder.is_prepared():
            if not download:
                raise errors.RunError(
                    f"the data set {name!r} is not in {folder}, and a data set that "
                    "only a file names is not downloaded: give --data_dir or "
                    "--dataset."
                )
            processes.say(
                f"{name} is not in {folder}: downloading and preparing it. (Without a "
                "network this fails after some minutes. `digits` needs no download.)"
            )
            builder.download_and_prepare()
    except errors.RunError:
        raise
    # Whatever TFDS raises, the way out is the same.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")
        raise errors.RunError(
            f"cannot find or download the data set {name!r}. Looked for it, prepared "
            f"as array_record, in {folder}, then tried to download it there: "
            f"{type(error).__name__}: {reason}\n"
            "On a machine with a network it is prepared by\n"
            f'    python -c "import tensorflow_datasets as tfds; '
            f"tfds.builder('{name}', data_dir='{folder}', file_format='array_record')"
            '.download_and_prepare()"\n'
            "(into another folder, if this one holds it in another format). Then copy "
            "the folder and name it in $TFDS_DATA_DIR. Names are listed on "
            "https://www.tensorflow.org/datasets/catalog. The data set `digits` is "
            "packaged and needs no download."
        ) from error
    features = builder.info.features
    if not {"image", "label"} <= set(features) or not hasattr(
        features["label"], "num_classes"
    ):
        raise errors.RunError(
            f"{name} is not a data set of images and classes: it has the features "
            f"{', '.join(features)}, and `image` and `label` are needed."
        )
    dtype = features["image"].np_dtype  # `dtype` would import TensorFlow
    if dtype != np.uint8:
        raise errors.RunError(f"the pixels of {name} are {dtype}; only uint8 is read.")
    return builder


def class_names(prepared: Prepared) -> tuple[str, ...]:
    """Names of the classes, in the order of the labels; numbers if they have none."""
    return tuple(prepared.info.features["label"].names)


def test_split(prepared: Prepared) -> str:
    """The split to test on: `test`, or `validation` if `test` has no labels.

    Raises:
        RunError: If neither split exists with labels.
    """
    found = [name for name in ("test", "validation") if name in prepared.info.splits]
    for split in found:
        if not Records(prepared, split).labels_outside():
            return split
    if found:
        raise errors.RunError(
            f"the examples of {prepared.info.name} in {' and '.join(found)} have no "
            "labels, so nothing can be tested on them: use another data set."
        )
    raise errors.RunError(
        f"{prepared.info.name} has neither a split `test` nor `validation`; it has "
        f"{', '.join(prepared.info.splits)}."
    )


test_split.__test__ = False  # type: ignore[attr-defined]


class Records:
    """Examples by number: a uint8 image [height, width, channels], and its class.

    An example is read and decoded when it is used. Labels are those of TFDS: -1 for an
    example without a label.
    """

    def __init__(self, prepared: Any, split: str, *, labelled: bool = False):
        """Opens a split.

        Args:
            prepared: Data set, from `prepare`.
            split: Name of the split, or a slice as TFDS writes it.
            labelled: Whether an example without a valid label is an error.

        Raises:
            ValueError: If there is no such split.
        """
        import tensorflow_datasets as tfds

        info = prepared.info
        feature = info.features["image"]
        # A feature of another class holds pixels, which TFDS reads by itself.
        is_encoded = isinstance(feature, tfds.features.Image)
        self._mode = images.MODES.get(feature.shape[-1]) if is_encoded else None
        decoders = {"image": tfds.decode.SkipDecoding()} if self._mode else None
        self._examples = prepared.as_data_source(split, decoders=decoders)
        self._name = f"{info.full_name} {split}"
        self._labelled = labelled
        self._num_classes = info.features["label"].num_classes
        self._identity = fingerprint.of_records(
            info.full_name,
            split,
            len(self._examples),
            splits={
                name: [
                    int(whole.num_examples),
                    int(whole.num_bytes),
                    [int(length) for length in whole.shard_lengths],
                ]
                for name, whole in info.splits.items()
            },
        )

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self._name} has {len(self)} examples, not {index}.")
        index = int(index) % len(self)
        with images.named(self._what(index)):
            example = self._examples[index]
        return self._example(index, example)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Examples by their numbers; many at once are read faster than one by one."""
        try:
            found = self._examples.__getitems__(list(indices))
        except Exception:  # one by one, to say which cannot be read
            return [self[index] for index in indices]
        return [self._example(*pair) for pair in zip(indices, found, strict=True)]

    def identity(self) -> dict[str, Any]:
        """Identity of this split; see `fingerprint.of_records`."""
        return self._identity

    def labels_outside(self) -> bool:
        """Whether none of twenty examples, spread over the split, has a valid label."""
        chosen = np.linspace(0, len(self) - 1, min(len(self), _PEEK)).astype(int)
        labels = []
        for index in chosen.tolist():
            with images.named(self._what(index)):
                labels.append(self._examples[index]["label"])
        return not any(0 <= label < self._num_classes for label in labels)

    def _what(self, index: int) -> str:
        return f"of example {index} of {self._name}"

    def _example(self, index: int, example: Any) -> Any:
        label = example["label"]
        if self._labelled and not 0 <= label < self._num_classes:
            raise errors.RunError(
                f"example {index} of {self._name} has the label {label}, outside 0 ... "
                f"{self._num_classes - 1}: it cannot be trained on. Use another data "
                "set, or a part of this one that has labels."
            )
        image = example["image"]
        if self._mode:
            decoded = images.decode(image, self._what(index), self._mode)
            image = np.asarray(decoded)
            image = image[..., None] if image.ndim == 2 else image
        return {"image": image, "label": label}
