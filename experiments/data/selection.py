"""Which examples are trained on, kept back and tested on, and in which order."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from experiments import errors


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


def check_counts(
    num_train: int | None, num_test: int | None, validation: float
) -> None:
    """Refuses numbers that no data set can be divided by, before one is read.

    Args:
        num_train: Number of training examples, or None.
        num_test: Number of test examples, or None.
        validation: Share or number of the examples that are kept back.

    Raises:
        RunError: If a number is below 1, or `validation` is no share and no number.
    """
    for name, count in (("num_train", num_train), ("num_test", num_test)):
        if count is not None and count < 1:
            raise errors.RunError(f"{name} must be at least 1, got {count}.")
    if not validation >= 0 or (validation >= 1 and validation % 1):
        raise errors.RunError(
            f"validation is {validation}: give a share in [0, 1), or a whole number "
            "of examples."
        )


def division(total: int, validation: float, num_train: int | None) -> tuple[int, int]:
    """How many examples are kept for validation, and on how many is trained.

    Args:
        total: Number of examples in the training split.
        validation: Part that is kept back: a share below 1, or a number of examples.
        num_train: Number of examples to train on. Default: all that are left.

    Raises:
        RunError: If there are too few examples, or nothing is left to train on.
    """
    kept = round(validation * total) if validation < 1 else int(validation)
    if not 0 <= kept < total:
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


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A random order in which every beginning has the classes in their proportions.

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
