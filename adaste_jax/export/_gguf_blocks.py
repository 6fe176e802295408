"""How llama.cpp stores a matrix: which type fits it, and its blocks of bytes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from adaste_jax.export import _scales

GROUPS = {"Q1_0": 128, "TQ1_0": 256, "TQ2_0": 256, "Q8_0": 32}
"""Inputs that share a scale, by type."""

PACKED = ("Q1_0", "TQ1_0", "TQ2_0")


class Stored(NamedTuple):
    """A tensor as it stands in the file."""

    kind: str  # the name of its type
    data: np.ndarray  # float32, float16, or the bytes of the blocks of each row


def stored(
    tensors: Mapping[str, np.ndarray],
    *,
    real: str,
    ternary: str,
    packed: bool,
    quants: Any,
) -> dict[str, Stored]:
    """All tensors as they are stored.

    Args:
        tensors: Matrices [outputs, inputs], and vectors; float32.
        real: Type of matrices that are not on few levels.
        ternary: Type of those on three.
        packed: Whether few levels are looked for.
        quants: The module of `gguf` that makes blocks.

    Raises:
        ValueError: If a matrix on few levels does not fit its type. The message names
            all of them.
    """
    found: dict[str, Stored] = {}
    refused: dict[str, list[str]] = {}
    for name, array in tensors.items():
        levels = _scales.levels(array.T) if packed and array.ndim == 2 else None
        if levels is None:
            found[name] = _real(array, real, quants)
            continue
        kind = "Q1_0" if levels[0] == "bits" else ternary
        if refusal := _refusal(array, kind):
            refused.setdefault(refusal, []).append(name)
        else:
            found[name] = _packed(array, kind, quants)
    if refused:
        raise ValueError(
            "llama.cpp has no type for these weights, and nothing was written: "
            + "; ".join(f"{_listed(names)}: {why}" for why, names in refused.items())
            + "."
        )
    return found


def _listed(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def _refusal(array: np.ndarray, kind: str) -> str | None:
    """What stops a matrix from being of a type."""
    size, width = GROUPS[kind], array.shape[1]
    if width % size:
        below, above = width // size * size, -(-width // size) * size
        do = f"{below} or {above}" if below else f"{above}"
        return (
            f"rows of {width} inputs, which groups of {size} ({kind}) do not "
            f"fill: {do} inputs would do, or leave it real"
        )
    blocks = np.abs(array).reshape(-1, size)
    largest = blocks.max(axis=1, keepdims=True)
    zeros = (blocks == 0) & (kind != "Q1_0")
    if not ((blocks == largest) | zeros).all():
        return (
            f"several scales among {size} inputs of an output, and {kind} has one "
            f"for {size}: train with `group={size}`, or with one for a channel or layer"
        )
    with np.errstate(over="ignore"):
        scales = largest.astype(np.float16)
    lost = ~np.isfinite(scales) | ((scales == 0) & (largest != 0))
    if lost.any():
        return (
            f"a scale of {largest[lost][0]:g}, which is 0 or infinite in float16: "
            "it goes from 6e-8 to 65504"
        )
    return None


def _real(array: np.ndarray, kind: str, quants: Any) -> Stored:
    if array.ndim != 2 or kind == "F32":
        return Stored("F32", array)
    if kind == "Q8_0" and array.shape[1] % GROUPS[kind] == 0:
        return Stored(kind, quants.Q8_0.quantize(array))
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if np.isfinite(half).all():
        return Stored("F16", half)
    return Stored("F32", array)


def _packed(array: np.ndarray, kind: str, quants: Any) -> Stored:
    """The blocks of each row, one after the other: uint8 [outputs, bytes]."""
    if kind != "Q1_0":
        return Stored(kind, getattr(quants, kind).quantize(array))
    blocks = array.reshape(len(array), -1, GROUPS[kind])
    scales = np.abs(blocks).max(axis=-1, keepdims=True).astype("<f2").view(np.uint8)
    bits = np.packbits(blocks > 0, axis=-1, bitorder="little")
    return Stored(kind, np.concatenate([scales, bits], axis=-1).reshape(len(array), -1))
