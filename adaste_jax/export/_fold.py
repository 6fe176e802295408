"""Batch normalisation with running statistics, folded into what remains of it.

At test time batch normalisation (Ioffe and Szegedy, ICML 2015,
https://arxiv.org/abs/1502.03167) is one multiplication and one addition per channel,
and before a sign activation it is one comparison. A binary kernel stays binary: the
factor of a channel is not multiplied into it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax.export import _encode


def fold_batch_norm(
    mean: ArrayLike,
    var: ArrayLike,
    *,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    epsilon: ArrayLike = 1e-5,
) -> tuple[jax.Array, jax.Array]:
    """Batch normalisation as y = a x + b, channel by channel.

    With running mean m and variance v, learned factor gamma and offset beta,

        a = gamma / sqrt(v + epsilon),     b = beta - a m.

    Args:
        mean: Running means m, of shape [channels].
        var: Running variances v, of the same shape.
        scale: gamma; None for 1 (batch normalisation without a factor).
        bias: beta; None for 0.
        epsilon: Number added to the variance, that of the layer: 1e-5 in Flax.

    Returns:
        a and b, each of shape [channels].

    Raises:
        ValueError: If an argument, or a or b, is not finite (traced ones cannot be
            looked at).

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import export
        >>> export.fold_batch_norm(jnp.array([1.0]), jnp.array([4.0]), epsilon=0.0)
        (Array([0.5], dtype=float32), Array([-0.5], dtype=float32))
    """
    _require_finite(mean=mean, var=var, scale=scale, bias=bias)
    factor = jax.lax.rsqrt(jnp.asarray(var) + epsilon)
    if scale is not None:
        factor = factor * jnp.asarray(scale)
    shift = -factor * jnp.asarray(mean)
    if bias is not None:
        shift = shift + jnp.asarray(bias)
    _require_finite(**{"folded scale": factor, "folded bias": shift})
    return factor, shift


def fold_threshold(scale: ArrayLike, shift: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """A sign activation after y = a x + b as one comparison, channel by channel.

    With t = -b / a and d = sign(a),

        sign(a x + b) = sign(d (x - t)),     sign(0) = +1,

    for every x; where x is so close to t that a x + b rounds, up to that rounding. For
    a = 0 the result does not depend on x: t is -inf where b >= 0, and +inf elsewhere.

    Args:
        scale: a, of shape [channels], for example from `fold_batch_norm`.
        shift: b, of the same shape.

    Returns:
        Thresholds t and directions d, +1 or -1, each of shape [channels].

    Raises:
        ValueError: If a or b is not finite (traced ones cannot be looked at).

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import export
        >>> export.fold_threshold(jnp.array([2.0, -1.0]), jnp.array([-3.0, 0.5]))
        (Array([1.5, 0.5], dtype=float32), Array([ 1., -1.], dtype=float32))
    """
    _require_finite(scale=scale, shift=shift)
    scale, shift = jnp.asarray(scale), jnp.asarray(shift)
    one = jnp.ones((), scale.dtype)
    infinity = jnp.asarray(jnp.inf, scale.dtype)
    constant = jnp.where(shift >= 0, -infinity, infinity)
    threshold = -shift / jnp.where(scale == 0, one, scale)
    return (
        jnp.where(scale == 0, constant, threshold),
        jnp.where(scale < 0, -one, one),
    )


def fold_linen(model: Any, variables: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Folds every `flax.linen.BatchNorm` of a network, wherever it stands.

    The layer at path P loses its running mean and variance. Its parameters, if it had
    any, are replaced by the a and b of `fold_batch_norm`, called `scale` and `bias`.
    All else stays, so that latents can be folded as well as deployed weights. Run the
    result with `apply_folded`.

    Args:
        model: A Linen module that contains `nn.BatchNorm` with one feature axis.
        variables: Its variables: `{"params": ..., "batch_stats": ...}`.
        *args: Arguments of `model.apply` in evaluation mode. Only their shapes count.
        **kwargs: Its keyword arguments, for example `train=False`.

    Returns:
        Variables without the folded statistics.

    Raises:
        ValueError: If there is no `BatchNorm`, or one that uses batch statistics in
            this call, one with several feature axes, or one that is not finite.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from flax import linen as nn
        >>> from adaste_jax import export
        >>> model = nn.BatchNorm(use_running_average=True)
        >>> variables = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> folded = export.fold_linen(model, variables, jnp.ones((2, 3)))
        >>> jax.tree.map(jnp.shape, folded)
        {'params': {'bias': (3,), 'scale': (3,)}}
    """
    from flax import linen as nn
    from flax import traverse_util

    flat: Any = traverse_util.flatten_dict  # these two have no types
    nested: Any = traverse_util.unflatten_dict
    epsilons: dict[tuple[str, ...], float] = {}

    def record(call: Any, call_args: Any, call_kwargs: Any, context: Any) -> Any:
        module = context.module
        if isinstance(module, nn.BatchNorm) and context.method_name == "__call__":
            _check_foldable(module, *call_args, **call_kwargs)
            epsilons[module.path] = module.epsilon
        return call(*call_args, **call_kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(lambda: model.apply(variables, *args, **kwargs))
    if not epsilons:
        raise ValueError(
            "the network calls no `nn.BatchNorm`: there is nothing to fold."
        )
    params = flat(variables.get("params", {}))
    stats = flat(variables["batch_stats"])
    for path, epsilon in epsilons.items():
        try:
            factor, shift = fold_batch_norm(
                stats.pop((*path, "mean")),
                stats.pop((*path, "var")),
                scale=params.get((*path, "scale")),
                bias=params.get((*path, "bias")),
                epsilon=epsilon,
            )
        except ValueError as error:
            where = "/".join(path)
            raise ValueError(f"the BatchNorm at {where!r}: {error}") from error
        params |= {(*path, "scale"): factor, (*path, "bias"): shift}
    folded = {name: tree for name, tree in variables.items() if name != "batch_stats"}
    folded["params"] = nested(params)
    if stats:
        folded["batch_stats"] = nested(stats)
    return folded


def apply_folded(model: Any, variables: Any, *args: Any, **kwargs: Any) -> Any:
    """Applies a network to variables that come from `fold_linen`.

    Every `flax.linen.BatchNorm` that has no running statistics in `variables` becomes
    a x + b.

    Args:
        model: The Linen module, the same as in `fold_linen`.
        variables: What `fold_linen` returned, as it is or read back from a file.
        *args: Arguments of `model.apply` in evaluation mode.
        **kwargs: Its keyword arguments.

    Returns:
        What `model.apply` returns.
    """
    from flax import linen as nn

    def folded(call: Any, call_args: Any, call_kwargs: Any, context: Any) -> Any:
        module = context.module
        if (
            not isinstance(module, nn.BatchNorm)
            or context.method_name != "__call__"
            or module.has_variable("batch_stats", "mean")
        ):
            return call(*call_args, **call_kwargs)
        (x, *_) = call_args or (call_kwargs["x"],)
        scale: jax.Array = module.get_variable("params", "scale")
        shift: jax.Array = module.get_variable("params", "bias")
        shape = [1] * x.ndim
        shape[module.axis] = x.shape[module.axis]
        dtype = module.dtype or jnp.result_type(x, scale, shift)
        y = x * jnp.reshape(scale, shape) + jnp.reshape(shift, shape)
        return y.astype(dtype)

    with nn.intercept_methods(folded):
        return model.apply(variables, *args, **kwargs)


def _require_finite(**arrays: Any) -> None:
    known = {
        name: array
        for name, array in arrays.items()
        if not isinstance(array, jax.core.Tracer)
    }
    _encode.require_finite(**known)


def _check_foldable(
    module: Any, x: Any, use_running_average: bool | None = None, **_: Any
) -> None:
    where = "/".join(module.path)
    if not (module.use_running_average or use_running_average):
        raise ValueError(
            f"the BatchNorm at {where!r} uses the statistics of the batch. Pass the "
            "arguments of evaluation mode, for example `train=False`."
        )
    if not isinstance(module.axis, int):
        raise ValueError(
            f"the BatchNorm at {where!r} has feature axes {module.axis}; one is folded."
        )
