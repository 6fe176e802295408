"""The block that the vision transformer and the language model are made of."""

import jax
from flax import linen as nn
from flax.typing import Dtype

from experiments.models import layers

POSITION_INIT = nn.initializers.normal(0.02)


class Block(layers.Network):
    """x + norm(attention(norm(x))), then x + norm(mlp(norm(x))).

    The hidden layer of the MLP is four times as wide.

    Norms stand before and after each branch, and on queries and keys, so that neither
    the sum nor the softmax depends on the size of the kernels: weights of +1 and -1 are
    some ten times larger than latents. (A larger `expand` makes the GELU more of a
    ReLU.)

    Attributes:
        heads: Heads of the attention.
        dtype: Dtype of the activations.

    Reference:
        Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
        https://arxiv.org/abs/1706.03762; norms on queries and keys: Dehghani et al.,
        "Scaling Vision Transformers to 22 Billion Parameters", ICML 2023,
        https://arxiv.org/abs/2302.05442.
    """

    heads: int
    dtype: Dtype | None = None

    @nn.nowrap
    def wire(
        self, make: layers.Layers, x: jax.Array, mask: jax.Array | None = None
    ) -> jax.Array:
        """Activations [batch, positions, width] to the next ones.

        Args:
            make: Layers of the network.
            x: Activations.
            mask: True where a position may look; None where all positions may look at
                all.
        """
        width = x.shape[-1]
        seen = make.layer_norm(name="before_attention")(x)
        found = make.attention(self.heads, name="attention")(seen, mask=mask)
        x = x + make.layer_norm(name="after_attention")(found)
        hidden = make.layer_norm(name="before_mlp")(x)
        hidden = nn.gelu(make.dense(4 * width, name="expand")(hidden))
        hidden = make.dense(width, name="contract")(hidden)
        return x + make.layer_norm(name="after_mlp")(hidden)
