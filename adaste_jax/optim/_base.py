"""What transformations share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class StepState(NamedTuple):
    """Counts steps, so that hyperparameters may be schedules."""

    step: jax.Array  # shape=(), dtype=int32


def leafwise(
    name: str, function: Callable[..., jax.Array], *values: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """A transformation `u <- function(u, latent, *values)`, leaf by leaf.

    Args:
        name: For the error when `update` gets no `params`.
        function: From an update, its latent and the values, to an update.
        *values: Numbers, or schedules of the step count.

    Returns:
        A transformation whose `update` needs `params`.
    """

    def init(params):
        del params
        return StepState(step=jnp.zeros((), jnp.int32))

    def update(updates, state, params=None):
        check_params(name, params)
        at_step = [at(value, state.step) for value in values]
        updates = jax.tree.map(
            lambda update, latent: function(update, latent, *at_step), updates, params
        )
        return updates, StepState(optax.safe_increment(state.step))

    return optax.GradientTransformation(init, update)


def check_params(name: str, params: Any) -> None:
    """Refuses an update without latents.

    Raises:
        ValueError: If `params` is None.
    """
    if params is None:
        raise ValueError(
            f"{name} needs the latents: call `tx.update(updates, state, params)`."
        )


def at(value: optax.ScalarOrSchedule, step: jax.Array) -> Any:
    """A number as it is, a schedule at the step."""
    return value(step) if callable(value) else value
