"""What estimators share: their protocol, and the checks of their arguments."""

import math
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

Estimator = Callable[[jax.Array], jax.Array]
"""A map from latents to weights of the same shape and dtype, with its own backward
rule. Bind its hyperparameters first, by `functools.partial` or a lambda."""


def check_latent(latent: ArrayLike) -> jax.Array:
    """Returns `latent` as an array.

    Raises:
        TypeError: If its dtype is not a real floating point dtype.
    """
    array = jnp.asarray(latent)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"latents must be floating point, got {array.dtype} of shape "
            f"{array.shape}. Convert them first: `latent.astype(jnp.float32)`."
        )
    return array


def check_scalar(
    name: str,
    value: Any,
    *,
    low: float = 0.0,
    high: float = math.inf,
    open_interval: bool = False,
) -> None:
    """Checks the range of a hyperparameter. A traced value cannot be checked.

    Raises:
        ValueError: If a concrete `value` has an entry outside the interval, or NaN.
    """
    if isinstance(value, jax.core.Tracer):
        return
    number = np.asarray(value, np.float64)
    inside = (
        (low < number) & (number < high)
        if open_interval
        else (low <= number) & (number <= high)
    )
    if not inside.all():
        brackets = "()" if open_interval else "[]"
        raise ValueError(
            f"`{name}` must lie in {brackets[0]}{low:g}, {high:g}{brackets[1]}, "
            f"got {value}."
        )


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Checks that a value is one of the known choices.

    Raises:
        ValueError: If it is not. The message names the argument, the choices and the
            value.
    """
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {choices}, got {value!r}.")


def with_backward(
    function: Callable[..., jax.Array],
    residuals: Callable[..., Any],
    backward: Callable[..., tuple[Any, ...]],
    *,
    static: int = 0,
) -> Callable[..., jax.Array]:
    """`function` with its own backward rule: `jax.custom_vjp`.

    Args:
        function: From `static` fixed values and arrays to an array.
        residuals: From the same arguments to the values that the backward rule needs.
        backward: From the fixed values, the residuals and a cotangent to the
            cotangents of the arrays; None is a cotangent of zero.
        static: Number of leading arguments that are fixed when it is compiled.

    Returns:
        The function.
    """
    primitive = jax.custom_vjp(function, nondiff_argnums=tuple(range(static)))
    primitive.defvjp(lambda *args: (primitive(*args), residuals(*args)), backward)
    return primitive


def compute_dtype(latent: jax.Array) -> Any:
    """The dtype of the rules: float32, or float64 where latents are."""
    # Not `jnp.promote_types`, which fails under strict promotion.
    return latent.dtype if latent.dtype == jnp.float64 else jnp.dtype(jnp.float32)


def group_axes(latent: jax.Array, axis: int | None) -> tuple[int, ...]:
    """Axes to reduce over for one group per entry of `axis`, or for one group in all.

    Raises:
        ValueError: If the latent has no such axis.
    """
    if axis is None:
        return tuple(range(latent.ndim))
    if not -latent.ndim <= axis < latent.ndim:
        raise ValueError(
            f"`axis={axis}` is not an axis of a latent of shape {latent.shape}. Pass "
            "the axis of the output channels, or None for one group."
        )
    return tuple(i for i in range(latent.ndim) if i != axis % latent.ndim)


def mean_over_devices(
    cotangent: jax.Array, axis_name: Hashable | tuple[Hashable, ...] | None
) -> jax.Array:
    """Averages a cotangent over mapped axes, before a rule that is not additive.

    Raises:
        ValueError: Under `jax.shard_map` with replication checking on. There JAX has
            already summed the cotangent of a replicated latent, and a further mean
            would leave it too large by the number of devices.
    """
    if axis_name is None:
        return cotangent
    axes = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    for axis in axes:
        checked = bool(_varying_axes(jax.lax.axis_index(axis)))
        if checked and axis not in _varying_axes(cotangent):
            raise ValueError(
                f"`axis_name={axis!r}` under `shard_map(check_vma=True)`: the "
                "cotangent is summed over that axis already. Drop it and differentiate "
                f"`jax.lax.pmean(loss, {axis!r})`, or pass `check_vma=False`."
            )
    return _pmean(cotangent, axis_name)


_pmean: Callable[..., jax.Array] = jax.lax.pmean


def _varying_axes(value: jax.Array) -> frozenset[Hashable]:
    """Mapped axes along which JAX says a value varies; none without its check."""
    varying: frozenset[Hashable] = jax.typeof(value).manual_axis_type.varying
    return varying
