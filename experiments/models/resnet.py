"""ResNet-18 for small images."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from experiments.models import layers


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, which is a 1 x 1 projection if need be.

    Attributes:
        channels: Channels of both convolutions.
        stride: Stride of the first.
        norm_momentum: As in `ResNet18`.
        dtype: Of the activations.
    """

    channels: int
    stride: int = 1
    norm_momentum: float = 0.9
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Activations [batch, height, width, channels] to the next ones."""
        norm = functools.partial(
            layers.Norm,
            use_running_average=not train,
            momentum=self.norm_momentum,
            dtype=self.dtype,
        )
        shortcut = x
        x = layers.conv(self.channels, 3, stride=self.stride, dtype=self.dtype)(x)
        x = nn.relu(norm()(x))
        x = norm()(layers.conv(self.channels, 3, dtype=self.dtype)(x))
        if self.stride != 1 or shortcut.shape[-1] != self.channels:
            shortcut = layers.conv(
                self.channels, 1, stride=self.stride, dtype=self.dtype, name="shortcut"
            )(shortcut)
            shortcut = norm(name="shortcut_norm")(shortcut)
        return nn.relu(x + shortcut)


class ResNet18(nn.Module):
    """A 3 x 3 `stem`, four stages of two blocks, average pooling and a dense `head`.

    The variant for images of 32 x 32 pixels that the literature on binary networks
    uses: no stride and no pooling after the stem, widths w, 2w, 4w and 8w.

    Attributes:
        num_classes: Number of logits.
        width: Channels w of the stem and the first stage.
        use_logit_norm: Batch norm on the logits.
        norm_momentum: Share of the running statistics that a step keeps.
        dtype: Of the activations; default that of the input.

    Reference:
        He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR
        2016, https://arxiv.org/abs/1512.03385.
    """

    num_classes: int
    width: int = 64
    use_logit_norm: bool = True
    norm_momentum: float = 0.9
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Logits [batch, num_classes] of images [batch, height, width, channels]."""
        norm = functools.partial(
            layers.Norm,
            use_running_average=not train,
            momentum=self.norm_momentum,
            dtype=self.dtype,
        )
        x = layers.conv(self.width, 3, dtype=self.dtype, name="stem")(x)
        x = nn.relu(norm(name="stem_norm")(x))
        for stage in range(4):
            for block in range(2):
                x = Block(
                    self.width * 2**stage,
                    stride=2 if stage > 0 and block == 0 else 1,
                    norm_momentum=self.norm_momentum,
                    dtype=self.dtype,
                )(x, train=train)
        x = jnp.mean(x, axis=(1, 2))
        x = layers.head(x, self.num_classes, dtype=self.dtype)
        return norm(name="head_norm", dtype=None)(x) if self.use_logit_norm else x
