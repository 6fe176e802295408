"""Signs with a scale for each channel or group of inputs."""

import functools
from typing import Unpack

from adaste_jax import estimators
from adaste_jax.estimators import _scaled_sign
from adaste_jax.methods import _build
from adaste_jax.methods._build import build
from adaste_jax.methods._method import Method, Rate, Run, by_channel, length_of


def scaled_sign(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    scale_grad: _scaled_sign.ScaleGrad = "constant",
    group: int = 0,
    **run: Unpack[Run],
) -> Method:
    """A sign and a scale for each channel, with Adam, as in XNOR-Net and Bi-Real net.

        w = a sign(t),   a = mean |t| of a channel,   h = a g 1[|t| <= 1]

    The scales are shipped besides the bits; batch norm after the layer cancels them.
    Rastegari et al., ECCV 2016, https://arxiv.org/abs/1603.05279; see
    `estimators.scaled_sign`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        scale_grad: The backward rule; `estimators.scaled_sign` lists them.
        group: Number of inputs of an output that share a scale; 0 for one scale for
            each output. It must divide the second-to-last axis of every kernel; see
            `estimators.per_group`. Q1_0 of llama.cpp has groups of 128.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    weights, scales = _build.in_groups(
        functools.partial(estimators.scaled_sign, scale_grad=scale_grad),
        group,
        by_channel,
    )
    return build(
        length_of(steps, run), learning_rate, weights, deploy=weights, scales=scales
    )
