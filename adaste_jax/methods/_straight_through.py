"""Methods with signs in the forward pass (docs/results/compare_digits.md)."""

import functools
from typing import Any, Unpack

import jax.numpy as jnp

from adaste_jax import estimators, optim
from adaste_jax.methods import _build
from adaste_jax.methods._build import build
from adaste_jax.methods._method import (
    Length,
    Method,
    Rate,
    Run,
    by_channel,
    check,
    length_of,
)
from adaste_jax.methods._schedules import by_epoch


def ste(steps: int, *, learning_rate: Rate = 3e-3, **run: Unpack[Run]) -> Method:
    """STE, the straight-through estimator with Adam: the baseline.

        w = sign(t),   h = g

    Its only hyperparameter is the learning rate. Bengio, Léonard and Courville, 2013,
    https://arxiv.org/abs/1308.3432; see `estimators.ste`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    return build(length_of(steps, run), learning_rate, estimators.ste)


def ste_clipped(
    steps: int, *, learning_rate: Rate = 3e-3, **run: Unpack[Run]
) -> Method:
    """The rule of BinaryNet, with Adam; latents are kept in [-1, 1].

        w = sign(t),   h = g 1[|t| <= 1]

    Courbariaux et al., 2016, https://arxiv.org/abs/1602.02830; see
    `estimators.ste_clipped`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    return build(
        length_of(steps, run),
        learning_rate,
        estimators.ste_clipped,
        last=optim.clip_latents(),
    )


def binary_connect(
    steps: int, *, learning_rate: Rate = 3e-3, **run: Unpack[Run]
) -> Method:
    """BinaryConnect: a step of Adam scaled for the layer, then a clip to [-1, 1].

        w = sign(t),   t <- clip(t - s lr d, -1, 1),   s = 1 / sqrt(1.5 / fans)

    Latents start uniform in [-1, 1]. Courbariaux, Bengio and David, NeurIPS 2015,
    https://arxiv.org/abs/1511.00363; see `optim.binary_connect`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    return build(
        length_of(steps, run),
        learning_rate,
        estimators.ste,
        tx=optim.binary_connect,
        starts=(_build.uniform, None),
    )


def approx_sign(
    steps: int, *, learning_rate: Rate = 3e-3, **run: Unpack[Run]
) -> Method:
    """ApproxSign, the slope of Bi-Real net, with Adam.

        w = sign(t),   h = g max(0, 2 (1 - |t|))

    Liu et al., ECCV 2018, https://arxiv.org/abs/1808.00278; `estimators.approx_sign`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    return build(length_of(steps, run), learning_rate, estimators.approx_sign)


def swish_sign(
    steps: int, *, learning_rate: Rate = 3e-3, beta: float = 5.0, **run: Unpack[Run]
) -> Method:
    """SwishSign, the slope of BNN+, with Adam.

        w = sign(t),   h = g b (2 - b t tanh(b t / 2)) / (1 + cosh(b t))

    Darabi et al., 2018, https://arxiv.org/abs/1812.11800; see `estimators.swish_sign`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        beta: b, greater than 0; 5 is published.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    estimator = functools.partial(estimators.swish_sign, beta=beta)
    return build(length_of(steps, run), learning_rate, estimator)


def fda(
    steps: int, *, learning_rate: Rate = 3e-3, order: int = 2, **run: Unpack[Run]
) -> Method:
    """FDA, the slope of a Fourier series of the sign, with Adam.

        w = sign(t),   h = g (4 omega / pi) sum_i cos((2 i + 1) omega t)

    Xu et al., NeurIPS 2021, https://arxiv.org/abs/2103.00841, without their noise
    adaptation module; see `estimators.fda`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        order: Index of the last term of the sum, at least 0.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    estimator = functools.partial(estimators.fda, order=order)
    return build(length_of(steps, run), learning_rate, estimator)


