"""One step of training, as a pure function."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adaste_jax import methods
from adaste_jax.train import (
    _gradient,
    _measure,
    _prepare,
    _state,
    _watch,
)

Step = Callable[..., tuple[_state.TrainState, dict[str, jax.Array]]]
"""`step(state, batch, resident, held=None)` gives the next state and the metrics.
`held` are the shares that were measured last, to be reported where it is no turn to
measure them; without, they are measured."""


def step_of(
    pass_for: Callable[[Any], _gradient.Pass],
    method: methods.Method,
    *,
    prepare: _prepare.Prepare | None,
    every: int,
) -> Step:
    """Makes a step: weights, their gradient by `pass_for(params)`, rule, and update.

    Args:
        pass_for: Makes the pass of the parameters.
        method: The training method.
        prepare: Function from a batch to inputs and labels.
        every: Shares of the latents are measured in steps whose number it divides; 0
            measures them never.
    """
    prepare = prepare or _prepare.take_image_and_label
    update = update_of(method.tx)

    def step(
        state: _state.TrainState, batch: Any, resident: Any, held: Any = None
    ) -> tuple[_state.TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(state.key, state.step)
        prepare_key, forward_key = jax.random.split(key)
        inputs, labels = prepare(prepare_key, batch, resident)
        weight_key = None
        if method.random:  # else the network gets the whole key, as it always has
            weight_key, forward_key = jax.random.split(forward_key)
        watch = _watch.Watch(method, every, state, held)
        weights, pull = jax.vjp(
            lambda params: method.weights(params, state.step, weight_key), state.params
        )
        before, labels = watch.before(state.params, weights, labels)
        found = pass_for(state.params)(
            weights,
            method.deploy(state.params) if method.deployed_pass else None,
            state.model_state,
            inputs,
            labels,
            forward_key,
        )
        (grads,) = pull(found.grads)
        updates, opt_state = update(
            grads, state.opt_state, state.params, weights=weights, step=state.step
        )
        params = optax.apply_updates(state.params, updates)
        values = method.values(state.step)
        _measure.check_names(found.report, values)
        report = dict(found.report)
        report |= watch.after(before, params, grads)
        report |= values
        report = {name: jnp.asarray(v, jnp.float32) for name, v in report.items()}
        report["loss"] = found.report["loss"]
        new_state = _state.TrainState(
            step=state.step + 1,
            params=params,
            model_state=found.model_state,
            opt_state=opt_state,
            key=state.key,
        )
        return new_state, report

    return step


def check_metrics(metrics: _measure.Metrics | None, method: methods.Method) -> None:
    """Checks that no metric has a name that the step reports itself."""
    values = jax.eval_shape(method.values, np.int32(0))
    _measure.check_metrics(metrics, _measure.RESERVED | set(values))


def has_slow_loops(platform: str) -> bool:
    """Whether microbatches are unrolled and not looped over.

    On the CPU a convolution inside `lax.scan` runs 30 to 40 times slower than outside
    (12.9 s a step against 0.3 to 0.4 s; three layers of 32-64-128, batch 128, jax
    0.10.2). Elsewhere a scan compiles once and keeps the memory of one microbatch.
    """
    return platform == "cpu"


def update_of(tx: Any) -> Callable[..., Any]:
    """`update(grads, state, params, **extra_args)` of a transformation.

    `optax.with_extra_args_support` decides by the class. So it would not pass the
    arguments to `optax.MultiSteps` and its `gradient_transformation`, although these
    pass them on.
    """
    try:
        parameters = list(inspect.signature(tx.update).parameters.values())
    except ValueError:  # written in C, without a signature
        parameters = []
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        tx = optax.with_extra_args_support(tx)
    update: Callable[..., Any] = tx.update
    return update
