"""ResNet-18 for images of 32 to 224 pixels."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from experiments import errors
from experiments.models import layers
from experiments.models.classifier import Normalised

STEMS = {"3x3": (3, 1), "3x3_stride2": (3, 2), "7x7_pool": (7, 2)}
"""Size and stride of the first convolution."""


class Block(layers.Network):
    """Two 3 x 3 convolutions and a shortcut, which is a 1 x 1 projection if need be.

    Attributes:
        channels: Channels of both convolutions.
        stride: Stride of the first.
        norm_momentum: Share of the running statistics that a step keeps.
        dtype: Dtype of the activations.
    """

    channels: int
    stride: int = 1
    norm_momentum: float = 0.9
    dtype: Dtype | None = None

    @nn.nowrap
    def wire(self, make: layers.Layers, x: jax.Array) -> jax.Array:
        """Activations [batch, height, width, channels] to the next ones."""
        shortcut = x
        x = make.conv(self.channels, 3, stride=self.stride)(x)
        x = nn.relu(make.norm()(x))
        x = make.norm()(make.conv(self.channels, 3)(x))
        if self.stride != 1 or shortcut.shape[-1] != self.channels:
            project = make.conv(self.channels, 1, stride=self.stride, name="shortcut")
            shortcut = make.norm(name="shortcut_norm")(project(shortcut))
        return nn.relu(x + shortcut)


class ResNet18(Normalised):
    """A `stem`, four stages of two blocks, average pooling and a dense `head`.

    The first block of every stage but the first has stride 2. Widths are w, 2w, 4w, 8w.

    Attributes:
        width: Channels w of the stem and the first stage.
        blocks: Blocks of each stage; those of ResNet-34 are (3, 4, 6, 3).
        stem: What comes before the first stage, with batch norm and ReLU. `"3x3"`, for
            32 x 32 pixels, keeps the size, as the literature on binary networks does.
            `"3x3_stride2"`, for 64 x 64, halves it. `"7x7_pool"`, for 160 to 224, is
            that of the paper: 7 x 7 with stride 2, then the maximum over 3 x 3 with
            stride 2.

    Reference:
        He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR
        2016, https://arxiv.org/abs/1512.03385.
    """

    width: int = 64
    blocks: Sequence[int] = (2, 2, 2, 2)
    stem: str = "3x3"

    def __post_init__(self) -> None:
        """Refuses an unknown stem.

        Raises:
            RunError: With the stems there are.
        """
        super().__post_init__()
        if self.stem not in STEMS:
            raise errors.RunError(
                f"there is no stem {self.stem!r}; there are {', '.join(STEMS)}."
            )

    @nn.nowrap
    def wire(self, make: layers.Layers, x: jax.Array) -> jax.Array:
        """Logits [batch, num_classes] of images [batch, height, width, channels]."""
        size, stride = STEMS[self.stem]
        x = make.conv(self.width, size, stride=stride, name="stem")(x)
        x = nn.relu(make.norm(name="stem_norm")(x))
        if self.stem == "7x7_pool":
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage, number in enumerate(self.blocks):
            for block in range(number):
                x = make.block(
                    Block,
                    channels=self.width * 2**stage,
                    stride=2 if stage > 0 and block == 0 else 1,
                    norm_momentum=self.norm_momentum,
                    dtype=self.dtype,
                )(x)
        x = jnp.mean(x, axis=(1, 2))
        return self.logits(make, x, make.norm)
