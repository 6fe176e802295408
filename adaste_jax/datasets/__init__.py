"""A data set that ships with the package, and batches of data that lie in memory.

Where it comes from and its licence: `README.md` beside this file.
"""

import importlib.resources
from collections.abc import Iterator
from typing import Any

import numpy as np


def digits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """1,797 handwritten digits of 8 x 8 pixels, in a fixed stratified split.

    A pixel counts the black dots in a block of 4 x 4, so it is in 0 ... 16: divide by
    16, not by 255.

    Returns:
        `"train"` (1,437 examples) and `"test"` (360), each a pair of images, uint8
        [n, 8, 8, 1], and labels, uint8 [n] in 0 ... 9.

    Reference:
        Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
        Learning Repository, 1998, https://doi.org/10.24432/C50P49 (CC BY 4.0).

    Example:
        >>> from adaste_jax import datasets
        >>> images, labels = datasets.digits()["test"]
        >>> images.shape, images.dtype, int(images.max())
        ((360, 8, 8, 1), dtype('uint8'), 16)
        >>> labels[:5].tolist()
        [5, 2, 4, 6, 7]
    """
    file = importlib.resources.files(__name__).joinpath("digits.npz")
    with file.open("rb") as opened, np.load(opened) as arrays:
        return {
            split: (arrays[f"{split}_images"], arrays[f"{split}_labels"])
            for split in ("train", "test")
        }


def batches(
    images: Any, labels: Any, *, batch_size: int, steps: int, seed: int = 0
) -> Iterator[tuple[Any, Any]]:
    """Shuffled batches of arrays in memory, for a run of so many steps.

    Every epoch is shuffled anew; examples that do not fill a last batch are left out.

    Args:
        images: Inputs, an array [examples, ...].
        labels: Their labels, an array [examples, ...].
        batch_size: Number of examples in a batch.
        steps: Number of batches.
        seed: Seed of the order of the examples.

    Returns:
        An iterator of `steps` pairs of inputs and labels.

    Raises:
        ValueError: If the numbers of inputs and labels differ, or there are fewer
            examples than a batch needs.

    Example:
        >>> from adaste_jax import datasets
        >>> data = datasets.digits()["train"]
        >>> for images, labels in datasets.batches(*data, batch_size=64, steps=2):
        ...     print(images.shape, labels.shape)
        (64, 8, 8, 1) (64,)
        (64, 8, 8, 1) (64,)
    """
    number = len(images)
    if number != len(labels):
        raise ValueError(
            f"there are {number} inputs and {len(labels)} labels; give one label for "
            "each input."
        )
    if not 1 <= batch_size <= number:
        raise ValueError(
            f"`batch_size` must be between 1 and the number of examples, {number}; "
            f"got {batch_size}."
        )

    def shuffled() -> Iterator[tuple[Any, Any]]:
        rng = np.random.default_rng(seed)
        per_epoch = number // batch_size
        for step in range(steps):
            if step % per_epoch == 0:
                order = rng.permutation(number)
            start = step % per_epoch * batch_size
            rows = order[start : start + batch_size]
            yield images[rows], labels[rows]

    return shuffled()


__all__ = ["batches", "digits"]
