"""Freezes latents whose signs go back and forth.

Nagel, Fournarakis, Bondarenko and Blankevoort, "Overcoming Oscillations in
Quantization-Aware Training", ICML 2022, https://arxiv.org/abs/2203.11086.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from adaste_jax.estimators import _base as _checks
from adaste_jax.optim import _base


class FreezeState(NamedTuple):
    """The step count, and what is known of the past of each latent."""

    step: jax.Array  # shape=(), dtype=int32
    positive: Any  # as the params, bool: the sign in the last step
    moved: Any  # as the params, bool: whether it has flipped before
    frequency: Any  # as the params, at least float32: f
    average: Any  # as the params, at least float32: a
    frozen: Any  # as the params, bool


def freeze_oscillations(
    threshold: optax.ScalarOrSchedule, *, momentum: ArrayLike = 1e-3
) -> optax.GradientTransformationExtraArgs:
    """Iterative weight freezing, for one bit.

        f <- m o + (1 - m) f,   o = [the sign flips, against the flip before]
        t <- sign(a)            for ever, from the step with f > threshold
        a <- m sign(t) + (1 - m) a

    With two levels every flip but the first goes against the one before. a, the average
    of the sign, starts at the first sign. Frozen latents are at the level itself, +1
    or -1. Place it last in a chain.

    Published for 3 and 4 bits and 50 epochs of ImageNet: m = 0.001, and a threshold
    that falls from 0.1 to 0.01 on a cosine after a quarter of the run, before which
    nothing is frozen.

    Args:
        threshold: Largest frequency of a free latent, at least 0 and two to three times
            m or more: a number, or a schedule of the step count.
        momentum: m, in [0, 1]: the share of a new value in the averages.

    Returns:
        A transformation whose `update` needs `params`. NaN is never frozen.

    Raises:
        ValueError: If a number is out of range, or `update` gets no `params`.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from adaste_jax import optim
        >>> tx = optim.freeze_oscillations(0.4, momentum=0.5)
        >>> latent = jnp.array(0.1)
        >>> state, path = tx.init(latent), []
        >>> for update in (-0.2, 0.2, -0.2, 0.2):
        ...     update, state = tx.update(jnp.array(update), state, latent)
        ...     latent = latent + update
        ...     path.append(round(float(latent), 3))
        >>> path  # it has flipped back in the third step
        [-0.1, 0.1, 1.0, 1.0]
    """
    if not callable(threshold):
        _checks.check_scalar("threshold", threshold)
    _checks.check_scalar("momentum", momentum, high=1.0)

    def init(params: Any) -> FreezeState:
        dtype = _checks.compute_dtype
        none = jax.tree.map(lambda t: jnp.zeros(t.shape, bool), params)
        zero = jax.tree.map(lambda t: jnp.zeros(t.shape, dtype(t)), params)
        up = jax.tree.map(_base.positive, params)
        signs = jax.tree.map(_signs, up, zero)
        return FreezeState(jnp.zeros((), jnp.int32), up, none, zero, signs, none)

    def update(
        updates: Any,
        state: FreezeState,
        params: Any = None,
        *,
        step: ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[Any, FreezeState]:
        del extra_args
        _base.check_params("freeze_oscillations", params)
        step = _base.clock(state.step, step)
        limit = _base.at(threshold, step)
        up = jax.tree.map(_base.positive, params)
        flipped = jax.tree.map(jnp.not_equal, up, state.positive)
        frequency = jax.tree.map(
            lambda flip, moved, f: _base.averaged(flip & moved, f, momentum),
            flipped,
            state.moved,
            state.frequency,
        )
        frozen = jax.tree.map(
            lambda before, f: before | (f > limit), state.frozen, frequency
        )
        average = jax.tree.map(
            lambda still, sign, a: jnp.where(
                still, a, _base.averaged(_signs(sign, a), a, momentum)
            ),
            frozen,
            up,
            state.average,
        )
        updates = jax.tree.map(_held, updates, params, frozen, state.average)
        moved = jax.tree.map(jnp.logical_or, state.moved, flipped)
        count = optax.safe_increment(step)
        return updates, FreezeState(count, up, moved, frequency, average, frozen)

    return optax.GradientTransformationExtraArgs(init, update)


def _signs(positive: jax.Array, like: jax.Array) -> jax.Array:
    return 2 * positive.astype(like.dtype) - 1


def _held(
    update: jax.Array, latent: jax.Array, frozen: jax.Array, average: jax.Array
) -> jax.Array:
    """The update of one leaf, to the level where it is frozen."""
    level = _signs(_base.positive(average), latent)
    valid = ~(jnp.isnan(update) | jnp.isnan(latent))
    return jnp.where(frozen & valid, (level - latent).astype(update.dtype), update)
