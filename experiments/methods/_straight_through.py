"""Signs in the forward pass, some of them scaled; the backward passes differ."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import optax

from adaste_jax import estimators, optim
from experiments.methods import _parts
from experiments.methods._base import Length, Method, enter


@enter("ste", learning_rate=3e-3)
def _ste(options: Any, length: Length) -> Method:
    return Method(tx=_parts.adam(options, length), estimator=estimators.ste_identity)


@enter("ste_clipped", learning_rate=3e-3)
def _ste_clipped(options: Any, length: Length) -> Method:
    """The rule of BinaryNet; latents stay in [-1, 1]."""
    return Method(
        tx=optax.chain(_parts.adam(options, length), optim.clip_latents()),
        estimator=estimators.ste_clipped,
    )


@enter("binary_connect", learning_rate=3e-3)
def _binary_connect(options: Any, length: Length) -> Method:
    return Method(
        tx=optim.binary_connect(_parts.cosine(options, length)),
        estimator=estimators.ste_identity,
        initial_latents=_parts.uniform,
    )


@enter("approx_sign", learning_rate=3e-3)
def _approx_sign(options: Any, length: Length) -> Method:
    return Method(tx=_parts.adam(options, length), estimator=estimators.approx_sign)


@enter("swish_sign", learning_rate=3e-3, beta=5.0)
def _swish_sign(options: Any, length: Length) -> Method:
    return Method(
        tx=_parts.adam(options, length),
        estimator=functools.partial(estimators.swish_sign, beta=options.beta),
    )


@enter("fda", learning_rate=3e-3, order=2)
def _fda(options: Any, length: Length) -> Method:
    return Method(
        tx=_parts.adam(options, length),
        estimator=functools.partial(estimators.fda, order=options.order),
    )


@enter("reste", learning_rate=3e-3, exponent_end=3.0)
def _reste(options: Any, length: Length) -> Method:
    exponent = optim.reste_exponent(
        length.num_epochs, length.steps_per_epoch, end_value=options.exponent_end
    )
    return Method(
        tx=_parts.adam(options, length),
        estimator=estimators.reste,
        hyperparameters={"exponent": exponent},
    )


@enter("ede", learning_rate=3e-3, sharpness_init=0.1, sharpness_end=10.0)
def _ede(options: Any, length: Length) -> Method:
    return _sharpened(options, length, estimators.ede)


@enter("rbnn", learning_rate=3e-3, sharpness_init=0.1, sharpness_end=10.0)
def _rbnn(options: Any, length: Length) -> Method:
    return _sharpened(options, length, estimators.rbnn)


@enter("irnet", learning_rate=3e-3, sharpness_init=0.1, sharpness_end=10.0)
def _irnet(options: Any, length: Length) -> Method:
    """Weights that are standardised first, and a power of two for each channel."""
    return dataclasses.replace(
        _sharpened(options, length, estimators.irnet_weight),
        deploy=functools.partial(estimators.irnet_weight, sharpness=1.0),
    )


@enter("scaled_sign", learning_rate=3e-3, scale_grad="constant")
def _scaled_sign(options: Any, length: Length) -> Method:
    """A sign and a scale for each channel, as in XNOR-Net and Bi-Real net."""
    weights = functools.partial(estimators.scaled_sign, scale_grad=options.scale_grad)
    return Method(tx=_parts.adam(options, length), estimator=weights, deploy=weights)


def _sharpened(
    options: Any, length: Length, estimator: Callable[..., jax.Array]
) -> Method:
    """A slope that narrows, on the schedule of EDE."""
    sharpness = optim.ede_sharpness(
        length.num_epochs,
        length.steps_per_epoch,
        init_value=options.sharpness_init,
        end_value=options.sharpness_end,
    )
    return Method(
        tx=_parts.adam(options, length),
        estimator=estimator,
        hyperparameters={"sharpness": sharpness},
    )
