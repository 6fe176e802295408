"""Forms of the contents of a checkpoint in older versions."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections

from experiments.runs import checkpoints


class _Count(NamedTuple):
    step: jax.Array


def before_0_2(config: ml_collections.ConfigDict, like: Any) -> list[checkpoints.Older]:
    """The form of the state of `adaste` in version 0.1.

    There the transformation of the latents had one more step count, between Adam and
    the learning rate. All other methods have kept their form.

    Args:
        config: The config of the run.
        like: The tree of arrays in a checkpoint of today.
    """
    if config.method != "adaste":
        return []

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

    old = changed(like, lambda inner: (inner[0], _Count(inner[1].count), inner[1]))
    return [checkpoints.Older(old, lambda found: changed(found, lambda i: i[::2]))]
