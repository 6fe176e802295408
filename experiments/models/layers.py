"""What networks are made of: layers with one meaning in both APIs of Flax.

A network is written once, as `Network.wire`, a function of layers and activations.
With the layers of `Linen` it is the Linen module, with those of `nnx_network.Nnx` the
NNX module. Layers have the same names in both, so that files and checkpoints fit both.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer

from adaste_jax.nn import conv_general_dilated, dot_general

KERNEL_INIT = nn.initializers.glorot_uniform()
"""Of the latents; the learning rates of the configs are chosen for this scale."""


def product(dtype: Dtype | None) -> dict[str, Any]:
    """The options of all layers that are products, in both APIs."""
    return {"use_bias": False, "kernel_init": KERNEL_INIT, "dtype": dtype}


Layer = Callable[..., jax.Array]
"""From activations to the next ones."""


class Layers(Protocol):
    """The layers that a network is wired of.

    A layer without a `name` is called after its kind, with a number: `Conv_0`. `dtype`
    is that of the activations; default: that of the network.
    """

    def dense(self, features: int, *, name: str | None = None) -> Layer:
        """A dense layer without bias, which the norm after it would cancel."""

    def conv(
        self,
        features: int,
        size: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        name: str | None = None,
    ) -> Layer:
        """A `size` x `size` convolution without bias.

        Every side is padded by `padding`; default: size // 2. "SAME" at stride 2 would
        pad one side only, and shift the image against the usual definition.
        """

    def norm(self, *, name: str | None = None, dtype: Dtype | None = None) -> Layer:
        """Batch norm without scale and shift, so that all parameters are kernels.

        It keeps the share `norm_momentum` of its running statistics in a step.
        Statistics are those of the whole batch, over all devices under `jax.jit`, and
        computed in float32 whatever the dtype of the activations.
        """

    def layer_norm(self, *, name: str, dtype: Dtype | None = None) -> Layer:
        """Layer norm with scale and shift."""

    def rms_norm(self, *, name: str, eps: float) -> Layer:
        """Division by the root mean square, and a scale; computed in float32."""

    def embed(self, number: int, features: int, *, name: str) -> "Embedding":
        """A table of `number` rows, looked up by integers."""

    def attention(self, heads: int, *, name: str) -> Layer:
        """Self-attention with norms of queries and keys; its call takes a `mask`."""

    def param(self, name: str, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
        """A parameter of the network itself."""

    def block(self, kind: "type[Network]", **fields: Any) -> Layer:
        """A network inside this one; `fields` are its attributes."""

    def blocks(
        self, kind: "type[Network]", depth: int, *, scanned: bool, **fields: Any
    ) -> "Blocks":
        """`depth` equal networks without state, each after the one before it.

        Each has parameters of its own, by the names that `block` gives. If `scanned`,
        they are stacked in the step and one copy of the program is compiled, for all of
        them; what is computed is the same.
        """


class Embedding(Protocol):
    """A table of rows."""

    def __call__(self, rows: jax.Array, /) -> jax.Array:
        """Rows [..., features] of integers [...]."""

    def attend(self, x: jax.Array, /) -> jax.Array:
        """Products with every row, [..., number], of [..., features]."""


class Blocks(Protocol):
    """Several networks in a row."""

    def __call__(self, x: Any, each: Any, *shared: Any) -> tuple[Any, Any]:
        """The output of the last one, and what each of them gives besides, stacked.

        Args:
            x: Input of the first. A block maps x, its own part of `each` and `shared`
                to the next x and to something of its own.
            each: A tree whose leaves have an axis of blocks in front; or None.
            *shared: What all blocks get.
        """


class Network(nn.Module):
    """A Linen module that is wired by `wire`, which may be run in NNX too.

    Its attribute `dtype` is that of the activations; `norm_momentum` belongs to a
    network with batch norm.
    """

    @nn.compact
    def __call__(self, *inputs: Any, train: bool) -> jax.Array:
        """The outputs. If `train`, batch norm takes the statistics of the batch."""
        return self.wire(Linen(self, train=train), *inputs)

    @nn.nowrap
    def wire(self, make: Layers, *inputs: Any) -> jax.Array:
        """From inputs to outputs through layers of `make`."""
        raise NotImplementedError


class Norm(nn.BatchNorm):
    """See `Layers.norm`."""

    use_scale: bool = False
    use_bias: bool = False


class Linen:
    """Layers of Linen; see `Layers`. The network they are called in owns them."""

    def __init__(self, network: Any, *, train: bool):
        """Makes layers for a network whose `__call__` is running."""
        self._network = network
        self._train = train
        self._product = product(network.dtype)

    def dense(self, features: int, *, name: str | None = None) -> Layer:
        """See `Layers`."""
        return nn.Dense(features, name=name, dot_general=dot_general, **self._product)

    def conv(
        self,
        features: int,
        size: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        name: str | None = None,
    ) -> Layer:
        """See `Layers`."""
        return nn.Conv(
            features,
            (size, size),
            strides=stride,
            padding=size // 2 if padding is None else padding,
            conv_general_dilated=conv_general_dilated,
            name=name,
            **self._product,
        )

    def norm(self, *, name: str | None = None, dtype: Dtype | None = None) -> Layer:
        """See `Layers`."""
        return Norm(
            use_running_average=not self._train,
            momentum=self._network.norm_momentum,
            dtype=dtype or self._network.dtype,
            name=name,
        )

    def layer_norm(self, *, name: str, dtype: Dtype | None = None) -> Layer:
        """See `Layers`."""
        return nn.LayerNorm(dtype=dtype or self._network.dtype, name=name)

    def rms_norm(self, *, name: str, eps: float) -> Layer:
        """See `Layers`."""
        return nn.RMSNorm(epsilon=eps, dtype=self._network.dtype, name=name)

    def embed(self, number: int, features: int, *, name: str) -> Embedding:
        """See `Layers`."""
        return nn.Embed(number, features, dtype=self._network.dtype, name=name)

    def attention(self, heads: int, *, name: str) -> Layer:
        """See `Layers`."""
        return nn.MultiHeadAttention(
            heads,
            normalize_qk=True,
            name=name,
            qkv_dot_general=dot_general,
            out_dot_general=dot_general,
            **self._product,
        )

    def param(self, name: str, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
        """See `Layers`."""
        return self._network.param(name, init, shape)

    def block(self, kind: type[Network], **fields: Any) -> Layer:
        """See `Layers`."""
        return functools.partial(kind(**fields), train=self._train)

    def blocks(
        self, kind: type[Network], depth: int, *, scanned: bool, **fields: Any
    ) -> Blocks:
        """See `Layers`."""
        if not scanned or self._network.is_initializing():
            return in_turn([self.block(kind, **fields) for _ in range(depth)])
        params = self._network.variables["params"]
        network = kind(**fields, parent=None)

        def run(params: Any, *inputs: Any) -> Any:
            return network.apply({"params": params}, *inputs, train=self._train)

        return scan(run, [params[f"{kind.__name__}_{i}"] for i in range(depth)])


def in_turn(made: Sequence[Layer]) -> Blocks:
    """Blocks whose programs stand one after the other."""

    def call(x: Any, each: Any, *shared: Any) -> tuple[Any, Any]:
        found = []
        for i, block in enumerate(made):
            x, own = block(x, jax.tree.map(lambda leaf: leaf[i], each), *shared)  # noqa: B023
            found.append(own)
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    return call


def scan(run: Callable[..., Any], params: Sequence[Any]) -> Blocks:
    """Blocks that are one program, run once for the parameters of each.

    Args:
        run: `run(params, x, each, *shared)` of one block.
        params: The parameters of each, trees of one structure.
    """

    def call(x: Any, each: Any, *shared: Any) -> tuple[Any, Any]:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
        step = lambda x, own: run(own[0], x, own[1], *shared)
        return jax.lax.scan(step, x, (stacked, each))

    return call


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Maximum over blocks of 2 x 2; an odd last row or column is dropped.

    The maximum of four strided slices: on the CPU the gradient of `nn.max_pool` takes
    25 times as long.

    Args:
        x: Activations [batch, height, width, channels].

    Returns:
        Activations [batch, height // 2, width // 2, channels].

    Raises:
        ValueError: If the image is smaller than 2 x 2.
    """
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    if not height or not width:
        raise ValueError(
            f"cannot pool an image of {x.shape[1]} x {x.shape[2]} pixels: the input of "
            "the network is too small for its number of pooling layers."
        )
    corners = [x[:, i:height:2, j:width:2] for i in range(2) for j in range(2)]
    return jnp.maximum(
        jnp.maximum(corners[0], corners[1]), jnp.maximum(corners[2], corners[3])
    )
