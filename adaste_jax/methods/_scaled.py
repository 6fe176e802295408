"""Signs with a scale for each channel or group of inputs."""

import functools
from typing import Unpack

from adaste_jax import estimators
from adaste_jax.estimators import _scaled_sign
from adaste_jax.methods import _build, _schedules
from adaste_jax.methods._build import build
from adaste_jax.methods._method import Method, Rate, Run, by_channel, length_of


def blend(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    anneal_fraction: float = 0.8,
    group: int = 0,
    **run: Unpack[Run],
) -> Method:
    """Latents that are blended with their scaled signs, linearly in the step, and Adam.

        w = (1 - l) t + l a sign(t),   h = g,   a = mean |t| of a channel

    l rises from 0 to 1. Weights begin at the latents, so a trained float network is not
    changed at the start. As Hugging Face trains BitNet from a float checkpoint:
    Mekkouri et al., "Fine-tuning LLMs to 1.58bit", 2024,
    https://huggingface.co/blog/1_58_llm_extreme_quantization; see `estimators.blend`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        anneal_fraction: Share of the run in which l rises.
        group: Number of inputs of an output that share a scale, as in `scaled_sign`; 0
            for one scale for each output.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    length = length_of(steps, run)
    share, binary_from = _schedules.ramp(length, anneal_fraction)
    weights, scales = _build.in_groups(estimators.blend, group, by_channel)
    return build(
        length,
        learning_rate,
        weights,
        schedules={"share": share},
        deploy=functools.partial(weights, share=1.0),
        scales=scales,
        binary_from=binary_from,
    )


def parq(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    steepness: float = 10.0,
    anneal_fraction: float = 0.8,
    group: int = 0,
    **run: Unpack[Run],
) -> Method:
    """PARQ: latents, clipped ever more steeply until they are scaled signs, and Adam.

        w = clip(t / r, -a, a),   h = g,   a = mean |t| of a channel

    r falls from 1 to 0 along a sigmoid in the step:

        r = (s(x) - s(1)) / (s(0) - s(1)),   s(x) = 1 / (1 + exp(k (x - 1/2)))

    with k = `steepness` and x the share of annealing that is over. Jin et al., ICML
    2025, https://arxiv.org/abs/2503.15748; see `estimators.parq`. The map and the
    schedule are those of torchao's `ProxPARQ`, for one bit.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        steepness: k, greater than 0. Below 1 the schedule is almost linear.
        anneal_fraction: Share of the run in which r falls.
        group: Number of inputs of an output that share a scale, as in `scaled_sign`; 0
            for one scale for each output.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    length = length_of(steps, run)
    slope, binary_from = _schedules.mirrored_sigmoid(length, steepness, anneal_fraction)
    weights, scales = _build.in_groups(estimators.parq, group, by_channel)
    return build(
        length,
        learning_rate,
        weights,
        schedules={"inverse_slope": slope},
        deploy=functools.partial(weights, inverse_slope=0.0),
        scales=scales,
        binary_from=binary_from,
    )


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
