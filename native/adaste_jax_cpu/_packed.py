"""The product with packed signs."""

import jax
import jax.numpy as jnp
import numpy as np

from adaste_jax_cpu import _library


def packed_matmul(
    x: jax.Array, packed: jax.Array, *, bits: int | None = None
) -> jax.Array:
    """The product x W of real rows with a packed matrix of +1 and -1, on a CPU.

    For four inputs and each of the sixteen ways to sign them, the sum is computed once;
    half a byte of a column looks it up in a register of AVX-512 or AVX2. Without either
    it is a loop over bytes.

    Args:
        x: float32 [rows, in].
        packed: uint8 [ceil(in / 8), out]: bit i of a byte is the sign of its input i,
            1 for +1, as `adaste_jax.export.pack(kernel, axis=0)` has it.
        bits: Widest vectors to use, 512, 256 or 0. Default: what the machine has.

    Returns:
        float32 [rows, out].

    Raises:
        TypeError: If a dtype is another.
        ValueError: If the shapes do not fit, or there are no such vectors.
    """
    if x.dtype != jnp.float32 or packed.dtype != jnp.uint8:
        raise TypeError(
            f"`x` must be float32 and `packed` uint8, got {x.dtype} and {packed.dtype}."
        )
    if x.ndim != 2 or packed.ndim != 2 or packed.shape[0] != -(-x.shape[1] // 8):
        raise ValueError(
            "`x` must be [rows, in] and `packed` [ceil(in / 8), out], got "
            f"{x.shape} and {packed.shape}."
        )
    if bits not in (None, 0, 256, 512):
        raise ValueError(f"`bits` must be 512, 256 or 0, got {bits!r}.")
    bits = _library.vector_bits() if bits is None else bits
    result = jax.ShapeDtypeStruct((x.shape[0], packed.shape[1]), jnp.float32)
    call = jax.ffi.ffi_call("adaste_packed_matmul", result, vmap_method="sequential")
    return call(x, packed, bits=np.int64(bits))
