"""A Pallas kernel for products with a packed matrix: bytes in, unpacked on the chip."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from adaste_jax.estimators import _base

ROWS = 16  # the least that the matrix units of GPUs take
COLUMNS = 128
BYTES = 128  # of a column in one step, 1024 inputs


@functools.partial(jax.jit, static_argnames=("backend",))
def packed_matmul(x: jax.Array, packed: jax.Array, *, backend: str) -> jax.Array:
    """The product of rows with a packed matrix.

    Each program of the grid makes a block of 16 x 128 outputs. It walks along the
    inputs: 128 x 128 bytes become eight matrices of +1 and -1, one after the other,
    which are multiplied and forgotten. Only bytes are read from memory.

    Args:
        x: Inputs in groups of eight, floating point, [rows, bytes, 8].
        packed: uint8 [bytes, out].
        backend: "gpu", by Triton, which jax 0.12 deprecates in Pallas without another
            way to multiply on every GPU; "tpu"; anything else is Pallas's interpreter.

    Returns:
        [rows, out], of the dtype in which is computed, at least float32.
    """
    rows, out = x.shape[0], packed.shape[1]
    x = jnp.moveaxis(x, -1, 0)  # [8, rows, bytes]
    x = _fill(x, (1, ROWS, BYTES))
    packed = _fill(packed, (BYTES, COLUMNS))
    count, columns = packed.shape
    parameters = None
    if backend == "gpu":
        from jax.experimental.pallas import triton  # not in every build of JAX

        parameters = triton.CompilerParams(num_warps=4, num_stages=2)
    struct: Any = jax.ShapeDtypeStruct
    outputs: jax.Array = pl.pallas_call(
        _block,
        out_shape=struct((x.shape[1], columns), _base.compute_dtype(x)),
        grid=(x.shape[1] // ROWS, columns // COLUMNS),
        in_specs=[
            pl.BlockSpec((8, ROWS, count), lambda i, j: (0, i, 0)),
            pl.BlockSpec((count, COLUMNS), lambda i, j: (0, j)),
        ],
        out_specs=pl.BlockSpec((ROWS, COLUMNS), lambda i, j: (i, j)),
        interpret=backend not in ("gpu", "tpu"),
        compiler_params=parameters,
    )(x, packed)
    return outputs[:rows, :out]


def _block(x_ref: Any, packed_ref: Any, out_ref: Any) -> None:
    one = jnp.ones((), x_ref.dtype)

    def add(step: jax.Array, total: jax.Array) -> jax.Array:
        part = pl.ds(pl.multiple_of(step * BYTES, BYTES), BYTES)
        packed = packed_ref[part, :].astype(jnp.int32)
        for bit in range(8):
            weights = jnp.where((packed >> bit) & 1 > 0, one, -one)
            total += jax.lax.dot(
                x_ref[bit, :, part],
                weights,
                precision=jax.lax.Precision.HIGHEST,  # else float32 is cut short
                preferred_element_type=total.dtype,
            )
        return total

    total = jnp.zeros(out_ref.shape, out_ref.dtype)
    out_ref[...] = jax.lax.fori_loop(0, packed_ref.shape[0] // BYTES, add, total)


def _fill(array: jax.Array, multiples: tuple[int, ...]) -> jax.Array:
    """Zeros at the ends of the axes, up to the next multiples."""
    missing = [-n % m for n, m in zip(array.shape, multiples, strict=True)]
    return jnp.pad(array, [(0, n) for n in missing])
