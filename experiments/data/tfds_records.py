"""Examples of TensorFlow Datasets by number, decoded by the one decoder of images.

TFDS itself decodes with OpenCV where that is installed, takes the numbers of a palette
for grey values, and does not say which record is damaged.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import errors
from experiments.data import fingerprint, images

_PEEK = 20
"""Examples whose labels tell whether a split has any."""


class Records:
    """Examples by number: a uint8 image [height, width, channels], and its class.

    They are read and decoded as they are asked for. Labels are as they stand: -1 where
    there is none.
    """

    def __init__(self, prepared: Any, split: str, *, labelled: bool = False):
        """Opens a split.

        Args:
            prepared: From `data_source.prepare`.
            split: Its name, or a slice as TFDS writes it.
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
        """Many at once are read faster than one by one."""
        try:
            found = self._examples.__getitems__(list(indices))
        except Exception:  # one by one, to say which cannot be read
            return [self[index] for index in indices]
        return [self._example(*pair) for pair in zip(indices, found, strict=True)]

    def identity(self) -> dict[str, Any]:
        """What tells this split from others; see `data_identity.of_records`."""
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
                f"{self._num_classes - 1}: it cannot be trained on. Take another data "
                "set, or a part of this one that has labels."
            )
        image = example["image"]
        if self._mode:
            decoded = images.decode(image, self._what(index), self._mode)
            image = np.asarray(decoded)
            image = image[..., None] if image.ndim == 2 else image
        return {"image": image, "label": label}
