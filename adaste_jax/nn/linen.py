"""Flax Linen layers whose kernel passes through an estimator.

The parameter tree is that of the Flax layer: what is stored is the latent kernel. A
checkpoint of `nn.Dense` loads into `BinaryDense`, and the reverse.

These layers suit networks in which each layer is called once per loss. Otherwise, and
under gradient accumulation with a rule that is not additive, use `adaste_jax.binarize`
on the whole tree, with layers of Flax.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import ArrayLike

from adaste_jax.nn import _hyperparameters, _padding

HYPERPARAMETERS = "hyperparameters"
"""The collection of variables that holds the hyperparameters of estimators."""


class _Binary(nn.Module, kw_only=True):
    """What the layers share: their fields, and the kernel on its way to the product."""

    estimator: Callable[..., jax.Array]
    hyperparameters: Mapping[str, float] = dataclasses.field(
        default_factory=dict,
        hash=False,  # a dict has no hash, and modules need one
    )
    use_scale: bool = False
    input_estimator: Callable[[jax.Array], jax.Array] | None = None

    @nn.nowrap
    def param(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """As `nn.Module.param`; the parameter called `kernel` is estimated."""
        value = super().param(name, *args, **kwargs)
        if name != "kernel":
            return value
        dtype = jnp.promote_types(value.dtype, jnp.float32)
        hyperparameters = {
            key: self.variable(HYPERPARAMETERS, key, jnp.asarray, number, dtype).value
            for key, number in self.hyperparameters.items()
        }
        weight = self.estimator(value, **hyperparameters)
        if self.use_scale:
            features = weight.shape[-1:]
            scale = self.param("scale", nn.initializers.ones, features, value.dtype)
            weight = weight * jnp.expand_dims(scale, range(weight.ndim - 1))
        return weight

    @nn.nowrap
    def _estimate_inputs(self, inputs: jax.Array) -> jax.Array:
        return inputs if self.input_estimator is None else self.input_estimator(inputs)


class BinaryDense(_Binary, nn.Dense, kw_only=True):
    """`nn.Dense` with a binary kernel; the bias stays real.

    Takes the fields of `nn.Dense`, and these by keyword.

    Attributes:
        estimator: Map from the latent kernel, in `param_dtype`, to the kernel used in
            the product, which is cast to `dtype` afterwards. It has no default: the
            estimator is what an experiment is about.
        hyperparameters: Keyword arguments of `estimator` that change during training,
            with their first values. Each is a variable in the collection
            "hyperparameters" of this layer, so that changing it by
            `set_hyperparameters` does not recompile. What does not change is bound to
            the estimator by `functools.partial`.
        use_scale: Whether the kernel is multiplied by a learned number per output
            feature: one more parameter, `scale` of shape [features], ones at first.
        input_estimator: Map from inputs to those used in the product, for binary
            activations; `estimators.ste_clipped` is the usual one.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> layer = BinaryDense(
        ...     4, estimator=estimators.adaste, hyperparameters={"mu": 0.01}
        ... )
        >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> jax.tree.map(jnp.shape, variables["params"])
        {'bias': (4,), 'kernel': (3, 4)}
        >>> variables = set_hyperparameters(variables, mu=100.0)  # weights are +1, -1
        >>> layer.apply(variables, jnp.array([1.0, 2.0, 4.0])) % 2
        Array([1., 1., 1., 1.], dtype=float32)
    """

    # Not wrapped by Flax, which would count and capture the call twice.
    @nn.nowrap
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Applies the layer to inputs of shape [..., in]; returns [..., features]."""
        return super().__call__(self._estimate_inputs(inputs))


