"""Flax NNX layers whose kernel passes through an estimator.

The parameters are those of the Flax layer: what is stored is the latent kernel. A
checkpoint of `nnx.Linear` loads into `BinaryLinear`, and the reverse.

These layers suit networks in which each layer is called once per loss. Otherwise, and
under gradient accumulation with a rule that is not additive, use `adaste_jax.binarize`
on the whole state, with layers of Flax.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, overload

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from adaste_jax.nn import _hyperparameters, _padding

_Module = TypeVar("_Module", bound=nnx.Module)


class Hyperparameter(nnx.Variable):
    """A number that an estimator is given, as `mu`: traced, and not trained."""


class BinaryLinear(nnx.Linear):
    """`nnx.Linear` with a binary kernel; the bias stays real.

    Args:
        in_features: As in `nnx.Linear`.
        out_features: As in `nnx.Linear`.
        estimator: Map from the latent kernel, in `param_dtype`, to the kernel used in
            the product, which is cast to `dtype` afterwards. It has no default: the
            estimator is what an experiment is about.
        hyperparameters: Keyword arguments of `estimator` that change during training,
            with their first values. Each is a `Hyperparameter` of this layer, so that
            changing it by `set_hyperparameters` does not recompile. What does not
            change is bound to the estimator by `functools.partial`.
        use_scale: Whether the kernel is multiplied by a learned number per output
            feature: one more parameter, `scale` of shape [out_features], ones at first.
        input_estimator: Map from inputs to those used in the product, for binary
            activations; `estimators.ste_clipped` is the usual one.
        rngs: As in `nnx.Linear`.
        **options: Of `nnx.Linear`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> layer = BinaryLinear(
        ...     3,
        ...     4,
        ...     estimator=estimators.adaste,
        ...     hyperparameters={"mu": 0.01},
        ...     rngs=nnx.Rngs(0),
        ... )
        >>> layer.kernel.shape
        (3, 4)
        >>> layer = set_hyperparameters(layer, mu=100.0)  # weights are +1, -1
        >>> layer(jnp.array([1.0, 2.0, 4.0])) % 2
        Array([1., 1., 1., 1.], dtype=float32)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        estimator: Callable[..., jax.Array],
        hyperparameters: Mapping[str, float] | None = None,
        use_scale: bool = False,
        input_estimator: Callable[[jax.Array], jax.Array] | None = None,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        super().__init__(in_features, out_features, rngs=rngs, **options)
        self.estimator = estimator
        self.input_estimator = input_estimator
        self.hyperparameters = _variables(hyperparameters, self.param_dtype)
        self.scale = _scale(use_scale, out_features, self.param_dtype)

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Applies the layer to inputs of shape [..., in_features]."""
        if self.input_estimator is not None:
            inputs = self.input_estimator(inputs)
        layer = _with(self, kernel=_weight(self))
        return nnx.Linear.__call__(layer, inputs, out_sharding)


class BinaryConv(nnx.Conv):
    """`nnx.Conv` with a binary kernel; the bias stays real.

    In one, two or three dimensions after `kernel_size`, grouped and depthwise by
    `feature_group_count`.

    Args:
        in_features: As in `nnx.Conv`.
        out_features: As in `nnx.Conv`.
        kernel_size: As in `nnx.Conv`.
        *args: As in `nnx.Conv`.
        estimator: As in `BinaryLinear`.
        hyperparameters: As in `BinaryLinear`.
        use_scale: As in `BinaryLinear`.
        input_estimator: As in `BinaryLinear`.
        padding_value: What the inputs are padded with, after `input_estimator`. With
            binary activations, 1 or -1 keeps them binary. Where it is not 0, `padding`
            is "SAME", "SAME_LOWER", "VALID", a number or pairs of numbers.
        rngs: As in `nnx.Conv`.
        **options: Of `nnx.Conv`.

    Raises:
        ValueError: When called with a `padding_value` and a `padding` or
            `input_dilation` that do not go together.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> layer = BinaryConv(
        ...     2,
        ...     8,
        ...     kernel_size=(3, 3),
        ...     estimator=estimators.ste_clipped,
        ...     input_estimator=estimators.ste_clipped,
        ...     padding_value=1.0,
        ...     rngs=nnx.Rngs(0),
        ... )
        >>> layer.kernel.shape
        (3, 3, 2, 8)
        >>> layer(jnp.ones((1, 6, 6, 2))).shape
        (1, 6, 6, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        *args: Any,
        estimator: Callable[..., jax.Array],
        hyperparameters: Mapping[str, float] | None = None,
        use_scale: bool = False,
        input_estimator: Callable[[jax.Array], jax.Array] | None = None,
        padding_value: float = 0.0,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        super().__init__(
            in_features, out_features, kernel_size, *args, rngs=rngs, **options
        )
        self.estimator = estimator
        self.input_estimator = input_estimator
        self.padding_value = padding_value
        self.hyperparameters = _variables(hyperparameters, self.param_dtype)
        self.scale = _scale(use_scale, out_features, self.param_dtype)

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Applies the layer to inputs of shape [..., *spatial, in_features]."""
        if self.input_estimator is not None:
            inputs = self.input_estimator(inputs)
        layer = _with(self, kernel=_weight(self))
        if self.padding_value != 0:
            inputs = _padding.pad(
                inputs,
                self.padding_value,
                kernel_size=self.kernel_size,
                strides=self.strides,
                padding=self.padding,
                input_dilation=self.input_dilation,
                kernel_dilation=self.kernel_dilation,
            )
            layer = _with(layer, padding="VALID")
        return nnx.Conv.__call__(layer, inputs, out_sharding)


def _variables(hyperparameters: Mapping[str, float] | None, dtype: Any) -> nnx.Dict:
    dtype = jnp.promote_types(dtype, jnp.float32)
    return nnx.Dict(
        {
            name: Hyperparameter(jnp.asarray(number, dtype))
            for name, number in (hyperparameters or {}).items()
        }
    )


def _scale(use_scale: bool, features: int, dtype: Any) -> Any:
    return nnx.data(nnx.Param(jnp.ones(features, dtype)) if use_scale else None)


def _weight(layer: BinaryLinear | BinaryConv) -> jax.Array:
    """The kernel on its way to the product."""
    hyperparameters = {
        name: variable[...] for name, variable in layer.hyperparameters.items()
    }
    weight = layer.estimator(layer.kernel[...], **hyperparameters)
    if layer.scale is not None:
        weight = weight * jnp.expand_dims(layer.scale[...], range(weight.ndim - 1))
    return weight


def _with(layer: _Module, **attributes: Any) -> _Module:
    """A copy of `layer` with other attributes, for one call of its parent class.

    The attributes are written past the checks of NNX, since the copy is no part of a
    model: it is never split, and the layer itself stays as it is.
    """
    other = copy.copy(layer)
    vars(other).update(attributes)
    return other


@overload
def set_hyperparameters(model: nnx.State, **values: ArrayLike) -> nnx.State: ...


@overload
def set_hyperparameters(model: _Module, **values: ArrayLike) -> _Module: ...


def set_hyperparameters(model: Any, **values: ArrayLike) -> Any:
    """Gives hyperparameters new values, in every layer that has them.

    A module is changed in place, as by `nnx.update`. Of a state a changed copy is
    returned. Shapes and dtypes stay, so a compiled step is not compiled again. Works
    within `nnx.jit` and `jax.jit` too.

    Args:
        model: A module, or a state of one, as the `model_state` of `functional`.
        **values: New values by name, each a scalar or an array that broadcasts to the
            variable (layers stacked by `nnx.vmap` have one entry per layer, unless
            `Hyperparameter` is broadcast). May be traced.

    Returns:
        The module, or the changed copy of the state.

    Raises:
        ValueError: If no layer has a hyperparameter of that name.

    Example:
        >>> from adaste_jax import estimators
        >>> layer = BinaryLinear(
        ...     3,
        ...     4,
        ...     estimator=estimators.adaste,
        ...     hyperparameters={"mu": 0.01},
        ...     rngs=nnx.Rngs(0),
        ... )
        >>> layer = set_hyperparameters(layer, mu=1.0)
        >>> layer.hyperparameters["mu"][...]
        Array(1., dtype=float32)
    """
    if isinstance(model, nnx.State):
        return _changed(model, values)
    nnx.update(model, _changed(nnx.state(model, Hyperparameter), values))
    return model


def _changed(state: nnx.State, values: Mapping[str, ArrayLike]) -> nnx.State:
    names = {
        str(path[-1])
        for path, variable in nnx.to_flat_state(state)
        if isinstance(variable, Hyperparameter)
    }
    _hyperparameters.check_names(values, names)

    def new(path: tuple[Any, ...], variable: Any) -> Any:
        if not isinstance(variable, Hyperparameter) or path[-1] not in values:
            return variable
        return variable.copy(_hyperparameters.like(values[path[-1]], variable[...]))

    return nnx.map_state(new, state)


def functional(
    model: nnx.Module,
) -> tuple[Callable[..., tuple[Any, Any]], nnx.State, nnx.State]:
    """An NNX module as a pure function of parameters and state.

    `params` are the variables of type `nnx.Param`, `model_state` all others: running
    averages, hyperparameters, random streams.

    Args:
        model: Its `__call__` takes the inputs. Training or not is told to its parts by
            `model.train()` and `model.eval()`, as for `nnx.Dropout` and
            `nnx.BatchNorm`.

    Returns:
        `(forward, params, model_state)` with
        `forward(params, model_state, inputs, *, train, key)`, which returns the outputs
        and the new `model_state`; without training that is the old one. All random
        streams of the module start from `key`; if it is None, they go on from
        `model_state`. `model` is left as it is.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> rngs = nnx.Rngs(0)
        >>> model = nnx.Sequential(
        ...     nnx.Linear(3, 2, rngs=rngs), nnx.BatchNorm(2, rngs=rngs)
        ... )
        >>> forward, params, state = functional(model)
        >>> inputs = jnp.ones((4, 3))
        >>> outputs, state = forward(params, state, inputs, train=True, key=None)
        >>> outputs.shape, len(jax.tree.leaves(state))
        ((4, 2), 2)
    """
    # Variables are shared by reference: without the copies here and in `merge`, a call
    # would change the state it is given.
    model = nnx.clone(model)
    graphdef = nnx.graphdef(model)
    streams = sorted(
        {
            node.key.tag
            for _, node in nnx.iter_graph(model)
            if isinstance(node, nnx.RngStream)
        }
    )

    def forward(
        params: nnx.State,
        model_state: nnx.State,
        inputs: Any,
        *,
        train: bool,
        key: jax.Array | None,
    ) -> tuple[Any, nnx.State]:
        network = nnx.merge(graphdef, params, model_state, copy=True)
        if train:
            network.train()
        else:
            network.eval()
        if key is not None and streams:
            keys = jax.random.split(key, len(streams))
            nnx.reseed(
                network, policy="match_shape", **dict(zip(streams, keys, strict=True))
            )
        outputs = network(inputs)
        return outputs, _all_but_params(network) if train else model_state

    return forward, nnx.state(model, nnx.Param), _all_but_params(model)


def _all_but_params(model: nnx.Module) -> nnx.State:
    return nnx.state(model, nnx.Not(nnx.Param))
