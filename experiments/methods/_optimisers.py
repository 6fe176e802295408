"""What is special is the transformation alone; the loss sees what it keeps."""

from typing import Any

import optax

from adaste_jax import estimators, optim
from experiments.methods import _parts
from experiments.methods._base import Length, Method, enter


@enter("full_precision", learning_rate=1e-3)
def _full_precision(options: Any, length: Length) -> Method:
    return Method(tx=_parts.adam(options, length), estimator=None)


@enter("bop", learning_rate=1e-3, tau=1e-7)
def _bop(options: Any, length: Length) -> Method:
    """No latents; gamma takes the place of the learning rate."""
    return Method(
        tx=optim.bop(_parts.cosine(options, length), tau=options.tau),
        estimator=estimators.ste_identity,
        initial_latents=_parts.signs(1.0),
        loaded_latents=_parts.signs(1.0),
    )


@enter("proxquant", learning_rate=1e-2, pull=4.0)
def _proxquant(options: Any, length: Length) -> Method:
    """Real weights; all proximal maps together move a weight by up to `pull`.

    Their strength grows linearly, as published, but reaches its end in any length.
    """
    steps = length.num_steps
    strength = optax.linear_schedule(0.0, 2 * options.pull / steps, steps)
    return Method(
        tx=optim.proxquant(
            _parts.cosine(options, length), strength=strength, clip=True
        ),
        estimator=lambda weight: weight,
        soft_steps=length.never,
    )
