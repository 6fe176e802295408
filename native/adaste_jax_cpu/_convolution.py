"""Convolutions of which training's three products are oneDNN's."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adaste_jax_cpu import _library


class _Window(NamedTuple):
    strides: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    **options: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, trained by oneDNN on a CPU.

    The outputs of a step of training and the gradients of inputs and kernel are
    oneDNN's, as are those of the gradients. What is not differentiated stays XLA's
    convolution, so that exported programs hold nothing of this package. So does what
    oneDNN does not do, without a word:

    * dtypes other than float32, and bfloat16 where the machine has no instructions for
      it; dtypes that differ; another `preferred_element_type`,
    * layouts other than Flax's, [batch, spatial..., channels] and
      [spatial..., in, out], with 1 to 3 spatial axes,
    * `lhs_dilation`, `batch_group_count`, empty arrays,
    * negative padding, and padding as wide as the kernel, for which the gradient of the
      inputs of oneDNN 3.2 is wrong,
    * more than one device, where XLA cuts arrays that oneDNN would need whole, and
      `jax.shard_map`.

    Forward-mode derivatives (`jax.jvp`) are not defined, as for every function with a
    rule of its own; `vmap` takes one example after the other. float32 is computed in
    float32, whatever `precision` says.

    Args:
        lhs: Inputs.
        rhs: Kernel.
        window_strides: See JAX, as for all further arguments.
        padding: Pairs of numbers, or "SAME", "SAME_LOWER" or "VALID".
        lhs_dilation: Zeros between inputs.
        rhs_dilation: Zeros between the weights.
        dimension_numbers: Layouts.
        feature_group_count: Number of groups.
        batch_group_count: Number of groups of examples.
        precision: As above.
        preferred_element_type: Dtype of the outputs.
        **options: Of JAX.

    Returns:
        Outputs, of the dtype and shape that JAX gives them.

    Raises:
        TypeError: As JAX.
        ValueError: As JAX.
    """
    plain = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=window_strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
        **options,
    )
    outputs = jax.eval_shape(plain, lhs, rhs)  # JAX's errors for what does not fit
    ones = (1,) * (lhs.ndim - 2)
    numbers = jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    if not (
        _fits(lhs, rhs, outputs)
        and numbers == _channels_last(lhs.ndim)
        and tuple(lhs_dilation or ones) == ones
        and batch_group_count == 1
        and not any(value is not None for value in options.values())
    ):
        return plain(lhs, rhs)
    strides, dilation = tuple(window_strides), tuple(rhs_dilation or ones)
    sizes = [
        (size - 1) * gap + 1 for size, gap in zip(rhs.shape[:-2], dilation, strict=True)
    ]
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(lhs.shape[1:-1], sizes, strides, padding)
    low, high = zip(*((int(a), int(b)) for a, b in padding), strict=True)
    beside = [side >= size for side, size in zip(low + high, 2 * sizes, strict=True)]
    if min(low + high) < 0 or any(beside):
        return plain(lhs, rhs)
    window = _Window(strides, low, high, dilation, feature_group_count)
    return _conv(lhs, rhs, window)


def _channels_last(rank: int) -> Any:
    spatial = tuple(range(1, rank - 1))
    images = (0, rank - 1, *spatial)
    kernel = (rank - 1, rank - 2, *range(rank - 2))
    return jax.lax.ConvDimensionNumbers(images, kernel, images)


def _fits(lhs: jax.Array, rhs: jax.Array, outputs: jax.ShapeDtypeStruct) -> bool:
    dtypes = [jnp.dtype(jnp.float32)]
    if _library.has_bfloat16():
        dtypes.append(jnp.dtype(jnp.bfloat16))
    shapes = lhs.shape, rhs.shape, outputs.shape
    return (
        lhs.dtype in dtypes
        and lhs.dtype == rhs.dtype == outputs.dtype
        and 3 <= lhs.ndim <= 5
        and all(0 < math.prod(shape) < 2**31 for shape in shapes)
        and jax.device_count() == 1
        and not jax.sharding.get_abstract_mesh().manual_axes
    )


def _plain(x: jax.Array, w: jax.Array, window: _Window) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        w,
        window.strides,
        tuple(zip(window.low, window.high, strict=True)),
        rhs_dilation=window.dilation,
        dimension_numbers=_channels_last(x.ndim),
        feature_group_count=window.groups,
    )


def _call(
    name: str,
    default: Callable[[jax.Array, jax.Array], jax.Array],
    a: jax.Array,
    b: jax.Array,
    window: _Window,
) -> jax.Array:
    """The handler on a CPU, `default` elsewhere."""
    attributes = {
        field: np.asarray(getattr(window, field), np.int64)
        for field in ("strides", "low", "high", "dilation")
    }
    result: Any = jax.eval_shape(default, a, b)
    native = jax.ffi.ffi_call(name, result, vmap_method="sequential")
    call = functools.partial(native, **attributes, groups=np.int64(window.groups))
    return jax.lax.platform_dependent(a, b, cpu=call, default=default)


# Three products of x, w and y, each linear in both of its arguments. The gradients of
# one are the other two, so that they have gradients of any order.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: jax.Array, w: jax.Array, window: _Window) -> jax.Array:
    return _plain(x, w, window)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _forward(x: jax.Array, w: jax.Array, window: _Window) -> jax.Array:
    default = functools.partial(_plain, window=window)
    return _call("adaste_convolution", default, x, w, window)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _inputs(
    y: jax.Array, w: jax.Array, shape: tuple[int, ...], window: _Window
) -> jax.Array:
    def default(y: jax.Array, w: jax.Array) -> jax.Array:
        x: Any = jax.ShapeDtypeStruct(shape, y.dtype)
        return jax.linear_transpose(lambda x: _plain(x, w, window), x)(y)[0]

    return _call("adaste_convolution_inputs", default, y, w, window)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel(
    x: jax.Array, y: jax.Array, shape: tuple[int, ...], window: _Window
) -> jax.Array:
    def default(x: jax.Array, y: jax.Array) -> jax.Array:
        w: Any = jax.ShapeDtypeStruct(shape, x.dtype)
        return jax.linear_transpose(lambda w: _plain(x, w, window), w)(y)[0]

    return _call("adaste_convolution_kernel", default, x, y, window)


for _function in (_conv, _forward):  # not differentiated, and differentiated
    _function.defvjp(
        lambda x, w, window: (_forward(x, w, window), (x, w)),
        lambda window, saved, y: (
            _inputs(y, saved[1], saved[0].shape, window),
            _kernel(saved[0], y, saved[1].shape, window),
        ),
    )
_inputs.defvjp(
    lambda y, w, shape, window: (_inputs(y, w, shape, window), (y, w)),
    lambda shape, window, saved, x: (
        _forward(x, saved[1], window),
        _kernel(x, saved[0], saved[1].shape, window),
    ),
)
_kernel.defvjp(
    lambda x, y, shape, window: (_kernel(x, y, shape, window), (x, y)),
    lambda shape, window, saved, w: (
        _inputs(saved[1], w, saved[0].shape, window),
        _forward(saved[0], w, window),
    ),
)
