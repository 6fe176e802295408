"""The method of a problem, the state it starts from, and the tally of an epoch."""

from typing import Any

import jax
import optax

import adaste_jax
from adaste_jax import methods as library
from adaste_jax import train
from experiments import errors, methods
from experiments.training import tally
from experiments.training.problem import Problem, keys_of


def method_of(
    problem: Problem, *, learning_rate: jax.Array | None = None
) -> library.Method:
    """The method that the config names, for a run of the config's length.

    Args:
        problem: The problem.
        learning_rate: Learning rate that replaces that of the config; may be traced.

    Returns:
        The method. It skips updates that are not finite if the config says so.

    Raises:
        RunError: If an option is out of range.
    """
    config = problem.config
    method = methods.create(
        config.method,
        config.methods,
        learning_rate=learning_rate,
        steps=problem.num_steps,
        where=adaste_jax.kernels(exclude=tuple(config.binary_exclude)),
        real_learning_rate=config.real_learning_rate,
        warmup_steps=round(config.warmup_epochs * problem.steps_per_epoch),
        steps_per_epoch=problem.steps_per_epoch,
        num_examples=problem.num_train,
        optimiser=methods.optimiser(config.optimiser, config.momentum),
    )
    if not config.skip_nonfinite:
        return method
    tx = optax.apply_if_finite(method.tx, config.skip_nonfinite)
    return method._replace(tx=optax.with_extra_args_support(tx))


def start(
    problem: Problem,
    method: library.Method,
    seed: int,
    *,
    params: Any = None,
    model_state: Any = None,
    latents: bool = False,
) -> train.TrainState:
    """The state before the first step.

    Args:
        problem: The problem.
        method: The method.
        seed: Seed of the run.
        params: Parameters of a trained network. Default: initial parameters.
        model_state: Batch-norm statistics of that network.
        latents: Whether `params` are already latents of this method.

    Returns:
        The state, whole on every device.

    Raises:
        RunError: If `binary_exclude` does not fit the network.
    """
    keys, trained = keys_of(seed), params is not None
    if not trained:
        params, model_state = problem.draw(keys.network)
    try:
        if not latents:
            params = method.init(keys.latents, params, trained=trained)
        state = train.TrainState.create(
            params, method.tx, key=keys.train, model_state=model_state
        )
    except ValueError as error:
        raise errors.RunError(f"config.binary_exclude: {error}") from error
    return train.replicate(state)


def is_binary(method: library.Method, params: Any) -> bool:
    """Whether any leaf is a latent; there are none in full precision."""
    return any(jax.tree.leaves(method.where(params)))


def start_tally(method: library.Method, state: train.TrainState) -> tally.Tally:
    """An empty tally of the metrics that the train step reports."""
    binary = is_binary(method, state.params)
    names = ["loss", "accuracy", *jax.eval_shape(method.values, state.step)]
    if binary:
        names += tally.SHARES
    where = method.where if binary else None
    return train.replicate(tally.Tally.start(state.params, where, names))
