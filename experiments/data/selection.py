"""Chooses training, validation and test examples, and their order."""

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
    """The shuffled order of one epoch, which depends only on the key and the epoch.

    Args:
        key: PRNG key of the order of the data.
        epoch: Number of the epoch, from 0; may be traced.
        num_examples: Number of examples.
        batch_size: Number of examples in a batch.

    Returns:
        Indices, int32 [num_examples // batch_size, batch_size], all different. The
        examples of the incomplete last batch are left out, different ones in every
        epoch.

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
    """Checks the numbers of examples, before data are read.

    Args:
        num_train: Number of training examples, or None.
        num_test: Number of test examples, or None.
        validation: Share or number of the examples kept for validation.

    Raises:
        RunError: If a number is below 1, or `validation` is neither a share nor a
            number.
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
    """Numbers of validation and of training examples.

    Args:
        total: Number of examples in the training split.
        validation: Part for validation: a share below 1, or a number of examples.
        num_train: Number of training examples. Default: all others.

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
    """A random order in which every prefix has the classes in their proportions.

    Example r of the n of a class, in random order, gets the position (r + u) / n, with
    one u for each class, uniform in [0, 1). Examples of text have no class.
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
    """Exact mean and standard deviation of every channel, from counts of values.

    The standard deviation of a constant channel is 1, so that one can divide by it.
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
