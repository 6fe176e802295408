"""The training state."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adaste_jax.train import _buffers


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["step", "params", "model_state", "opt_state", "key"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that training carries from step to step, and all that a checkpoint needs.

    Attributes:
        step: Optimiser steps taken, int32 scalar.
        params: Latents, and the parameters that stay real.
        model_state: Other variables of the model, such as batch-norm statistics.
        opt_state: State of the Optax transformation.
        key: PRNG key of the run; step t uses `jax.random.fold_in(key, t)`.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    key: jax.Array

    @classmethod
    def create(
        cls,
        params: Any,
        tx: optax.GradientTransformation,
        *,
        key: jax.Array,
        model_state: Any = None,
    ) -> "TrainState":
        """The state before the first step.

        An array that occurs twice in `params` and `model_state` (tied kernels, averages
        that start as the parameters) becomes two arrays, which then train separately.
        """
        # Steps donate their state: a transformation may start two moments as one array,
        # or keep an array that is not its own.
        opt_state = jax.tree.map(
            lambda leaf: jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf,
            tx.init(params),
        )
        state: TrainState = _buffers.unshared(
            cls(
                step=jnp.zeros((), jnp.int32),
                params=params,
                model_state={} if model_state is None else model_state,
                opt_state=opt_state,
                key=key,
            )
        )
        return state
