"""Normalises images inside a compiled step, and augments them in training."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from experiments import errors

AUGMENTATIONS = ("none", "flip", "pad_crop_flip")
PADDING = 4


def augment(
    key: jax.Array | None,
    images: jax.Array,
    *,
    kind: str,
    mean: ArrayLike | None,
    std: ArrayLike | None,
    max_value: ArrayLike | None = 255,
) -> jax.Array:
    """Normalises images and, in training, augments them. For use inside `jax.jit`.

    A channel x becomes (x / max_value - mean) / std. Images are augmented before that,
    as pixels, so that the padding is black. Text has no mean and stays unchanged.

    Args:
        key: PRNG key; not used by `"none"`.
        images: uint8 [batch, height, width, channels]; or [batch, length], text.
        kind: `"none"` for evaluation; `"flip"` mirrors every image with probability
            1/2; `"pad_crop_flip"` first shifts it by up to 4 pixels along each axis
            and fills up with zeros, then mirrors.
        mean: Mean of each channel, [channels], in units of `max_value`; None for text.
        std: Standard deviation of each channel, in the same units; None for text.
        max_value: The largest possible value of a pixel; None for text.

    Returns:
        float32 [batch, height, width, channels]; text in its own dtype.

    Raises:
        RunError: If `kind` is unknown, or is used for text.
        TypeError: If `kind` needs a key and `key` is None.
    """
    if kind not in AUGMENTATIONS:
        raise errors.RunError(
            f"there is no augmentation {kind!r}; there are {', '.join(AUGMENTATIONS)}."
        )
    if mean is None or std is None or max_value is None:
        if kind != "none":
            raise errors.RunError(
                f'the augmentation {kind!r} is for images: use "none".'
            )
        return images
    if kind != "none":
        if key is None:
            raise TypeError(f"the augmentation {kind!r} needs a key, got None.")
        images = _vary(key, images, shift=PADDING if kind == "pad_crop_flip" else 0)
    mean, std = (
        jnp.asarray(moment, jnp.float32).reshape(1, 1, 1, -1) for moment in (mean, std)
    )
    return (images.astype(jnp.float32) - mean * max_value) / (std * max_value)


def _vary(key: jax.Array, images: jax.Array, *, shift: int) -> jax.Array:
    """Shifts and mirrors each image, by picking rows and then columns.

    128 images of CIFAR-10 on one core take 0.3 ms this way, 0.4 ms with
    `lax.dynamic_slice` under `jax.vmap`, 0.67 ms as a product with one-hot matrices.
    """
    number, height, width, _ = images.shape
    row_key, column_key, flip_key = jax.random.split(key, 3)
    top = jax.random.randint(row_key, (number, 1), 0, 2 * shift + 1)
    left = jax.random.randint(column_key, (number, 1), 0, 2 * shift + 1)
    mirrored = jax.random.bernoulli(flip_key, 0.5, (number, 1))

    columns = jnp.arange(width)[None, :]
    columns = jnp.where(mirrored, width - 1 - columns, columns) + left
    rows = jnp.arange(height)[None, :] + top
    padded = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
    padded = jnp.take_along_axis(padded, rows[:, :, None, None], axis=1)
    return jnp.take_along_axis(padded, columns[:, None, :, None], axis=2)
