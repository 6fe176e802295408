"""Schedules of a run: functions of its step, from 0."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adaste_jax import optim
from adaste_jax.methods._method import NEVER, Length, Rate, check


def cosine(length: Length, name: str, rate: Rate) -> optax.Schedule:
    """A cosine from a learning rate, the option `name`, to 0; schedules are kept."""
    if callable(rate):
        return warmed_up(length, rate)
    check_rate(name, rate)
    return warmed_up(length, optax.cosine_decay_schedule(rate, length.steps))


def check_rate(name: str, rate: Any) -> None:
    """Checks that a learning rate is above 0; a traced one cannot be checked."""
    check(isinstance(rate, jax.core.Tracer) or rate > 0, name, rate, "greater than 0")


def warmed_up(length: Length, schedule: optax.Schedule) -> optax.Schedule:
    """Multiplies a schedule by a factor that rises linearly to 1 in the warm-up."""
    if not length.warmup_steps:
        return schedule
    return lambda step: (
        schedule(step) * jnp.minimum(1.0, (step + 1) / length.warmup_steps)
    )


def by_epoch(length: Length, of_share: Callable[[jax.Array], Any]) -> optax.Schedule:
    """A function of the finished share of the run that changes once per epoch."""
    num_epochs, steps_per_epoch = length.epochs()
    return optim.per_epoch(
        lambda epoch: of_share(jnp.minimum(epoch, num_epochs) / num_epochs),
        steps_per_epoch,
    )


def released_cosine(init_value: float, num_epochs: int) -> optax.Schedule:
    """The authors' learning rate for AdaSTE by epoch: one epoch ahead, to 1e-16.

    Their scheduler steps once before the first epoch, so the last epoch trains at the
    end value. The formula of Optax gives other bits in that epoch, so it is not used.
    """

    def schedule(epoch: Any) -> Any:
        epoch = jnp.minimum(epoch + 1, num_epochs)
        cosine = (1 + jnp.cos(jnp.pi * epoch / num_epochs)) / 2
        return 1e-16 + (init_value - 1e-16) * cosine

    return schedule


def annealing(
    length: Length, alpha: float, mu_init: float, mu_end: float, anneal_fraction: float
) -> tuple[optax.Schedule, int]:
    """AdaSTE's mu, geometric in the step, and the step from which weights are signs."""
    check(0 < alpha < 1, "alpha", alpha, "in (0, 1)")
    check(mu_init > 0, "mu_init", mu_init, "greater than 0")
    check(mu_init <= mu_end, "mu_end", mu_end, f"at least `mu_init`, {mu_init}")
    steps = _share(length, anneal_fraction)
    schedule = optax.exponential_decay(
        mu_init, steps, decay_rate=mu_end / mu_init, end_value=mu_end
    )
    return schedule, steps if mu_end * alpha >= 1 - 1e-6 else NEVER


def growth(length: Length, beta_end: float, anneal_fraction: float) -> optax.Schedule:
    """beta, from 1 to `beta_end`, geometric in the step.

    Published runs have 100,000 steps and change beta at intervals:
    docs/methods/md_tanh_s.md.
    """
    check(beta_end >= 1, "beta_end", beta_end, "at least 1")
    steps = _share(length, anneal_fraction)
    return optax.exponential_decay(1.0, steps, decay_rate=beta_end, end_value=beta_end)


def ramp(length: Length, anneal_fraction: float) -> tuple[optax.Schedule, int]:
    """A share that rises linearly from 0 to 1, and the step from which it is 1."""
    steps = _share(length, anneal_fraction)
    return optax.linear_schedule(0.0, 1.0, steps), steps


def mirrored_sigmoid(
    length: Length, steepness: float, anneal_fraction: float
) -> tuple[optax.Schedule, int]:
    """PARQ's inverse slope, from 1 to 0, and the step from which it is 0."""
    check(steepness > 0, "steepness", steepness, "greater than 0")
    steps = _share(length, anneal_fraction)
    first, last = (float(1 / (1 + math.exp(x * steepness))) for x in (-0.5, 0.5))

    def schedule(step: Any) -> Any:
        share = jnp.minimum(step / steps, 1.0)
        value = jax.nn.sigmoid(-steepness * (share - 0.5))
        inner = jnp.clip((value - last) / (first - last), 0.0, 1.0)
        return jnp.where(step < steps, inner, 0.0)

    return schedule, steps


def _share(length: Length, anneal_fraction: float) -> int:
    """The number of annealing steps."""
    fine = 0 < anneal_fraction <= 1
    check(fine, "anneal_fraction", anneal_fraction, "in (0, 1]")
    return max(1, round(anneal_fraction * length.steps))
