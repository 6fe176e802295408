"""What methods are put together from: schedules, and latents to start from."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from adaste_jax import optim
from experiments.methods._base import InitialLatents, Length

# mu rises from `mu_init` to `mu_end` in the first `anneal_fraction` of the steps. From
# mu = 1 / `alpha` on, the weights of AdaSTE are binary.
ANNEALING = {"alpha": 0.01, "mu_init": 0.01, "mu_end": 100.0, "anneal_fraction": 0.8}


def cosine(options: Any, length: Length) -> optax.Schedule:
    """From the learning rate of the options to 0, after the warm-up."""
    return warmed_up(
        optax.cosine_decay_schedule(options.learning_rate, length.num_steps), length
    )


def warmed_up(schedule: optax.Schedule, length: Length) -> optax.Schedule:
    """A learning rate times a factor that rises in the warm-up, linearly, to 1."""
    if not length.warmup_steps:
        return schedule
    return lambda step: (
        schedule(step) * jnp.minimum(1.0, (step + 1) / length.warmup_steps)
    )


def adam(options: Any, length: Length) -> optax.GradientTransformation:
    """Adam at the learning rate of `cosine`."""
    return optax.adam(cosine(options, length))


def annealing(options: Any, length: Length) -> tuple[optax.Schedule, int]:
    """The schedule of mu, and the step from which the weights are binary."""
    if not 0 < options.anneal_fraction <= 1:
        raise ValueError(
            f"anneal_fraction must lie in (0, 1], got {options.anneal_fraction}."
        )
    if not 0 < options.mu_init <= options.mu_end:
        raise ValueError(
            "mu_init and mu_end must be > 0 and ascending, got "
            f"{options.mu_init} and {options.mu_end}."
        )
    if not 0 < options.alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {options.alpha}.")
    steps = max(1, round(options.anneal_fraction * length.num_steps))
    schedule = optax.exponential_decay(
        options.mu_init,
        transition_steps=steps,
        decay_rate=options.mu_end / options.mu_init,
        end_value=options.mu_end,
    )
    binary = options.mu_end * options.alpha >= 1 - 1e-6
    return schedule, steps if binary else length.never


def growth(options: Any, length: Length) -> optax.Schedule:
    """The schedule of beta, from 1 to `beta_end`, geometric in the step.

    Published is a factor for every so many of 100,000 steps (`optim.grow`).
    """
    if not options.beta_end >= 1:
        raise ValueError(f"beta_end must be at least 1, got {options.beta_end}.")
    return optax.exponential_decay(
        1.0,
        transition_steps=max(1, round(options.anneal_fraction * length.num_steps)),
        decay_rate=options.beta_end,
        end_value=options.beta_end,
    )


def signs(size: float) -> InitialLatents:
    """Plus and minus `size`, with the signs of what there is."""
    return lambda key, latent: size * optim.binary_signs(latent)


def random_signs(size: float) -> InitialLatents:
    """Plus and minus `size`, with equal probability."""
    return lambda key, latent: (
        size * jax.random.rademacher(key, latent.shape, latent.dtype)
    )


def uniform(key: jax.Array, latent: jax.Array) -> jax.Array:
    """Latents uniform in [-1, 1]."""
    return jax.random.uniform(key, latent.shape, latent.dtype, -1.0, 1.0)
