"""Schedules that change once per epoch, as in many published recipes."""

from typing import Any

import optax


def per_epoch(schedule: optax.Schedule, steps_per_epoch: int) -> optax.Schedule:
    """Turns a schedule of the epoch (from 0) into one of the step count (from 0).

    Args:
        schedule: Function from the epoch to a value: any schedule of Optax, or a
            function.
        steps_per_epoch: Optimiser steps in one epoch, or between two changes.

    Returns:
        A schedule of the step count: constant in each epoch.

    Raises:
        ValueError: If `steps_per_epoch` is less than 1.

    Example:
        >>> from adaste_jax import optim
        >>> schedule = optim.per_epoch(lambda epoch: 0.5**epoch, steps_per_epoch=10)
        >>> [schedule(step) for step in (0, 9, 10)]
        [1.0, 1.0, 0.5]
    """
    if steps_per_epoch < 1:
        raise ValueError(
            f"a schedule of epochs needs steps_per_epoch >= 1, got {steps_per_epoch}."
        )

    def of_step(step: Any) -> Any:
        return schedule(step // steps_per_epoch)

    return of_step
