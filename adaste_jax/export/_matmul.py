"""Products with a packed matrix, in the forms that suit batch size and backend."""

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax import _native
from adaste_jax.estimators import _base
from adaste_jax.export import _pack

Form = Literal["lookup", "native", "pallas", "planes", "unpack"]

LOOKUP_ROWS = 2
"""Most rows for which a table lookup is chosen on a CPU. For 4096 x 4096 and 1, 4 and 8
rows it takes 0.6, 2.3 and 5.2 ms, bit planes 2.0, 2.3 and 3.9."""

NATIVE_ROWS = 64
"""Most rows for which `native` is chosen: there it takes 0.4 of the time of bit planes,
with 1 row of 4096 x 4096 0.26 of that of a lookup."""

_BLOCK = 512
"""Columns of W that bit planes unpack at a time, so that they stay in a cache: 8192 x
8192 and 16 rows take 20 ms, and 48 with all columns at once."""


def packed_matmul(
    x: ArrayLike, packed: ArrayLike, *, form: Form | None = None
) -> jax.Array:
    """The product x W of real rows with a packed matrix of +1 and -1.

    The forms compute the same sums in another order, in at least float32:

        unpack   unpacks W and multiplies. The plain form, left to XLA.
        planes   for a block of columns and bit j of a byte, one eighth of x times one
                 eighth of the rows of W, unpacked. The float matrix is never whole.
        lookup   for each byte of a column of W, the sum of eight x with the signs of
                 that byte, from a table of 256: no products with W at all.
        native   a lookup in C++, from tables of 16 in a register; on CPUs, with the
                 package `adaste-jax-cpu`, float32 and no wider. A program that is to
                 be exported needs another form.
        pallas   a kernel for GPU and TPU that reads bytes and unpacks them on the
                 chip. Elsewhere it runs, slowly, in Pallas's interpreter.

    Bytes have no scale. One for each output multiplies the product. Groups of inputs
    (a multiple of 8) each have a product of their own; scales [groups, out] join them:

        x = x.reshape(*x.shape[:-1], groups, -1)
        packed = packed.reshape(groups, -1, packed.shape[-1])
        parts = jax.vmap(packed_matmul, in_axes=(-2, 0), out_axes=-2)(x, packed)
        outputs = (parts * scales).sum(-2)

    Args:
        x: Inputs, floating point, of shape [..., in].
        packed: `pack(kernel, axis=0)` of a kernel [in, out]: uint8, of shape
            [ceil(in / 8), out]. Files hold dense kernels in this form where `in` is
            a multiple of 8.
        form: One of the above. Default: on a CPU `native` for up to 64 rows where it
            can be had, else `lookup` for up to 2 rows and `planes` for more; elsewhere
            `unpack`, the others not being measured there.

    Returns:
        Outputs of shape [..., out], of the dtype of `x`.

    Raises:
        TypeError: If `x` is not floating point, or `packed` is not uint8.
        ValueError: If the shapes do not fit, or there is no such form.
        ModuleNotFoundError: If `form` is `native` and the package is not there.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import export
        >>> kernel = jnp.array([[1.0, -1.0], [-1.0, -1.0], [1.0, 1.0]])
        >>> packed = export.pack(kernel, axis=0)
        >>> export.packed_matmul(jnp.array([1.0, 2.0, 3.0]), packed)
        Array([2., 0.], dtype=float32)
    """
    x, packed = _base.check_latent(x), jnp.asarray(packed)
    if not x.ndim:
        raise ValueError("`x` must have an axis of inputs, got a scalar.")
    if packed.dtype != jnp.uint8:
        raise TypeError(f"`packed` must be uint8, got {packed.dtype}: see `pack`.")
    bytes_in = -(-x.shape[-1] // _pack.WEIGHTS_PER_BYTE)
    if packed.ndim != 2 or packed.shape[0] != bytes_in:
        raise ValueError(
            f"inputs of shape {x.shape} need a kernel of {bytes_in} rows of bytes, got "
            f"{packed.shape}. Pack it as `pack(kernel, axis=0)`."
        )
    if form not in (None, *get_args(Form)):
        raise ValueError(f"`form` must be one of {get_args(Form)}, got {form!r}.")
    shape = (*x.shape[:-1], packed.shape[1])
    if not x.size or not packed.size:
        return jnp.zeros(shape, x.dtype)
    rows = x.reshape(-1, x.shape[-1])
    if form is None:
        form = _choose(rows, jax.default_backend())
    return _FORMS[form](rows, packed).astype(x.dtype).reshape(shape)


def _choose(x: jax.Array, backend: str) -> Form:
    """The form for some rows: the one place where it is chosen."""
    if backend != "cpu":
        return "unpack"
    rows = x.shape[0]
    if rows <= NATIVE_ROWS and _base.compute_dtype(x) == jnp.float32:
        package = _native.find()
        if package is not None and package.vector_bits():
            return "native"
    return "lookup" if rows <= LOOKUP_ROWS else "planes"


@jax.custom_jvp
def _native_product(x: jax.Array, packed: jax.Array) -> jax.Array:
    package = _native.find()
    if package is None:
        raise ModuleNotFoundError(
            "the form `native` needs the package adaste-jax-cpu, which is not there or "
            "cannot be loaded. Leave `form` out."
        )
    outputs: jax.Array = package.packed_matmul(x.astype(jnp.float32), packed)
    return outputs


@_native_product.defjvp
def _native_derivative(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, Any]
) -> tuple[jax.Array, jax.Array]:
    (x, packed), (direction, _) = primals, tangents
    return _native_product(x, packed), _planes(direction, packed)


