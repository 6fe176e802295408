"""Multilayer perceptron."""

from collections.abc import Sequence

import jax
from flax import linen as nn

from experiments.models import layers
from experiments.models.classifier import Normalised


class MLP(Normalised):
    """Dense layers, each with batch norm and ReLU, and a dense head.

    Attributes:
        features: Widths of the hidden layers.
    """

    features: Sequence[int] = (512, 512)

    @nn.nowrap
    def wire(self, make: layers.Layers, x: jax.Array) -> jax.Array:
        """Logits [batch, num_classes] of inputs [batch, ...]."""
        x = x.reshape(x.shape[0], -1)
        for width in self.features:
            x = nn.relu(make.norm()(make.dense(width)(x)))
        return self.logits(make, x, make.norm)
