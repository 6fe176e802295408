"""Means of the metrics since the start of an epoch, kept on the device."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaste_jax import metrics

SHARES = ("flip_rate", "saturated", "zero_gradient")
"""Shares of the latents, which a step measures now and then."""

MEASURED = "measured"
"""Stands among the sums for the number of steps that measured them."""

EVERY = 16
"""How often: in every so many steps."""

LEAST = 8
"""And so many times an epoch at least, or in every step of it."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["sums", "count", "first_bad_step", "signs"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Tally:
    """Sums of metrics, saved in checkpoints so that a resumed epoch reports the same.

    Attributes:
        sums: Sum of each metric over the steps in which all metrics were finite; and
            under `MEASURED` how many of these steps measured the `SHARES`, if any does.
        count: Number of steps in the sums.
        first_bad_step: First step with a metric that was not finite, or -1.
        signs: Signs of the latents when the epoch began, packed; None in full
            precision.
    """

    sums: dict[str, jax.Array]
    count: jax.Array
    first_bad_step: jax.Array
    signs: list[jax.Array] | None

    @classmethod
    def start(cls, params: Any, where: Any, names: Sequence[str]) -> "Tally":
        """An empty tally.

        Args:
            params: Latents at the start of the epoch.
            where: Which leaves are binary; None in full precision.
            names: Names of the metrics that the step reports.
        """
        return cls(
            sums={name: jnp.zeros(()) for name in _summed(names)},
            count=jnp.zeros((), jnp.int32),
            first_bad_step=jnp.full((), -1, jnp.int32),
            signs=None if where is None else metrics.pack_signs(params, where=where),
        )

    def means(self) -> dict[str, np.ndarray]:
        """Mean of each metric over the summed steps; empty without steps."""
        sums, count = jax.device_get((self.sums, self.count))
        measured = sums.pop(MEASURED, count)
        counts = {name: measured if name in SHARES else count for name in sums}
        return {
            name: total / np.float32(counts[name])
            for name, total in sums.items()
            if counts[name]
        }

    def nonfinite_steps(self, steps: int) -> int:
        """Number of steps of the epoch that are left out of the means.

        Args:
            steps: Number of steps in the epoch.
        """
        return steps - int(self.count)


@functools.partial(jax.jit, donate_argnums=0)
def add(
    tally: Tally,
    report: dict[str, jax.Array],
    step: jax.Array,
    every: jax.Array | int = 1,
) -> Tally:
    """Adds the metrics of one step, or of a scan of steps that begins at `step`.

    Args:
        tally: Where they are added.
        report: What the step reports.
        step: The first step.
        every: `SHARES` are measured in steps whose number this divides; in all others
            the report repeats them.
    """
    report = jax.tree.map(jnp.atleast_1d, report)
    report[MEASURED] = jnp.ones(len(report["loss"]))
    finite = [jnp.isfinite(report[name]) for name in tally.sums]
    bad = ~functools.reduce(jnp.logical_and, finite)
    due = (step + jnp.arange(len(bad))) % every == 0
    left_out = {
        name: bad | ~due if name in (*SHARES, MEASURED) else bad for name in tally.sums
    }
    found = jnp.where(jnp.any(bad), step + jnp.argmax(bad), -1).astype(jnp.int32)
    return dataclasses.replace(
        tally,
        sums={
            name: total + jnp.sum(jnp.where(left_out[name], 0.0, report[name]))
            for name, total in tally.sums.items()
        },
        count=tally.count + jnp.sum(~bad, dtype=jnp.int32),
        first_bad_step=jnp.where(
            tally.first_bad_step >= 0, tally.first_bad_step, found
        ),
    )


def _summed(names: Sequence[str]) -> list[str]:
    """The names of all sums of metrics of these names."""
    return [*names, MEASURED] if set(SHARES) <= set(names) else list(names)