def reste(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    exponent_end: float = 3.0,
    **run: Unpack[Run],
) -> Method:
    """ReSTE, the slope of a power function that sharpens, with Adam.

        w = sign(t),   h = g |t|^((1 - o) / o) / o between 0.1 and 1.5

    After a share x of the epochs o = 1 + (exponent_end - 1) (1 - cos(pi x / 2)). Wu,
    Zheng, Liu and Zheng, ICCV 2023, https://arxiv.org/abs/2308.06689, without the
    published scale of the weights; see `estimators.reste`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        exponent_end: o at the end, at least 1.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    check(exponent_end >= 1, "exponent_end", exponent_end, "at least 1")
    length = length_of(steps, run)
    exponent = by_epoch(
        length, lambda x: 1 + (exponent_end - 1) * (1 - jnp.cos(jnp.pi * x / 2))
    )
    return build(
        length, learning_rate, estimators.reste, schedules={"exponent": exponent}
    )


def ede(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    sharpness_init: float = 0.1,
    sharpness_end: float = 10.0,
    **run: Unpack[Run],
) -> Method:
    """EDE, IR-Net's slope, which narrows with the epochs, with Adam.

        w = sign(t),   h = g k s (1 - tanh^2(s t)),   k = max(1 / s, 1)

    Qin et al., CVPR 2020, https://arxiv.org/abs/1909.10788; see `estimators.ede`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        sharpness_init: s in the first epoch, greater than 0.
        sharpness_end: s at the end; it grows geometrically, once per epoch.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    return _sharpened(
        length_of(steps, run),
        learning_rate,
        estimators.ede,
        sharpness_init,
        sharpness_end,
    )


def rbnn(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    sharpness_init: float = 0.1,
    sharpness_end: float = 10.0,
    **run: Unpack[Run],
) -> Method:
    """RBNN's slope, which narrows with the epochs, with Adam; without its rotation.

        w = sign(t),   h = g max(1 / s, 1) max(0, sqrt(2) s - s^2 |t|)

    Lin et al., NeurIPS 2020, https://arxiv.org/abs/2009.13055; see `estimators.rbnn`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        sharpness_init: s in the first epoch, greater than 0.
        sharpness_end: s at the end; it grows geometrically, once per epoch.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    return _sharpened(
        length_of(steps, run),
        learning_rate,
        estimators.rbnn,
        sharpness_init,
        sharpness_end,
    )


def irnet(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    sharpness_init: float = 0.1,
    sharpness_end: float = 10.0,
    **run: Unpack[Run],
) -> Method:
    """IR-Net's weights: standardised, with a power of two for each channel.

        z = (t - mean) / std of a channel,   w = 2^round(log2 mean |z|) sign(z)

    The backward rule is `ede` at z, then the derivative of z. The powers of two are
    shipped with the bits. Qin et al., CVPR 2020, https://arxiv.org/abs/1909.10788; see
    `estimators.irnet_weight`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        sharpness_init: s of `ede` in the first epoch, greater than 0.
        sharpness_end: s at the end; it grows geometrically, once per epoch.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    return _sharpened(
        length_of(steps, run),
        learning_rate,
        estimators.irnet_weight,
        sharpness_init,
        sharpness_end,
        deploy=functools.partial(estimators.irnet_weight, sharpness=1.0),
        scales=by_channel,
    )


def _sharpened(
    length: Length,
    learning_rate: Rate,
    estimator: _build.Map,
    sharpness_init: float,
    sharpness_end: float,
    **options: Any,
) -> Method:
    """Adam, and a slope that narrows on the schedule of EDE."""
    for name, value in (("_init", sharpness_init), ("_end", sharpness_end)):
        check(value > 0, f"sharpness{name}", value, "greater than 0")
    ratio = sharpness_end / sharpness_init
    sharpness = by_epoch(length, lambda x: sharpness_init * ratio**x)
    return build(
        length, learning_rate, estimator, schedules={"sharpness": sharpness}, **options
    )
