"""Padding of a convolution with a number other than zero."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

_NAMED = ("SAME", "SAME_LOWER", "VALID")


def pad(
    inputs: jax.Array,
    value: ArrayLike,
    *,
    kernel_size: Sequence[int],
    strides: int | Sequence[int] | None,
    padding: str | int | Sequence[int | tuple[int, int]],
    input_dilation: int | Sequence[int] | None,
    kernel_dilation: int | Sequence[int] | None,
) -> jax.Array:
    """Pads `inputs` for a following convolution with "VALID" padding.

    Args:
        inputs: Shape [..., *spatial, channels].
        value: The number to pad with, scalar.
        kernel_size: One size for each spatial axis.
        strides: One number, or one for each spatial axis; None is 1.
        padding: "SAME", "SAME_LOWER", "VALID", a number, or for each spatial axis a
            number or a pair (low, high).
        input_dilation: Must be 1, or None.
        kernel_dilation: One number, or one for each spatial axis; None is 1.

    Returns:
        The padded inputs, in the dtype of `inputs`.

    Raises:
        ValueError: If `padding` has none of these forms, or inputs are dilated.
    """
    rank = len(kernel_size)
    if any(dilation != 1 for dilation in _each_axis(input_dilation, rank)):
        raise ValueError(
            f"`padding_value={value}` needs `input_dilation=1`, got {input_dilation}: "
            "the holes of a dilated input are zeros."
        )
    if isinstance(padding, str):
        if padding not in _NAMED:
            raise ValueError(
                f"`padding_value={value}` needs `padding` to be one of {_NAMED}, a "
                f"number or pairs of numbers, got {padding!r}."
            )
        dilated = [
            (size - 1) * dilation + 1
            for size, dilation in zip(
                kernel_size, _each_axis(kernel_dilation, rank), strict=True
            )
        ]
        spatial = inputs.shape[-rank - 1 : -1]
        pairs = jax.lax.padtype_to_pads(
            spatial, dilated, _each_axis(strides, rank), padding
        )
    else:
        sides = (padding,) * rank if isinstance(padding, int) else tuple(padding)
        if len(sides) != rank:
            raise ValueError(
                f"`padding` must have {rank} entries, one for each axis of "
                f"`kernel_size={tuple(kernel_size)}`, got {padding!r}."
            )
        pairs = [(side, side) if isinstance(side, int) else side for side in sides]
    batch_axes = inputs.ndim - rank - 1
    widths = [(0, 0)] * batch_axes + [tuple(pair) for pair in pairs] + [(0, 0)]
    return jnp.pad(inputs, widths, constant_values=value)


def _each_axis(value: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """One number for each axis, from a number for all, a sequence, or None for 1."""
    if value is None:
        value = 1
    return (value,) * rank if isinstance(value, int) else tuple(value)