@jax.jit
def _unpack(x: jax.Array, packed: jax.Array) -> jax.Array:
    shape = (x.shape[1], packed.shape[1])
    return _dot(x, _pack.unpack(packed, shape, axis=0, dtype=x.dtype))


@jax.jit
def _planes(x: jax.Array, packed: jax.Array) -> jax.Array:
    """Loops: XLA's CPU backend takes ten times as long for eight products at once."""
    x = x.astype(_base.compute_dtype(x))
    inputs = jnp.moveaxis(_by_bytes(x, packed), -1, 0)  # [8, rows, bytes]
    bits = jnp.arange(8, dtype=jnp.uint8)
    rows, columns = x.shape[0], packed.shape[1]
    width = min(columns, _BLOCK)
    blocks = -(-columns // width)
    packed = jnp.pad(packed, ((0, 0), (0, blocks * width - columns)))
    one = jnp.ones((), x.dtype)

    def block(start: jax.Array) -> jax.Array:
        part = jax.lax.dynamic_slice_in_dim(packed, start, width, axis=1)

        def add(total: jax.Array, plane: Any) -> tuple[jax.Array, None]:
            bit, chosen = plane
            positive = (part >> bit) & jnp.uint8(1) > 0
            return total + _dot(chosen, jnp.where(positive, one, -one)), None

        zeros = jnp.zeros((rows, width), x.dtype)
        return jax.lax.scan(add, zeros, (bits, inputs))[0]

    outputs = jax.lax.map(block, width * jnp.arange(blocks))  # [blocks, rows, width]
    return jnp.moveaxis(outputs, 0, 1).reshape(rows, blocks * width)[:, :columns]


@functools.partial(jax.jit, static_argnames=("ternary",))
def lookup(x: jax.Array, packed: jax.Array, *, ternary: bool = False) -> jax.Array:
    """The form of that name, also for a matrix of `pack_ternary`."""
    x = x.astype(_base.compute_dtype(x))
    per_byte = _pack.TRITS_PER_BYTE if ternary else _pack.WEIGHTS_PER_BYTE
    unpack = _pack.unpack_ternary if ternary else _pack.unpack
    every_byte = jnp.arange(256, dtype=jnp.uint8).reshape(1, 256)
    signs = unpack(every_byte, (per_byte, 256), axis=0, dtype=x.dtype)
    parts = _by_bytes(x, packed, per_byte)
    tables = jnp.moveaxis(_dot(parts, signs), 1, 0)  # [bytes, rows, 256]

    def add(total: jax.Array, table_and_bytes: Any) -> tuple[jax.Array, None]:
        table, byte = table_and_bytes
        return total + table.at[:, byte].get(mode="promise_in_bounds"), None

    start = jnp.zeros((x.shape[0], packed.shape[1]), x.dtype)
    return jax.lax.scan(add, start, (tables, packed))[0]


def _pallas(x: jax.Array, packed: jax.Array) -> jax.Array:
    from adaste_jax.export import _kernel  # Pallas takes a while to import

    backend = jax.default_backend()
    outputs: jax.Array = _kernel.packed_matmul(
        _by_bytes(x, packed), packed, backend=backend
    )
    return outputs


def _dot(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Product in at least float32, also where a backend would take less by default."""
    return jnp.matmul(
        x,
        weights,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=_base.compute_dtype(x),
    )


def _by_bytes(
    x: jax.Array, packed: jax.Array, per_byte: int = _pack.WEIGHTS_PER_BYTE
) -> jax.Array:
    """Inputs in groups of eight, filled up with zeros: [rows, bytes, 8]."""
    missing = per_byte * packed.shape[0] - x.shape[1]
    filled = jnp.pad(x, ((0, 0), (0, missing)))
    return filled.reshape(x.shape[0], packed.shape[0], per_byte)


_FORMS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "lookup": lookup,
    "native": _native_product,
    "pallas": _pallas,
    "planes": _planes,
    "unpack": _unpack,
}