class BinaryConv(_Binary, nn.Conv, kw_only=True):
    """`nn.Conv` with a binary kernel; the bias stays real.

    In one, two or three dimensions after `kernel_size`, grouped and depthwise by
    `feature_group_count`. Takes the fields of `nn.Conv`, and these by keyword.

    Attributes:
        estimator: As in `BinaryDense`.
        hyperparameters: As in `BinaryDense`.
        use_scale: As in `BinaryDense`.
        input_estimator: As in `BinaryDense`.
        padding_value: What the inputs are padded with, after `input_estimator`. With
            binary activations, 1 or -1 keeps them binary. Where it is not 0, `padding`
            is "SAME", "SAME_LOWER", "VALID", a number or pairs of numbers.

    Raises:
        ValueError: When called with a `padding_value` and a `padding` or
            `input_dilation` that do not go together.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> layer = BinaryConv(
        ...     8,
        ...     kernel_size=(3, 3),
        ...     estimator=estimators.ste_clipped,
        ...     input_estimator=estimators.ste_clipped,
        ...     padding_value=1.0,
        ... )
        >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 6, 6, 2)))
        >>> jax.tree.map(jnp.shape, variables)
        {'params': {'bias': (8,), 'kernel': (3, 3, 2, 8)}}
        >>> layer.apply(variables, jnp.ones((1, 6, 6, 2))).shape
        (1, 6, 6, 8)
    """

    padding_value: float = 0.0

    @nn.nowrap
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Applies the layer to inputs of shape [..., *spatial, in]."""
        inputs = self._estimate_inputs(inputs)
        if self.padding_value == 0 or self.scope is None:  # not bound: Flax explains
            return super().__call__(inputs)
        size = self.kernel_size
        padded = _padding.pad(
            inputs,
            self.padding_value,
            kernel_size=(size,) if isinstance(size, int) else size,
            strides=self.strides,
            padding=self.padding,
            input_dilation=self.input_dilation,
            kernel_dilation=self.kernel_dilation,
        )
        # The same layer, on the same variables, for inputs that are padded already.
        layer = self.clone(parent=self.scope.rewound(), padding="VALID")
        return nn.Conv.__call__(layer, padded)


def set_hyperparameters(
    variables: Mapping[str, Any], **values: ArrayLike
) -> dict[str, Any]:
    """Gives hyperparameters new values, in every layer that has them.

    Shapes and dtypes stay, so a compiled step is not compiled again. Works within
    `jit` too.

    Args:
        variables: The variables of a module, or those besides "params".
        **values: New values by name, each a scalar or an array that broadcasts to the
            variable (layers stacked by `nn.scan` have one entry per layer, unless
            "hyperparameters" is broadcast). May be traced.

    Returns:
        A copy of `variables` in which the collection "hyperparameters" is changed.

    Raises:
        ValueError: If no layer has a hyperparameter of that name.

    Example:
        >>> variables = {"hyperparameters": {"body": {"mu": jnp.float32(0.01)}}}
        >>> set_hyperparameters(variables, mu=1.0)
        {'hyperparameters': {'body': {'mu': Array(1., dtype=float32)}}}
    """
    collection = variables.get(HYPERPARAMETERS, {})
    leaves = jax.tree_util.tree_leaves_with_path(collection)
    _hyperparameters.check_names(values, {path[-1].key for path, _ in leaves})

    def new(path: tuple[Any, ...], old: jax.Array) -> jax.Array:
        name = path[-1].key
        return _hyperparameters.like(values[name], old) if name in values else old

    changed = jax.tree_util.tree_map_with_path(new, collection)
    return {**variables, HYPERPARAMETERS: changed} if values else dict(variables)


def functional(
    module: nn.Module, *, axis_name: Hashable | tuple[Hashable, ...] | None = None
) -> Callable[..., tuple[Any, Any]]:
    """A Linen module as a pure function of parameters and state.

    `params` is `variables["params"]` and `model_state` the dict of all other
    collections, often `{}`. In training all of them may change but "hyperparameters".

    Args:
        module: Its `__call__` takes the inputs and a keyword `train`.
        axis_name: Mapped axes over which every batch norm of the module averages its
            statistics in training, for `jax.shard_map` and `jax.pmap`, which see the
            share of one device: `train.DATA_AXIS` for the steps of `train`. The module
            need not know. Under `jax.jit` leave it out.

    Returns:
        `forward(params, model_state, inputs, *, train, key)`, which returns the outputs
        and the new `model_state`. `key` is for dropout; without dropout it is None.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> class Network(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, inputs, *, train):
        ...         hidden = nn.BatchNorm(use_running_average=not train)(inputs)
        ...         return nn.Dense(2)(hidden)
        >>> network, inputs = Network(), jnp.ones((4, 3))
        >>> variables = network.init(jax.random.key(0), inputs, train=False)
        >>> params = variables.pop("params")
        >>> forward = functional(network)
        >>> outputs, state = forward(params, variables, inputs, train=True, key=None)
        >>> outputs.shape, list(state)
        ((4, 2), ['batch_stats'])
    """

    def forward(
        params: Any,
        model_state: Mapping[str, Any],
        inputs: Any,
        *,
        train: bool,
        key: jax.Array | None,
    ) -> tuple[Any, dict[str, Any]]:
        changing = [name for name in model_state if name != HYPERPARAMETERS]
        with nn.intercept_methods(functools.partial(_average_over, axis_name)):
            outputs, changed = module.apply(
                {"params": params, **model_state},
                inputs,
                train=train,
                rngs=None if key is None else {"dropout": key},
                mutable=changing if train else [],
            )
        return outputs, {**model_state, **changed}

    return forward


def _average_over(axis_name, call, args, kwargs, context):
    """Gives a batch norm the axes of its statistics, if it has none of its own."""
    layer = context.module
    if (
        axis_name is None
        or not isinstance(layer, nn.BatchNorm)
        or context.method_name != "__call__"
        or layer.axis_name is not None
    ):
        return call(*args, **kwargs)
    # The same layer, on the same variables.
    assert layer.scope is not None
    named = layer.clone(parent=layer.scope.rewound(), axis_name=axis_name)
    return named(*args, **kwargs)
