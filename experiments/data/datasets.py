"""Examples that fit into memory: their splits, their order, and what becomes of them.

`load` gives uint8 arrays on the host, images or text. The training loop puts them on
the device once; `epoch_order` and `augment` are pure JAX and run there. What does not
fit on the device goes through `data_stream`.
"""

import dataclasses
import functools
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from experiments import errors
from experiments.data import fingerprint, sources
from experiments.data.augmentation import AUGMENTATIONS as AUGMENTATIONS
from experiments.data.augmentation import augment as augment

SourceT = TypeVar("SourceT", bound=sources.Source, covariant=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """Examples in memory; also a random-access source of them for `data_stream`.

    Attributes:
        images: uint8 [n, height, width, channels]; may be mapped from a file. Of text,
            the bytes: uint8 [n, length].
        labels: int32 [n]; of text, the bytes that follow, int32 [n, length].
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> sources.Example:
        return {"image": self.images[index], "label": self.labels[index]}

    def identity(self) -> dict[str, Any]:
        """What tells these arrays from others; see `data_identity.of_arrays`."""
        return fingerprint.of_arrays(images=self.images, labels=self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class Splits(Generic[SourceT]):
    """A data set for classification, of images or of the next byte of a text.

    Attributes:
        train: What the network is trained on.
        validation: Examples kept back to choose by; may be empty.
        test: For the figure that is reported.
        num_classes: Labels are in 0 ... num_classes - 1.
        mean: Of each channel over `train`, in units of `max_value`; float32 [channels].
            None for text, whose bytes are names and no quantities.
        std: Standard deviation, likewise.
        max_value: The largest value a pixel can have; None for text.
        class_names: Of the labels, in order; None where they have none, as in a text.

    Raises:
        RunError: If a label in memory, to train on or to choose by, is outside of the
            classes, or there are not as many names as classes.
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
        """What a run computes from, as JSON, the same wherever it lies.

        Returns:
            `train`, `validation` and `test`, each a dict of `examples`, `digest` and
            `source`, and `classes`: names, or how many there are.
            `data_identity` says how two of these differ, and what the digest of each
            kind of source does not see.
        """
        parts = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
        }
        classes = self.num_classes if self.class_names is None else self.class_names
        return {
            **{name: fingerprint.of(part) for name, part in parts.items()},
            "classes": classes if isinstance(classes, int) else list(classes),
        }

    @property
    def is_text(self) -> bool:
        """Whether inputs are bytes of a text, and labels have an axis of positions."""
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
        name: One of `data_source.PACKAGED` (`"digits"`, and `"pydoc_topics"`, a text),
            or the name of an image classification data set of TensorFlow Datasets:
            `"cifar10"`, `"fashion_mnist"`, ... It is downloaded and prepared if need
            be, and decoded once.
        data_dir: Folder of prepared data sets. Default: $TFDS_DATA_DIR, else that of
            TensorFlow Datasets.
        cache_dir: Folder of decoded images. Default: `adaste_jax` in $XDG_CACHE_HOME,
            else in `~/.cache`.
        num_train: Trains on so many examples, in the proportions of the classes (of
            text, at random), of those that are left after validation. A smaller set is
            part of a larger one.
        num_test: Tests on the first so many examples. Default: all.
        validation: Part of the training split that is kept back, in the proportions of
            the classes: a share below 1, or a number of examples. 0 keeps none.
        seed: Of these two choices. It is not the seed of training: runs that are to be
            compared need the same examples.

    Returns:
        The splits. The test split is the one called `test`, or `validation` where
        there is none.

    Raises:
        RunError: If the data set cannot be had, or has not the examples asked for.

    Example:
        >>> splits = load("digits", num_train=1000)
        >>> [len(part) for part in (splits.train, splits.validation, splits.test)]
        [1000, 144, 360]
    """
    check_num_test(num_test)
    num_classes: int
    max_value: int | None
    names: tuple[str, ...] | None
    if name in sources.PACKAGED:
        read, num_classes, max_value, names = sources.PACKAGED[name]
        arrays = read()
        whole, test = (_arrays(*arrays[split]) for split in ("train", "test"))
    else:
        opened = sources.prepare(name, data_dir)
        whole, test = (
            Arrays(*sources.decoded(opened, split, cache_dir))
            for split in ("train", sources.test_split(opened))
        )
        num_classes, max_value = sources.num_classes(opened), 255
        names = sources.class_names(opened)
    _refuse_labels(whole.labels, num_classes, f"{name}, split train")
    test = _labelled(test, num_classes, f"{name}, split test")

    order = stratified_order(whole.labels, seed)
    kept, taken = division(len(whole), validation, num_train)
    train = _take(whole, order[kept : kept + taken])
    mean, std = None, None
    if max_value is not None:
        mean, std = moments(train.images, max_value)
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
    """Which examples have a label that is none of the classes."""
    wrong = (labels < 0) | (labels >= num_classes)
    return np.asarray(wrong.any(axis=tuple(range(1, wrong.ndim))))


def _refuse_labels(labels: np.ndarray, num_classes: int, what: str) -> None:
    """Raises a RunError where a label is none of the classes."""
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
    """Test examples that have a label, and a word on the others."""
    wrong = _outside(test.labels, num_classes)
    if not wrong.any():
        return test
    if wrong.all():
        raise errors.RunError(
            f"no example of {what} has a label in 0 ... "
            f"{num_classes - 1}: nothing can be tested on it."
        )
    sources.say(
        f"{wrong.sum()} of {len(test)} examples of {what} have no label in 0 ... "
        f"{num_classes - 1} and are left out."
    )
    return _take(test, np.flatnonzero(~wrong))


@functools.partial(jax.jit, static_argnames=("num_examples", "batch_size"))
def epoch_order(
    key: jax.Array, epoch: ArrayLike, num_examples: int, batch_size: int
) -> jax.Array:
    """The shuffled order of one epoch, a function of the key and the epoch alone.

    Args:
        key: PRNG key of the order of the data.
        epoch: Number of the epoch, from 0; may be traced.
        num_examples: How many examples there are.
        batch_size: Examples in a batch.

    Returns:
        Indices, int32 [num_examples // batch_size, batch_size], all different. The
        examples of the incomplete last batch are left out, others in every epoch.

    Example:
        >>> epoch_order(jax.random.key(0), 0, 10, 4).shape
        (2, 4)
    """
    steps = num_examples // batch_size
    order = jax.random.permutation(jax.random.fold_in(key, epoch), num_examples)
    return order[: steps * batch_size].reshape(steps, batch_size).astype(jnp.int32)


def _arrays(images: np.ndarray, labels: np.ndarray) -> Arrays:
    return Arrays(images, labels.astype(np.int32))


def _take(arrays: Arrays, chosen: np.ndarray) -> Arrays:
    """The chosen examples, in the order of the file."""
    chosen = np.sort(chosen)
    return Arrays(arrays.images[chosen], arrays.labels[chosen])


def division(total: int, validation: float, num_train: int | None) -> tuple[int, int]:
    """How many examples are kept for validation, and on how many is trained.

    Args:
        total: Examples of the training split.
        validation: As in `load`.
        num_train: As in `load`.

    Raises:
        RunError: If there are not so many, or nothing is left to train on.
    """
    kept = round(validation * total) if validation < 1 else int(validation)
    if not 0 <= kept < total or (validation >= 1 and kept != validation):
        raise errors.RunError(
            f"validation is {validation}: give a share in [0, 1), or a whole number "
            f"of examples below {total}."
        )
    taken = total - kept if num_train is None else num_train
    if not 0 < taken <= total - kept:
        raise errors.RunError(
            f"num_train is {taken}, but there are {total} training examples and {kept} "
            f"of them are kept for validation: give 1 to {total - kept}."
        )
    return kept, taken


def check_num_test(num_test: int | None) -> None:
    """Refuses a number of test examples that is none.

    Raises:
        RunError: If it is below 1.
    """
    if num_test is not None and num_test < 1:
        raise errors.RunError(f"num_test must be at least 1, got {num_test}.")


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A random order of which every beginning has the classes in their proportions.

    Example r of the n of a class, in random order, stands at (r + u) / n, with one u
    for each class, uniform in [0, 1). An example of text has no class.
    """
    rng = np.random.default_rng(seed)
    if labels.ndim > 1:
        return rng.permutation(len(labels))
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        position[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(position)


def moments(images: np.ndarray, max_value: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every channel, exactly, from counts of values.

    A channel that never changes has the standard deviation 1, so that it can be
    divided by.
    """
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images), 4096):  # bincount copies to int64
        part = images[start : start + 4096]
        for channel in range(channels):
            counts[channel] += np.bincount(part[..., channel].ravel(), minlength=256)
    share = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256) / max_value
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    return mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32)
