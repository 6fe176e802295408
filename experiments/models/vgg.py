"""VGG networks: that of BinaryConnect, and VGG-16."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from experiments.models import layers
from experiments.models.classifier import Normalised


class VGGSmall(Normalised):
    """2 x w, pool, 2 x 2w, pool, 2 x 4w, pool, dense, dense, head.

    Every convolution is 3 x 3. The original pools before batch norm, and so does this.

    Attributes:
        width: Channels w of the first two convolutions.
        dense: Width of the two dense layers.

    Reference:
        Courbariaux, Bengio and David, "BinaryConnect: Training Deep Neural Networks
        with Binary Weights during Propagations", NeurIPS 2015,
        https://arxiv.org/abs/1511.00363.
    """

    width: int = 128
    dense: int = 1024

    @nn.nowrap
    def wire(self, make: layers.Layers, x: jax.Array) -> jax.Array:
        """Logits [batch, num_classes] of images [batch, height, width, channels]."""
        for channels in (self.width, 2 * self.width, 4 * self.width):
            for pool in (False, True):
                x = make.conv(channels, 3)(x)
                x = layers.max_pool_2x2(x) if pool else x
                x = nn.relu(make.norm()(x))
        x = x.reshape(x.shape[0], -1)
        for _ in range(2):
            x = nn.relu(make.norm()(make.dense(self.dense)(x)))
        return self.logits(make, x, make.norm)


class VGG16(Normalised):
    """Stages of 3 x 3 convolutions, pooling after each, then a mean and a dense head.

    The variant for small images: 13 convolutions of w, 2w, 4w, 8w and 8w channels, each
    with batch norm and ReLU, and one dense layer on the mean over what five poolings
    leave of the image (1 x 1 of 32 x 32 pixels).

    Attributes:
        width: Channels w of the first stage.
        convolutions: How many each stage has.

    Reference:
        Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
        Recognition", ICLR 2015, https://arxiv.org/abs/1409.1556.
    """

    width: int = 64
    convolutions: Sequence[int] = (2, 2, 3, 3, 3)

    @nn.nowrap
    def wire(self, make: layers.Layers, x: jax.Array) -> jax.Array:
        """Logits [batch, num_classes] of images [batch, height, width, channels]."""
        for stage, number in enumerate(self.convolutions):
            for _ in range(number):
                channels = self.width * 2 ** min(stage, 3)
                x = nn.relu(make.norm()(make.conv(channels, 3)(x)))
            x = layers.max_pool_2x2(x)
        x = jnp.mean(x, axis=(1, 2))
        return self.logits(make, x, make.norm)
