"""Scales of weights on few levels: of a tensor, of a channel, or of a group."""

import itertools
import math
from collections.abc import Iterator
from typing import TypeVar

import jax
import numpy as np
from jax.typing import DTypeLike

from adaste_jax.estimators import _per_group

Array = TypeVar("Array", np.ndarray, jax.Array)

LEAST_GROUP = 8
"""Weights that must share a scale for a tensor to be stored by groups."""


def levels(
    weights: np.ndarray,
) -> tuple[str, np.ndarray, tuple[int, ...] | None] | None:
    """Encoding, scale and group of weights that have few levels; None of others."""
    size = np.abs(weights)
    scales = [size.max(initial=0)]
    if size.ndim > 1:  # a vector has no channels
        scales.append(size.max(axis=tuple(range(size.ndim - 1)), initial=0))
    for encoding, zeros in (("bits", False), ("trits", size == 0)):
        for scale in scales:
            if ((size == scale) | zeros).all():
                return encoding, np.asarray(scale), None
    for (encoding, allowed), group in itertools.product(
        (("bits", False), ("trits", True)), _groups(size.shape)
    ):
        corner = size[tuple(slice(min(length, 8)) for length in group)]
        if not ((corner == corner.max()) | (allowed & (corner == 0))).all():
            continue  # real weights end here
        counts, apart = _per_group.divide(size.shape, group)
        cut = size.reshape(apart)
        within = tuple(range(1, cut.ndim, 2))
        largest = cut.max(axis=within, keepdims=True)
        if ((cut == largest) | (allowed & (cut == 0))).all():
            return encoding, largest.reshape(counts), group
    return None


def _groups(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Groups that a tensor could have, along one axis or neighbouring ones.

    Large ones come first, and of one size those along the axis of inputs, which is the
    last but one.
    """
    if not math.prod(shape):
        return
    rank = len(shape)
    spans = [range(i, j + 1) for i in range(rank) for j in range(i, rank)]
    spans.sort(key=lambda span: (len(span), abs(span[0] - rank + 2)))
    sizes = {math.prod(shape[i] for i in span) for span in spans}
    divisors = {
        d
        for n in sizes
        for k in range(1, math.isqrt(n) + 1)
        if n % k == 0
        for d in (k, n // k)
    }
    seen = set()
    for size in sorted(divisors, reverse=True):
        for span in spans if size >= LEAST_GROUP else ():
            try:
                group = _per_group.block_of(shape, size, span)
            except ValueError:
                continue
            if group not in seen:
                seen.add(group)
                yield group


def scaled(weights: Array, scale: Array, group: tuple[int, ...] | None) -> Array:
    """Weights times their scale, which is of their dtype or of float16."""
    apart, each = weights.shape, (1,) * (weights.ndim - scale.ndim) + scale.shape
    if group is not None:
        counts, apart = _per_group.divide(weights.shape, group)
        each = tuple(n for count in counts for n in (count, 1))
    factors: Array = scale.astype(weights.dtype).reshape(each)
    product: Array = (weights.reshape(apart) * factors).reshape(weights.shape)
    return product


def words(weights: np.ndarray, bits: int, dtype: DTypeLike) -> np.ndarray:
    """Signs of one bit, or of two bits and one of three values, in words in C order.

    The first weight has the lowest bits of a word. Of one bit 1 is +1, and of two bits
    0, 1 and 2 are -1, 0 and +1.
    """
    flat = weights.reshape(-1)
    codes = (flat > 0 if bits == 1 else np.sign(flat) + 1).astype(dtype)
    shifts = np.arange(0, 8 * codes.itemsize, bits, dtype=dtype)
    codes = np.pad(codes, (0, -codes.size % shifts.size))
    packed = (codes.reshape(-1, shifts.size) << shifts).sum(1, dtype=dtype)
    return np.asarray(packed)
