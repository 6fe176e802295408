"""What the networks share: normalisation, pooling and the shape of their layers."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

KERNEL_INIT = nn.initializers.glorot_uniform()
"""Of the latents; the learning rates of the configs are chosen for this scale."""


class Norm(nn.BatchNorm):
    """Batch norm without scale and shift, so that all parameters are kernels.

    Statistics are those of the whole batch, over all devices under `jax.jit`, and
    computed in float32 whatever the dtype of the activations.
    """

    use_scale: bool = False
    use_bias: bool = False


def norm_of(network: Any, *, train: bool) -> Callable[..., Norm]:
    """The `Norm` of a network or block, by its `norm_momentum` and `dtype`."""
    return functools.partial(
        Norm,
        use_running_average=not train,
        momentum=network.norm_momentum,
        dtype=network.dtype,
    )


def dense(features: int, *, dtype: Dtype | None, name: str | None = None) -> nn.Dense:
    """A dense layer without bias, which the normalisation after it would cancel."""
    return nn.Dense(
        features, use_bias=False, kernel_init=KERNEL_INIT, dtype=dtype, name=name
    )


def conv(
    features: int,
    size: int,
    *,
    stride: int = 1,
    dtype: Dtype | None,
    name: str | None = None,
) -> nn.Conv:
    """A `size` x `size` convolution without bias, padded by size // 2 on every side.

    The padding is written out because "SAME" at stride 2 pads one side only, which
    shifts the image against the usual definition of these networks.
    """
    return nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=False,
        kernel_init=KERNEL_INIT,
        dtype=dtype,
        name=name,
    )


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


def head(x: jax.Array, num_classes: int, *, dtype: Dtype | None) -> jax.Array:
    """The last layer, `head`: float32 logits [batch, ..., num_classes].

    A sum over thousands of weights of size 1 is far from the range in which the
    softmax learns; a norm after it brings it back.
    """
    return dense(num_classes, dtype=dtype, name="head")(x).astype(jnp.float32)
