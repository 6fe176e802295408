"""The block that the vision transformer and the language model are made of."""

import jax
from flax import linen as nn
from flax.typing import Dtype

from experiments.models import layers

POSITION_INIT = nn.initializers.normal(0.02)


class Block(nn.Module):
    """x + norm(attention(norm(x))), then x + norm(mlp(norm(x))).

    The hidden layer of the MLP is four times as wide.

    Norms stand before and after each branch, and on queries and keys, so that neither
    the sum nor the softmax depends on the size of the kernels: weights of +1 and -1 are
    some ten times larger than latents. (A larger `expand` makes the GELU more of a
    ReLU.)

    Attributes:
        heads: Heads of the attention.
        dtype: Of the activations.

    Reference:
        Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
        https://arxiv.org/abs/1706.03762; norms on queries and keys: Dehghani et al.,
        "Scaling Vision Transformers to 22 Billion Parameters", ICML 2023,
        https://arxiv.org/abs/2302.05442.
    """

    heads: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Activations [batch, positions, width] to the next ones.

        Args:
            x: Activations.
            mask: Of the attention, true where a position may look; None for all.
        """
        width = x.shape[-1]
        attention = nn.MultiHeadAttention(
            self.heads,
            normalize_qk=True,
            use_bias=False,
            kernel_init=layers.KERNEL_INIT,
            dtype=self.dtype,
            name="attention",
        )(self._norm("before_attention")(x), mask=mask)
        x = x + self._norm("after_attention")(attention)
        hidden = layers.dense(4 * width, dtype=self.dtype, name="expand")(
            self._norm("before_mlp")(x)
        )
        hidden = layers.dense(width, dtype=self.dtype, name="contract")(nn.gelu(hidden))
        return x + self._norm("after_mlp")(hidden)

    def _norm(self, name: str) -> nn.LayerNorm:
        return nn.LayerNorm(dtype=self.dtype, name=name)
