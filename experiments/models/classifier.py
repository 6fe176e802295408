"""What networks that choose a class have in common."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from experiments.models import layers


class Classifier(layers.Network):
    """A network whose last layer, `head`, gives a logit for each class.

    Attributes:
        num_classes: Number of logits.
        use_logit_norm: A norm on the logits.
        dtype: Dtype of the activations. Default: that of the input.
    """

    num_classes: int
    use_logit_norm: bool = True
    dtype: Dtype | None = None

    @nn.nowrap
    def logits(
        self, make: layers.Layers, x: jax.Array, norm: Callable[..., layers.Layer]
    ) -> jax.Array:
        """The last layer: float32 logits [batch, ..., num_classes].

        A sum over thousands of weights of size 1 is far from the range in which the
        softmax learns; `head_norm` after it brings it back.

        Args:
            make: Layers of the network.
            x: Activations [batch, ..., features].
            norm: `make.norm` or `make.layer_norm`.
        """
        x = make.dense(self.num_classes, name="head")(x).astype(jnp.float32)
        if not self.use_logit_norm:
            return x
        return norm(name="head_norm", dtype=jnp.float32)(x)


class Normalised(Classifier):
    """A classifier with batch norm.

    Attributes:
        norm_momentum: Share of the running statistics that a step keeps.
    """

    norm_momentum: float = 0.9
