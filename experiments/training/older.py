"""Forms of the contents of a checkpoint in older versions."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from experiments.runs import checkpoints
from experiments.training import tally


class _Count(NamedTuple):
    step: jax.Array


def before_0_2(config: ml_collections.ConfigDict, like: Any) -> list[checkpoints.Older]:
    """The forms that version 0.1 gave to the tally and to the state of `adaste`.

    Its tally summed the shares of the latents in every step. Of `adaste`, the
    transformation of the latents had one more step count, between Adam and the learning
    rate.

    Args:
        config: The config of the run.
        like: The tree of arrays in a checkpoint of today.
    """
    sums = like["tally"].sums
    if tally.MEASURED not in sums:  # full precision
        return []

    def summing(tree: Any, sums: Any) -> Any:
        return {**tree, "tally": dataclasses.replace(tree["tally"], sums=sums)}

    def renewed(tree: Any) -> Any:
        count = tree["tally"].count.astype(jnp.float32)
        return summing(tree, {**tree["tally"].sums, tally.MEASURED: count})

    old = summing(like, {k: v for k, v in sums.items() if k != tally.MEASURED})
    if config.method != "adaste":
        return [checkpoints.Older(old, renewed)]

    def changed(tree: Any, change: Callable[[Any], Any]) -> Any:
        whole = tree["state"].opt_state
        partition = whole.inner_state if config.skip_nonfinite else whole
        latent = partition.inner_states["latent"]
        latent = latent._replace(inner_state=change(latent.inner_state))
        states = {**partition.inner_states, "latent": latent}
        partition = partition._replace(inner_states=states)
        if config.skip_nonfinite:
            partition = whole._replace(inner_state=partition)
        state = dataclasses.replace(tree["state"], opt_state=partition)
        return {**tree, "state": state}

    old = changed(old, lambda inner: (inner[0], _Count(inner[1].count), inner[1]))
    return [checkpoints.Older(old, lambda found: changed(renewed(found), _without))]


def _without(inner: Any) -> Any:
    """Without the second count."""
    return inner[::2]
