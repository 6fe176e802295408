"""The arithmetic of one bit: a sign that is never zero, and scales of a tensor.

All functions here pass a NaN on. XLA's largest entry of a tensor may miss a NaN (on a
CPU, where the loop is vectorised), so no function may rely on `jnp.max` alone.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_finfo: Callable[[Any], Any] = jnp.finfo


def tiny(dtype: Any) -> Any:
    """The smallest normal number of a dtype, as a NumPy scalar."""
    return _finfo(dtype).tiny


def epsilon(dtype: Any) -> Any:
    """The distance from 1 to the next number of a dtype, as a NumPy scalar."""
    return _finfo(dtype).eps


def largest(dtype: Any) -> Any:
    """The largest finite number of a dtype, as a NumPy scalar."""
    return _finfo(dtype).max


_jit: Callable[[Callable[[Any], jax.Array]], Callable[[Any], jax.Array]] = jax.jit


@_jit
def sign(x: jax.Array) -> jax.Array:
    """Gives +1 where x >= 0 (at 0 and -0.0 too), -1 where x < 0, and NaN where x is.

    The only sign of the library: training, deployment and packing all call it. It is
    always compiled, because compiled code flushes subnormal numbers to zero
    (`-1e-40 >= 0` holds there and not in NumPy) and a weight must have one sign
    everywhere. `jnp.sign` cannot be used: it is 0 at 0. The dtype is that of x.
    """
    one = jnp.ones((), x.dtype)
    return jnp.where(x >= 0, one, jnp.where(x < 0, -one, x))


def root_mean_square(x: jax.Array) -> jax.Array:
    """Root mean square of all entries, and 1 for a tensor of zeros or without entries.

    Squares of finite entries neither overflow nor vanish; see `scaled_rms`.
    """
    scale, rms = scaled_rms(x)
    return rms / scale


def scaled_rms(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A power of two, and the root mean square of all entries times it.

    The power is 1, and so nothing changes by it, for all but extreme tensors, whose
    squares overflow or vanish: they are read again. The second number is 1 for a tensor
    of zeros or without entries, and NaN where an entry is not finite.
    """
    one = jnp.ones((), x.dtype)
    if not x.size:
        return one, one
    total = jnp.sum(jnp.square(x))
    # Squares below `tiny` are lost; all of them together are below the last bit here.
    low = x.size * jnp.asarray(tiny(x.dtype) / epsilon(x.dtype), x.dtype)
    exact = (total >= low) & (total <= largest(x.dtype))
    power = jnp.asarray(2.0 ** (5 * _finfo(x.dtype).maxexp // 8), x.dtype)
    scale = jnp.where(exact, one, jnp.where(total < low, power, 1 / power))
    total = _cond(
        exact,
        lambda total, *_: total,
        lambda _, scale, x: jnp.sum(jnp.square(x * scale)),
        total,
        scale,
        x,
    )
    rms = jnp.where(total <= largest(x.dtype), jnp.sqrt(total / x.size), jnp.nan)
    return scale, jnp.where(total == 0, scale, rms)


_cond: Callable[..., jax.Array] = jax.lax.cond


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def mean_magnitude(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Mean of |x| over `axes`, which are kept with size 1: 0 if there are no entries.

    It is finite if the entries are: their sum is taken in units of `power_unit`. The
    unit is 1 except for extreme tensors, and a power of two for those, so no bit is
    lost.
    """
    unit = power_unit(x, axes)
    total = jnp.sum(jnp.abs(x) / unit, axis=axes, keepdims=True)
    mean = total / max(math.prod(x.shape[axis] for axis in axes), 1)
    return from_unit(mean, unit)


@mean_magnitude.defjvp
def _mean_magnitude_jvp(
    axes: tuple[int, ...], primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,) = primals
    mean = mean_magnitude(x, axes)
    if not x.size:
        return mean, jnp.zeros_like(mean)
    _, change = jax.jvp(jnp.abs, primals, tangents)
    return mean, jnp.mean(change, axis=axes, keepdims=True)


def from_unit(mean: jax.Array, unit: jax.Array) -> jax.Array:
    """`mean * unit`; the largest finite number where only rounding exceeds it."""
    edge = jnp.asarray(largest(mean.dtype), mean.dtype) / unit
    return jnp.where(jnp.isinf(mean), mean, jnp.clip(mean, -edge, edge)) * unit


def power_unit(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """A unit for sums of entries or of their squares over `axes`, kept with size 1.

    The sums of x / unit neither overflow nor vanish. The unit is 1, or a power of two
    if the largest magnitude is extreme (in float32 above 2^48 or below 2^-48), so that
    dividing and multiplying by it is exact. It gets no gradient.
    """
    exponent = _finfo(x.dtype).maxexp
    edge, power = 2.0 ** (3 * exponent // 8), 2.0 ** (3 * exponent // 4)
    one, large, small = (jnp.asarray(u, x.dtype) for u in (1, power, 1 / power))
    size = jnp.max(
        jnp.abs(jax.lax.stop_gradient(x)), axis=axes, keepdims=True, initial=0
    )
    unit = jnp.where(size < 1 / edge, small, jnp.where(size > edge, large, one))
    return jnp.where(size == 0, one, unit)
