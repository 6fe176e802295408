"""What transformations share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from adaste_jax import _numerics


class StepState(NamedTuple):
    """Counts steps, so that hyperparameters may be schedules."""

    step: jax.Array  # shape=(), dtype=int32


def leafwise(
    name: str, function: Callable[..., jax.Array], *values: optax.ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    """A transformation `u <- function(u, latent, *values)`, leaf by leaf.

    Args:
        name: Name of the transformation, for the error if `update` gets no `params`.
        function: From an update, its latent and the values, to an update.
        *values: Numbers, or schedules of the step count.

    Returns:
        A transformation whose `update` needs `params`. It may also get `step`, at which
        schedules are read instead of the own count.
    """

    def init(params: Any) -> StepState:
        del params
        return StepState(step=jnp.zeros((), jnp.int32))

    def update(
        updates: Any,
        state: StepState,
        params: Any = None,
        *,
        step: ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[Any, StepState]:
        del extra_args
        check_params(name, params)
        step = clock(state.step, step)
        at_step = [at(value, step) for value in values]
        updates = jax.tree.map(
            lambda update, latent: function(update, latent, *at_step), updates, params
        )
        return updates, StepState(optax.safe_increment(step))

    return optax.GradientTransformationExtraArgs(init, update)


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


def clock(count: jax.Array, step: ArrayLike | None) -> jax.Array:
    """The caller's step if it is given, otherwise the own count.

    Under `optax.MultiSteps` or `optax.apply_if_finite` the own count rises more slowly
    than the training step, at which the loss reads its schedules.
    """
    return count if step is None else jnp.asarray(step, count.dtype)


def positive(latent: jax.Array) -> jax.Array:
    """Where the sign of a latent is +1, as a bool."""
    return _numerics.sign(latent) > 0


def averaged(value: jax.Array, average: jax.Array, share: ArrayLike) -> jax.Array:
    """A moving average after the next value, which gets a share of it."""
    new = jnp.asarray(share, average.dtype)
    return (1 - new) * average + new * value.astype(average.dtype)
