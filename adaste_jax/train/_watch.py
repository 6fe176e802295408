"""Shares of the latents in a step: measured now and then, and repeated between."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaste_jax import methods
from adaste_jax.metrics import _step as _shares
from adaste_jax.train import _state

EVERY = 16
"""Shares are measured in every so many steps: measuring reads every latent a few times,
a quarter of the time of a step of a perceptron at batch 128."""

NAMES = _shares.NAMES


def unknown() -> dict[str, Any]:
    """Shares before any were measured: -1, which is the same in all processes."""
    return {name: np.float32(-1) for name in NAMES}


def held(report: dict[str, Any], before: Any) -> Any:
    """The shares of a report, to be repeated; None where none are held."""
    if before is None or not set(NAMES) <= report.keys():
        return before
    return {name: report[name] for name in NAMES}


class Watch:
    """What is measured of one step, inside of it.

    Args:
        method: How the network is trained.
        every: Measures in steps whose number it divides; 0 never.
        state: The state before the step.
        held: The shares that were measured last; None measures in any case.
    """

    def __init__(
        self, method: methods.Method, every: int, state: _state.TrainState, held: Any
    ):
        self._method, self._held = method, held
        latents = any(jax.tree.leaves(method.where(state.params)))
        self._watches = every > 0 and latents
        self._due: Any = True
        if self._watches and held is not None and every > 1:
            self._due = (state.step % every == 0) | ~(held["flip_rate"] >= 0)

    def before(self, params: Any, weights: Any, labels: Any) -> tuple[Any, Any]:
        """What is measured before the update, and the labels to go on with.

        A gradient at these labels comes after the latents were read, so that the update
        may be written in their place; else XLA would copy them first.
        """
        if not self._watches:
            return None, labels
        measure: Any = functools.partial(_shares.before, method=self._method)
        if self._due is True:
            return measure(params, weights), labels
        shapes = jax.eval_shape(measure, params, weights)
        nothing: Any = lambda *_: jax.tree.map(_zeros, shapes)
        found = jax.lax.cond(self._due, measure, nothing, params, weights)
        _, saturated = found
        never = saturated < 0  # which the compiler does not know
        return found, jax.tree.map(
            lambda leaf: jnp.where(never, _zeros(leaf), leaf), labels
        )

    def after(self, before: Any, params: Any, grads: Any) -> dict[str, jax.Array]:
        """The shares: measured, or repeated where it is no turn to measure."""
        if not self._watches:
            return {}

        def measure(before: Any, params: Any, grads: Any) -> dict[str, jax.Array]:
            shares = _shares.after(before, params, grads, method=self._method)
            return {name: share.astype(jnp.float32) for name, share in shares.items()}

        found: dict[str, jax.Array]
        if self._due is True:
            found = measure(before, params, grads)
            return found
        held: Any = lambda *_: self._held
        found = jax.lax.cond(self._due, measure, held, before, params, grads)
        return found


def _zeros(like: Any) -> jax.Array:
    return jnp.zeros(like.shape, like.dtype)
