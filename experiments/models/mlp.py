"""Multilayer perceptron."""

from collections.abc import Sequence

import jax
from flax import linen as nn
from flax.typing import Dtype

from experiments.models import layers


class MLP(layers.Network):
    """Dense layers, each with batch norm and ReLU, and a dense head.

    Attributes:
        num_classes: Number of logits.
        features: Widths of the hidden layers.
        use_logit_norm: Batch norm on the logits.
        norm_momentum: Share of the running statistics that a step keeps.
        dtype: Dtype of the activations. Default: that of the input.
    """

    num_classes: int
    features: Sequence[int] = (512, 512)
    use_logit_norm: bool = True
    norm_momentum: float = 0.9
    dtype: Dtype | None = None

    @nn.nowrap
    def wire(self, make: layers.Layers, x: jax.Array) -> jax.Array:
        """Logits [batch, num_classes] of inputs [batch, ...]."""
        x = x.reshape(x.shape[0], -1)
        for width in self.features:
            x = nn.relu(make.norm()(make.dense(width)(x)))
        norm = make.norm if self.use_logit_norm else None
        return layers.head(make, x, self.num_classes, norm=norm)
