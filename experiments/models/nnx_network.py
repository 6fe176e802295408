"""The networks as modules of NNX, wired by the same functions as in Linen."""

import collections
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype, Initializer

from adaste_jax import train
from adaste_jax.nn import conv_general_dilated, dot_general
from adaste_jax.nn import nnx as binary
from experiments.models import layers


class NnxNetwork(nnx.Module):
    """A network of `models` as an NNX module, in evaluation mode at first.

    Its submodules have the names that they have in Linen.
    """

    def __init__(self, network: layers.Network, *inputs: Any, rngs: nnx.Rngs):
        """Draws the parameters.

        Args:
            network: The network in Linen, without variables: it says what to wire.
            *inputs: An example of the inputs, for their shape.
            rngs: The stream `params` is for the parameters.
        """
        self.network = network
        network.wire(Nnx(self, rngs), *inputs)

    def __call__(self, *inputs: Any) -> jax.Array:
        """The outputs."""
        return self.network.wire(Nnx(self), *inputs)


class Nnx:
    """Layers of NNX; see `layers.Layers`. They are attributes of the network.

    A layer is made in its first call, when the number of its inputs is known.
    """

    def __init__(self, owner: Any, rngs: nnx.Rngs | None = None):
        """Makes layers for the network `owner`; without `rngs` takes those it has."""
        self._owner = owner
        self._rngs: Any = rngs
        self._dtype = owner.network.dtype
        self._product = layers.product(self._dtype)
        self._numbers: collections.Counter[str] = collections.Counter()

    def _layer(
        self, kind: str, name: str | None, make: Callable[..., Any]
    ) -> layers.Layer:
        """The layer of a name, made by `make(*inputs)` where there are `rngs`."""
        if name is None:
            name = f"{kind}_{self._numbers[kind]}"
            self._numbers[kind] += 1

        def call(*inputs: Any, **options: Any) -> jax.Array:
            if self._rngs is not None:
                setattr(self._owner, name, make(*inputs))
            return getattr(self._owner, name)(*inputs, **options)

        return call

    def dense(self, features: int, *, name: str | None = None) -> layers.Layer:
        """See `layers.Layers`."""
        make = lambda x: nnx.Linear(
            x.shape[-1],
            features,
            dot_general=dot_general,
            **self._product,
            rngs=self._rngs,
        )
        return self._layer("Dense", name, make)

    def conv(
        self,
        features: int,
        size: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        name: str | None = None,
    ) -> layers.Layer:
        """See `layers.Layers`."""
        make = lambda x: nnx.Conv(
            x.shape[-1],
            features,
            (size, size),
            strides=stride,
            padding=size // 2 if padding is None else padding,
            conv_general_dilated=conv_general_dilated,
            **self._product,
            rngs=self._rngs,
        )
        return self._layer("Conv", name, make)

    def norm(
        self, *, name: str | None = None, dtype: Dtype | None = None
    ) -> layers.Layer:
        """See `layers.Layers`."""
        make = lambda x: nnx.BatchNorm(
            x.shape[-1],
            use_scale=False,
            use_bias=False,
            use_running_average=True,
            momentum=self._owner.network.norm_momentum,
            dtype=dtype or self._dtype,
            rngs=self._rngs,
        )
        return self._layer("Norm", name, make)

    def layer_norm(self, *, name: str, dtype: Dtype | None = None) -> layers.Layer:
        """See `layers.Layers`."""
        make = lambda x: nnx.LayerNorm(
            x.shape[-1], dtype=dtype or self._dtype, rngs=self._rngs
        )
        return self._layer("LayerNorm", name, make)

    def rms_norm(self, *, name: str, eps: float) -> layers.Layer:
        """See `layers.Layers`."""
        make = lambda x: nnx.RMSNorm(
            x.shape[-1], epsilon=eps, dtype=self._dtype, rngs=self._rngs
        )
        return self._layer("RMSNorm", name, make)

    def embed(self, number: int, features: int, *, name: str) -> layers.Embedding:
        """See `layers.Layers`."""
        if self._rngs is not None:
            table = nnx.Embed(number, features, dtype=self._dtype, rngs=self._rngs)
            setattr(self._owner, name, table)
        return getattr(self._owner, name)

    def attention(self, heads: int, *, name: str) -> layers.Layer:
        """See `layers.Layers`."""
        make = lambda x: nnx.MultiHeadAttention(
            heads,
            x.shape[-1],
            normalize_qk=True,
            qkv_dot_general=dot_general,
            out_dot_general=dot_general,
            **self._product,
            decode=False,
            rngs=self._rngs,
        )
        return self._layer("MultiHeadDotProductAttention", name, make)

    def param(self, name: str, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
        """See `layers.Layers`."""
        if self._rngs is not None:
            setattr(self._owner, name, nnx.Param(init(self._rngs.params(), shape)))
        return getattr(self._owner, name)[...]

    def block(self, kind: type[layers.Network], **fields: Any) -> layers.Layer:
        """See `layers.Layers`."""
        make = lambda *inputs: NnxNetwork(kind(**fields), *inputs, rngs=self._rngs)
        return self._layer(kind.__name__, None, make)

    def blocks(
        self, kind: type[layers.Network], depth: int, *, scanned: bool, **fields: Any
    ) -> layers.Blocks:
        """See `layers.Layers`."""
        if not scanned or self._rngs is not None:
            return layers.in_turn([self.block(kind, **fields) for _ in range(depth)])
        names = [f"{kind.__name__}_{i}" for i in range(depth)]
        parts = [nnx.split(getattr(self._owner, name)) for name in names]
        graphdef = parts[0][0]  # all are alike but for their parameters

        def run(state: Any, *inputs: Any) -> Any:
            return nnx.merge(graphdef, state)(*inputs)

        return layers.scan(run, [state for _, state in parts])


def build(network: layers.Network, inputs: Any, *, rngs: nnx.Rngs) -> NnxNetwork:
    """A network as an NNX module, in training mode, as NNX makes its own.

    Args:
        network: The network in Linen, without variables.
        inputs: An example of the inputs, or its shape and dtype.
        rngs: The stream `params` is for the parameters.
    """
    zeros = jax.tree.map(jnp.zeros_like, inputs)
    model = nnx.jit(lambda rngs: NnxNetwork(network, zeros, rngs=rngs))(rngs)
    model.train()
    return model


def functional(network: layers.Network, inputs: Any) -> train.Forward:
    """The NNX module as a function of the variables of the Linen module.

    Args:
        network: The network in Linen, without variables.
        inputs: An example of the inputs, or its shape and dtype.

    Returns:
        The function; parameters and state have paths and shapes that Linen gives them.
    """
    model = nnx.eval_shape(lambda: build(network, inputs, rngs=nnx.Rngs(0)))
    run, params_like, state_like = binary.functional(model)

    def forward(
        params: Any, model_state: Any, inputs: Any, *, train: bool, key: Any
    ) -> tuple[jax.Array, dict[str, Any]]:
        statistics = model_state.get("batch_stats", {})
        given = _filled(params_like, params), _filled(state_like, statistics)
        outputs, state = run(*given, inputs, train=train, key=key)
        changed = {"batch_stats": nnx.to_pure_dict(state)} if statistics else {}
        return outputs, {**model_state, **changed}

    return forward


def _filled(like: nnx.State, tree: Any) -> nnx.State:
    """The state whose values are those of a tree of the same paths."""
    state = jax.tree.map(lambda leaf: leaf, like)
    nnx.replace_by_pure_dict(state, tree)
    return state
