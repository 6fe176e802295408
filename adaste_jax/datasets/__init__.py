"""The data set that ships with the package, for examples and tests without a network.

Where it comes from and its licence: `README.md` beside this file.
"""

import importlib.resources

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


__all__ = ["digits"]
