"""Data sets that fit into memory, in splits.

`load` returns uint8 arrays on the host, images or text. The training loop puts them on
the device once; `epoch_order` and `augment` are pure JAX and run there. For data sets
that do not fit on the device see `streams`.
"""

import dataclasses
from typing import Any, Generic, TypeVar

import numpy as np

from experiments import errors
from experiments.data import cache, fingerprint, selection, sources, tfds
from experiments.data.augmentation import AUGMENTATIONS as AUGMENTATIONS
from experiments.data.augmentation import augment as augment
from experiments.data.selection import epoch_order as epoch_order
from experiments.runs import processes

SourceT = TypeVar("SourceT", bound=sources.Source, covariant=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """Examples in memory; also a random-access source of them for `streams`.

    Attributes:
        images: uint8 [n, height, width, channels]; may be mapped from a file. For text
            the tokens, uint8 or int32 [n, length].
        labels: int32 [n]; for text the following tokens, int32 [n, length].
        bytes_per_token: Mean number of bytes of a text that a label stands for.
    """

    images: np.ndarray
    labels: np.ndarray
    bytes_per_token: float = 1.0

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> sources.Example:
        return {"image": self.images[index], "label": self.labels[index]}

    def identity(self) -> dict[str, Any]:
        """Identity of these arrays; see `fingerprint.of_arrays`."""
        return fingerprint.of_arrays(images=self.images, labels=self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class Splits(Generic[SourceT]):
    """A data set for classification of images, or of the next token of a text.

    Attributes:
        train: Training examples.
        validation: Validation examples, to choose hyperparameters; may be empty.
        test: Test examples, for the reported accuracy.
        num_classes: Labels are in 0 ... num_classes - 1.
        mean: Mean of each channel over `train`, in units of `max_value`; float32
            [channels]. None for text, whose tokens are not quantities.
        std: Standard deviation of each channel, in the same units.
        max_value: The largest possible value of a pixel; None for text.
        class_names: Names of the labels, in order; None for text.

    Raises:
        RunError: If a training or validation label in memory is outside of the classes,
            or if the numbers of names and classes differ.
    """

    train: SourceT
    validation: SourceT
    test: SourceT
    num_classes: int
    mean: np.ndarray | None
    std: np.ndarray | None
    max_value: int | None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, part in (("train", self.train), ("validation", self.validation)):
            if isinstance(part, Arrays):
                _refuse_labels(part.labels, self.num_classes, name)
        names = self.class_names
        if names is not None and len(names) != self.num_classes:
            raise errors.RunError(
                f"there are {self.num_classes} classes and {len(names)} names of them."
            )

    def identity(self) -> dict[str, Any]:
        """Identity of the data as JSON, which does not depend on their folder.

        Returns:
            `train`, `validation` and `test`, each a dict of `examples`, `digest` and
            `source`, and `classes`: names, or their number. `fingerprint` says which
            changes the digest of each kind of source does not detect.
        """
        names = self.class_names
        return {
            "train": fingerprint.of(self.train),
            "validation": fingerprint.of(self.validation),
            "test": fingerprint.of(self.test),
            "classes": self.num_classes if names is None else list(names),
        }

    @property
    def is_text(self) -> bool:
        """Whether inputs are tokens of a text, and labels have an axis of positions."""
        return self.mean is None


def load(
    name: str,
    *,
    data_dir: str | None = None,
    cache_dir: str | None = None,
    num_train: int | None = None,
    num_test: int | None = None,
    validation: float = 0.1,
    seed: int = 0,
) -> Splits[Arrays]:
    """Reads a data set into memory.

    Args:
        name: Name of `sources.PACKAGED` (`"digits"`, and `"pydoc_topics"`, a text), or
            of an image classification data set of TensorFlow Datasets: `"cifar10"`,
            `"fashion_mnist"`, ... It is downloaded and prepared if it is not there,
            and decoded once.
        data_dir: Folder of prepared data sets. Default: $TFDS_DATA_DIR, else that of
            TensorFlow Datasets.
        cache_dir: Folder for decoded images. Default: `adaste_jax` in $XDG_CACHE_HOME,
            else in `~/.cache`.
        num_train: Number of training examples, chosen from those left after validation
            in the proportions of the classes; for text, at random. A smaller set is
            part of a larger one. Default: all.
        num_test: Number of test examples, the first ones. Default: all.
        validation: Part of the training split that is kept for validation, in the
            proportions of the classes: a share below 1, or a number of examples. 0
            keeps none.
        seed: Seed of the validation split and of `num_train`. It is not the seed of
            training: keep it fixed between runs that you compare.

    Returns:
        The splits. The test split is `test`, or `validation` if there is no `test`.

    Raises:
        RunError: If the data set cannot be found, downloaded or read, or has too few
            examples.

    Example:
        >>> splits = load("digits", num_train=1000)
        >>> [len(part) for part in (splits.train, splits.validation, splits.test)]
        [1000, 144, 360]
    """
    selection.check_counts(num_train, num_test, validation)
    num_classes: int
    max_value: int | None
    names: tuple[str, ...] | None
    if name in sources.PACKAGED:
        read, num_classes, max_value, names = sources.PACKAGED[name]
        arrays = read()
        whole, test = (_arrays(*arrays[split]) for split in ("train", "test"))
        kept, taken = selection.division(len(whole), validation, num_train)
    else:
        opened = tfds.prepare(name, data_dir)
        total = opened.info.splits["train"].num_examples
        kept, taken = selection.division(total, validation, num_train)
        whole, test = (
            Arrays(*cache.decoded(opened, split, cache_dir))
            for split in ("train", tfds.test_split(opened))
        )
        names, max_value = tfds.class_names(opened), 255
        num_classes = len(names)
    _refuse_labels(whole.labels, num_classes, f"{name}, split train")
    test = _labelled(test, num_classes, f"{name}, split test")

    order = selection.stratified_order(whole.labels, seed)
    train = _take(whole, order[kept : kept + taken])
    mean, std = None, None
    if max_value is not None:
        mean, std = selection.moments(train.images, max_value)
    return Splits(
        train=train,
        validation=_take(whole, order[:kept]),
        test=Arrays(test.images[:num_test], test.labels[:num_test]),
        num_classes=num_classes,
        mean=mean,
        std=std,
        max_value=max_value,
        class_names=names,
    )


def _outside(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Which examples have a label outside of the classes."""
    wrong = (labels < 0) | (labels >= num_classes)
    return np.asarray(wrong.any(axis=tuple(range(1, wrong.ndim))))


def _refuse_labels(labels: np.ndarray, num_classes: int, what: str) -> None:
    """Raises a RunError if a label is outside of the classes."""
    wrong = np.flatnonzero(_outside(labels, num_classes))
    if wrong.size:
        values = labels[wrong[0]]
        value = values[(values < 0) | (values >= num_classes)].flat[0]
        raise errors.RunError(
            f"{wrong.size} of {len(labels)} examples of {what} have labels outside 0 "
            f"... {num_classes - 1}, so they cannot be trained on: example {wrong[0]} "
            f"has {value}."
        )


def _labelled(test: Arrays, num_classes: int, what: str) -> Arrays:
    """The test examples with a label; prints how many have none."""
    wrong = _outside(test.labels, num_classes)
    if not wrong.any():
        return test
    if wrong.all():
        raise errors.RunError(
            f"no example of {what} has a label in 0 ... "
            f"{num_classes - 1}: nothing can be tested on it."
        )
    processes.say(
        f"{wrong.sum()} of {len(test)} examples of {what} have no label in 0 ... "
        f"{num_classes - 1} and are left out."
    )
    return _take(test, np.flatnonzero(~wrong))


def _arrays(images: np.ndarray, labels: np.ndarray) -> Arrays:
    return Arrays(images, labels.astype(np.int32))


def _take(arrays: Arrays, chosen: np.ndarray) -> Arrays:
    """The chosen examples, in the order of the file."""
    chosen = np.sort(chosen)
    return Arrays(arrays.images[chosen], arrays.labels[chosen])
