"""Schedules that move once per epoch, as the released recipes do."""

import jax.numpy as jnp
import optax


def anneal(
    init_value: float, rate: float, max_value: float, steps_per_epoch: int
) -> optax.Schedule:
    """The released schedule of mu:  mu <- min(rate mu, max_value) before each epoch.

    The first multiplication comes before the first epoch, so in epoch e (from 0) it is
    min(init_value rate^(e + 1), max_value).

    Args:
        init_value: mu before the first multiplication; 0.01 in the released recipe.
        rate: Factor per epoch, at least 1; 1.05, or 1.009 for TinyImageNet.
        max_value: 1 / alpha, where the weights become binary.
        steps_per_epoch: Optimiser steps in one epoch.

    Returns:
        A schedule of the step count (from 0).

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from adaste_jax import optim
        >>> schedule = optim.anneal(0.01, 1.05, 100.0, steps_per_epoch=10)
        >>> [round(float(schedule(step)), 6) for step in (0, 9, 10)]
        [0.0105, 0.0105, 0.011025]
    """
    if not (0 < init_value <= max_value and rate >= 1 and steps_per_epoch >= 1):
        raise ValueError(
            "anneal needs 0 < init_value <= max_value, rate >= 1 and steps_per_epoch "
            f">= 1, got {init_value=}, {rate=}, {max_value=}, {steps_per_epoch=}."
        )
    return optax.exponential_decay(
        init_value * rate,
        transition_steps=steps_per_epoch,
        decay_rate=rate,
        staircase=True,
        end_value=max_value,
    )


def cosine_per_epoch(
    init_value: float,
    num_epochs: int,
    steps_per_epoch: int,
    *,
    end_value: float = 1e-16,
    lead: int = 1,
) -> optax.Schedule:
    """A cosine that moves once per epoch; the released one is a step ahead.

    In epoch e (from 0), with x = (e + lead) / num_epochs, it is
    end_value + (init_value - end_value) (1 + cos(pi x)) / 2.

    Args:
        init_value: Learning rate at x = 0.
        num_epochs: Epochs until `end_value`.
        steps_per_epoch: Optimiser steps in one epoch.
        end_value: Learning rate at x = 1.
        lead: 1 for the released recipe, whose scheduler steps once before the first
            epoch (so that the last epoch trains at `end_value`); 0 otherwise.

    Returns:
        A schedule of the step count (from 0).

    Raises:
        ValueError: If an argument is out of range.
    """
    if num_epochs < 1 or steps_per_epoch < 1 or lead < 0:
        raise ValueError(
            "cosine_per_epoch needs num_epochs >= 1, steps_per_epoch >= 1 and lead >= "
            f"0, got {num_epochs=}, {steps_per_epoch=}, {lead=}."
        )

    def schedule(count):
        epoch = jnp.minimum(count // steps_per_epoch + lead, num_epochs)
        cosine = (1 + jnp.cos(jnp.pi * epoch / num_epochs)) / 2
        return end_value + (init_value - end_value) * cosine

    return schedule
