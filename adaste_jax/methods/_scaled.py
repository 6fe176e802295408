"""Signs with a scale for each channel or group of inputs."""

import functools
from typing import Any, Unpack

import jax.numpy as jnp

from adaste_jax import estimators, optim
from adaste_jax.estimators import _scaled_sign
from adaste_jax.methods import _schedules, _units
from adaste_jax.methods._build import build
from adaste_jax.methods._method import (
    NEVER,
    Method,
    Rate,
    Run,
    by_channel,
    check,
    length_of,
)


def blend(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    anneal_fraction: float = 0.8,
    unit: str = "channel",
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
        unit: What has a scale a: `"channel"`, or `"layer"`.
        group: Number of inputs of an output that share a scale, as in `scaled_sign`; 0
            for one scale for each output.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    length = length_of(steps, run)
    share, binary_from = _schedules.ramp(length, anneal_fraction)
    weights, scales = _units.scaled(estimators.blend, unit, group)
    return build(
        length,
        learning_rate,
        weights,
        schedules={"share": share},
        deploy=functools.partial(weights, share=1.0),
        scales=scales,
        binary_from=binary_from,
    )


def cage(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    pull: float = 10.0,
    silence: float = 0.8,
    group: int = 0,
    **run: Unpack[Run],
) -> Method:
    """CAGE: a scaled sign, and latents that are pulled towards it late in the run.

        w = a sign(t),   h = g,   a = mean |t| of a channel
        t <- t - lr d,   then t <- t - lr l (t - a sign(t))

    l is 0 until `silence`, a share of the run, and then rises linearly to `pull`.
    Tabesh et al., MLSys 2026, https://arxiv.org/abs/2510.18784, in its decoupled form,
    with Adam without weight decay; see `optim.apply_cage`. The source has 2 to 4 bits;
    this is its correction with the scaled sign as the quantiser.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        pull: l at the end, at least 0; 10 is published.
        silence: Share of the run without it, in [0, 1); 0.8 is published.
        group: Number of inputs of an output that share a scale, as in `scaled_sign`; 0
            for one scale for each output.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    check(pull >= 0, "pull", pull, "at least 0")
    check(0 <= silence < 1, "silence", silence, "in [0, 1)")
    length = length_of(steps, run)
    rate = _schedules.cosine(length, "learning_rate", learning_rate)
    signs = functools.partial(estimators.blend, share=1.0)
    weights, scales = _units.in_groups(signs, group, by_channel)

    def strength(step: Any) -> Any:
        share = ((step + 1) / length.steps - silence) / (1 - silence)
        return rate(step) * pull * jnp.clip(share, 0.0, 1.0)

    return build(
        length,
        learning_rate,
        weights,
        last=optim.apply_cage(weights, strength),
        deploy=weights,
        scales=scales,
    )


def parq(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    steepness: float = 10.0,
    anneal_fraction: float = 0.8,
    unit: str = "channel",
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
        unit: What has a scale a: `"channel"`, as published, or `"layer"`.
        group: Number of inputs of an output that share a scale, as in `scaled_sign`; 0
            for one scale for each output.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    length = length_of(steps, run)
    slope, binary_from = _schedules.mirrored_sigmoid(length, steepness, anneal_fraction)
    weights, scales = _units.scaled(estimators.parq, unit, group)
    return build(
        length,
        learning_rate,
        weights,
        schedules={"inverse_slope": slope},
        deploy=functools.partial(weights, inverse_slope=0.0),
        scales=scales,
        binary_from=binary_from,
    )


def progressive(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    phases: int = 20,
    group: int = 0,
    **run: Unpack[Run],
) -> Method:
    """Consistent progressive training: a scaled tanh that sharpens, and Adam.

        w = a tanh(s t / a) / tanh(s),   h = g s (1 - tanh^2(s t / a)) / tanh(s)

    a = mean |t| of a channel. In phase c of `phases`, from 1, s = 1.3 (e^(0.22 c) - 1):
    from 0.3 to 105 in 20 phases, as published. Weights begin close to the latents, so a
    trained float network is hardly changed; a sign(t) is shipped. Tu et al., ICML 2026,
    https://arxiv.org/abs/2508.06974, without its initialisation by scales of the
    inputs, and without its second, trained scale; see `estimators.progressive`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        phases: Number of phases of equal length, at least 1.
        group: Number of inputs of an output that share a scale, as in `scaled_sign`; 0
            for one scale for each output.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    check(phases >= 1, "phases", phases, "at least 1")
    length = length_of(steps, run)
    starts = [-(-length.steps * c // phases) for c in range(1, phases)]

    def sharpness(step: Any) -> Any:
        begun = step >= jnp.array(starts, jnp.int32)
        return 1.3 * jnp.expm1(0.22 * (1 + jnp.sum(begun.astype(jnp.float32))))

    weights, scales = _units.in_groups(estimators.progressive, group, by_channel)
    signs = functools.partial(estimators.blend, share=1.0)
    return build(
        length,
        learning_rate,
        weights,
        schedules={"sharpness": sharpness},
        deploy=_units.in_groups(signs, group, by_channel)[0],
        scales=scales,
        binary_from=NEVER,
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
    weights, scales = _units.in_groups(
        functools.partial(estimators.scaled_sign, scale_grad=scale_grad),
        group,
        by_channel,
    )
    return build(
        length_of(steps, run), learning_rate, weights, deploy=weights, scales=scales
    )
