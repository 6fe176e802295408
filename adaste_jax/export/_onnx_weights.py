"""Weights in an ONNX model: bytes, and the nodes that unpack them at load."""

import math
from typing import Any, NamedTuple

import numpy as np

from adaste_jax.estimators import _per_group
from adaste_jax.export import _onnx_writer, _scales

LEAST = 128
"""Arrays of fewer numbers are not packed: the nodes would take more than they save."""

LEAST_FAST = 2**16
"""Dense layers of fewer weights are not worth `MatMulNBits`."""

BLOCK = 128
"""Inputs that share a scale in `MatMulNBits`: also those of the int8 activations.

Of weights with a scale for each group it is a power of two that divides the group.
"""

LEAST_BLOCK = 16
"""The smallest that `MatMulNBits` takes."""


class Levels(NamedTuple):
    """An array as scale times +1 and -1, or times -1, 0 and +1."""

    bits: int  # 1 or 2 for each number
    scale: np.ndarray  # of the rank of the array, or a scalar; it broadcasts to it
    group: tuple[int, ...] | None = None  # scale has one number for each such block


def levels(array: np.ndarray) -> Levels | None:
    """The levels of an array: one scale for all, for a place on one axis, or a group.

    None if there are more of them, or if packing would not save three quarters.
    """
    if array.dtype == np.bool_:
        return Levels(1, np.ones(())) if array.size >= LEAST else None
    if array.dtype != np.float32 or array.size < LEAST:
        return None
    size = np.abs(array)
    scales = [size.max()]
    for axis in reversed(range(array.ndim)):
        others = tuple(i for i in range(array.ndim) if i != axis)
        scales.append(size.max(axis=others, keepdims=True))
    for bits in (1, 2):
        for scale in scales:
            small = 4 * scale.size + array.size * bits / 8 < array.size
            fits = (size == scale) | (size == 0) if bits == 2 else size == scale
            if small and fits.all():
                return Levels(bits, np.asarray(scale))
    found = _scales.levels(array)
    if found is None or found[2] is None:
        return None
    encoding, scale, group = found
    return Levels(1 if encoding == "bits" else 2, scale, group)


def constant(writer: _onnx_writer.Writer, name: str, array: np.ndarray) -> str:
    """Adds an array to a model: packed if it is on few levels, as it is otherwise.

    One bit: byte i // 8 holds number i, in C order, in bit i % 8; 1 is the upper level.
    Two bits: byte i // 4 holds it in bits 2 (i % 4) and the next; 0, 1, 2 are -1, 0, 1.

    Args:
        writer: Of the model.
        name: For the values.
        array: The numbers.

    Returns:
        The name of a value with these numbers.
    """
    found = levels(array)
    if found is None:
        return writer.constant(array, name)
    packed = _scales.words(array, found.bits, np.uint8)
    shifts = np.arange(0, 8, found.bits, dtype=np.uint8)
    value = writer.add(
        "BitShift",
        writer.constant(packed[:, None], f"{name}.packed"),
        writer.constant(shifts),
        direction="RIGHT",
    )
    mask = np.asarray([2**found.bits - 1], np.uint8)
    value = writer.add("BitwiseAnd", value, writer.constant(mask))
    if array.size % len(shifts):
        value = writer.add("Reshape", value, writer.integers(-1))
        ends = [writer.integers(n) for n in (0, array.size, 0)]
        value = writer.add("Slice", value, *ends)
    shape, scale = array.shape, found.scale
    if found.group is not None:
        counts, shape = _per_group.divide(array.shape, found.group)
        scale = scale.reshape([n for count in counts for n in (count, 1)])
    value = writer.add("Reshape", value, writer.integers(*shape))
    if found.bits == 2:
        value = writer.cast(value, np.float32)
        value = writer.add("Sub", value, writer.constant(np.ones((), np.float32)))
    else:
        value = writer.cast(value, np.bool_)
        if array.dtype == np.bool_:
            return value
        two = [writer.constant(np.asarray(s, np.float32)) for s in (1, -1)]
        value = writer.add("Where", value, *two)
    if (scale != 1).any():
        value = writer.add("Mul", value, _floats(writer, scale))
    if shape != array.shape:
        value = writer.add("Reshape", value, writer.integers(*array.shape))
    return value


def _floats(writer: _onnx_writer.Writer, array: np.ndarray) -> str:
    """The name of float32 numbers, which are stored in float16 if none is rounded."""
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if array.size < LEAST or (half.astype(np.float32) != array).any():
        return writer.constant(array)
    return writer.cast(writer.constant(half), np.float32)


def fast_product(
    writer: _onnx_writer.Writer, x: str, name: str, weights: np.ndarray
) -> str | None:
    """A dense layer by `MatMulNBits`, with two bits a weight and int8 activations.

    Args:
        writer: Of the model.
        x: Name of the inputs [..., in].
        name: Of the weights.
        weights: [in, out].

    Returns:
        The name of the outputs; None where the layer is small, or its weights are not
        on few levels with one scale for all, for each output, or for each group of
        inputs, of a multiple of 16.
    """
    found = levels(weights) if weights.size >= LEAST_FAST else None
    inputs, outputs = weights.shape
    if found is None:
        return None
    block, scale = BLOCK, found.scale
    if found.group is not None:
        size, across = found.group
        block = math.gcd(size, BLOCK)
        if across > 1 or block < LEAST_BLOCK:
            return None
        scale = np.repeat(scale, size // block, axis=0)
    elif scale.ndim and scale.shape != (1, outputs):
        return None
    blocks = -(-inputs // block)
    rows = np.pad(np.sign(weights).T, ((0, 0), (0, blocks * block - inputs)))
    # The code of a weight is 1, 2 or 3: the zero point of two bits is 2.
    shape = writer.integers(outputs, blocks, block // 4)
    if found.bits == 1:
        packed = np.packbits(rows > 0, axis=1, bitorder="little")
        stored = writer.constant(packed, f"{name}.packed")
        value = writer.add("Gather", writer.constant(_TABLE), writer.cast(stored, int))
    else:
        shifts = np.arange(0, 8, 2, dtype=np.uint8)
        codes = (rows + 2).astype(np.uint8).reshape(outputs, -1, 4)
        packed = (codes << shifts).sum(-1, dtype=np.uint8)
        value = writer.constant(packed, f"{name}.packed")
    value = writer.add("Reshape", value, shape)
    factors = _floats(writer, np.atleast_2d(scale).T.astype(np.float32))
    if found.group is None:
        factors = writer.add("Expand", factors, writer.integers(outputs, blocks))
    attributes: dict[str, Any] = {
        "K": inputs,
        "N": outputs,
        "bits": 2,
        "block_size": block,
        "accuracy_level": 4,
    }
    return writer.add(
        "MatMulNBits", x, value, factors, domain="com.microsoft", **attributes
    )


_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1]
_TABLE = np.stack(
    [
        ((2 * _BITS[:, half : half + 4] + 1) << np.arange(0, 8, 2)).sum(1)
        for half in (0, 4)
    ],
    axis=1,
).astype(np.uint8)
"""The two bytes of two-bit codes, 3 and 1, of a byte of bits."""
