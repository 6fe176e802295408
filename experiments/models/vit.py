"""A small vision transformer."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from experiments.models import layers, transformer
from experiments.models.classifier import Classifier


class ViT(Classifier):
    """Patches through a `stem`, positions, blocks, mean over positions and a `head`.

    Attributes:
        patch: Side of the square patches, which the image must be divisible by.
        width: Features of a patch.
        depth: Number of blocks.
        heads: Heads of each attention.

    Reference:
        Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image
        Recognition at Scale", ICLR 2021, https://arxiv.org/abs/2010.11929.
    """

    patch: int = 4
    width: int = 128
    depth: int = 6
    heads: int = 4

    @nn.nowrap
    def wire(self, make: layers.Layers, x: jax.Array) -> jax.Array:
        """Logits [batch, num_classes] of images [batch, height, width, channels]."""
        if x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise ValueError(
                f"images of {x.shape[1]} x {x.shape[2]} pixels cannot be cut into "
                f"patches of {self.patch} x {self.patch}: choose another `patch`."
            )
        stem = make.conv(
            self.width, self.patch, stride=self.patch, padding=0, name="stem"
        )
        x = make.layer_norm(name="stem_norm")(stem(x))
        x = x.reshape(x.shape[0], -1, self.width)
        shape = (1, *x.shape[1:])
        positions = make.param("positions", transformer.POSITION_INIT, shape)
        x = x + positions.astype(x.dtype)
        for _ in range(self.depth):
            x = make.block(transformer.Block, heads=self.heads, dtype=self.dtype)(x)
        x = make.layer_norm(name="last_norm")(jnp.mean(x, axis=1))
        return self.logits(make, x, make.layer_norm)
