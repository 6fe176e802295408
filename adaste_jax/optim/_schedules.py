"""Schedules that move once per epoch, as the released recipes do."""

from typing import Literal

import jax.numpy as jnp
import optax


def per_epoch(schedule: optax.Schedule, steps_per_epoch: int) -> optax.Schedule:
    """A schedule of the epoch (from 0), as one of the step count (from 0).

    Args:
        schedule: From the epoch to a value.
        steps_per_epoch: Optimiser steps in one epoch.

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
    return lambda step: schedule(step // steps_per_epoch)


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
    schedule = optax.exponential_decay(init_value * rate, 1, rate, end_value=max_value)
    return per_epoch(schedule, steps_per_epoch)


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

    def schedule(epoch):
        epoch = jnp.minimum(epoch + lead, num_epochs)
        cosine = (1 + jnp.cos(jnp.pi * epoch / num_epochs)) / 2
        return end_value + (init_value - end_value) * cosine

    return per_epoch(schedule, steps_per_epoch)


def reste_exponent(
    num_epochs: int,
    steps_per_epoch: int,
    *,
    end_value: float = 3.0,
    form: Literal["cosine", "linear"] = "cosine",
) -> optax.Schedule:
    """The exponent o of `estimators.reste`, from 1 towards `end_value`, once per epoch.

    In epoch e (from 0), with x = e / num_epochs,

        cosine  o = 1 + (end_value - 1) (1 - cos(pi x / 2))    as the authors' code
        linear  o = 1 + (end_value - 1) x                      as the paper

    Args:
        num_epochs: Epochs until `end_value`.
        steps_per_epoch: Optimiser steps in one epoch.
        end_value: o at x = 1, at least 1.
        form: Which of the two.

    Returns:
        A schedule of the step count (from 0).

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from adaste_jax import optim
        >>> schedule = optim.reste_exponent(10, steps_per_epoch=5, form="linear")
        >>> [round(float(schedule(step)), 6) for step in (0, 24, 25)]
        [1.0, 1.8, 2.0]
    """
    if num_epochs < 1 or steps_per_epoch < 1 or end_value < 1:
        raise ValueError(
            "reste_exponent needs num_epochs >= 1, steps_per_epoch >= 1 and end_value "
            f">= 1, got {num_epochs=}, {steps_per_epoch=}, {end_value=}."
        )
    if form not in ("cosine", "linear"):
        raise ValueError(f"`form` must be 'cosine' or 'linear', got {form!r}.")

    def schedule(epoch):
        x = jnp.minimum(epoch, num_epochs) / num_epochs
        rise = x if form == "linear" else 1 - jnp.cos(jnp.pi * x / 2)
        return 1 + (end_value - 1) * rise

    return per_epoch(schedule, steps_per_epoch)


def ede_sharpness(
    num_epochs: int,
    steps_per_epoch: int,
    *,
    init_value: float = 0.1,
    end_value: float = 10.0,
) -> optax.Schedule:
    """The sharpness of `estimators.ede`, geometric in the epoch.

    In epoch e (from 0) it is init_value (end_value / init_value)^(e / num_epochs).

    Args:
        num_epochs: Epochs until `end_value`.
        steps_per_epoch: Optimiser steps in one epoch.
        init_value: Above 0; 0.1 for binary weights, 0.001 where the activations of a
            ResNet-20 are binary too.
        end_value: Above 0.

    Returns:
        A schedule of the step count (from 0).

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from adaste_jax import optim
        >>> schedule = optim.ede_sharpness(10, steps_per_epoch=5)
        >>> [round(float(schedule(step)), 6) for step in (0, 25)]
        [0.1, 1.0]
    """
    if num_epochs < 1 or steps_per_epoch < 1 or min(init_value, end_value) <= 0:
        raise ValueError(
            "ede_sharpness needs num_epochs >= 1, steps_per_epoch >= 1 and positive "
            f"values, got {num_epochs=}, {steps_per_epoch=}, {init_value=}, "
            f"{end_value=}."
        )

    def schedule(epoch):
        x = jnp.minimum(epoch, num_epochs) / num_epochs
        return init_value * (end_value / init_value) ** x

    return per_epoch(schedule, steps_per_epoch)


def grow(rate: float, interval: int) -> optax.Schedule:
    """The published schedule of beta:  beta <- rate beta every `interval` steps.

    It starts at 1 and is first multiplied before step 0, so in step t it is
    rate^(t // interval + 1), up to 1e35.

    Args:
        rate: Factor, at least 1; published 1.01 to 1.2.
        interval: Steps between multiplications; published 100 to 2000.

    Returns:
        A schedule of the step count (from 0).

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from adaste_jax import optim
        >>> schedule = optim.grow(1.5, interval=100)
        >>> [float(schedule(step)) for step in (0, 99, 100)]
        [1.5, 1.5, 2.25]
    """
    return anneal(1.0, rate, 1e35, interval)
