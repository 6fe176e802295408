"""One step of training, as a pure function."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adaste_jax import _paths, _tree, metrics
from adaste_jax.train import (
    _evaluate,
    _gradient,
    _labels,
    _measure,
    _prepare,
    _state,
)

Step = Callable[..., tuple[_state.TrainState, dict[str, jax.Array]]]
"""`step(state, batch, resident)` gives the next state and the metrics."""


def train_step(
    forward: _gradient.Forward,
    tx: optax.GradientTransformation,
    *,
    estimator: Callable[..., jax.Array] | None,
    hyperparameters: Mapping[str, optax.Schedule] | None = None,
    where: _paths.Where | None = None,
    loss: _labels.Loss = optax.softmax_cross_entropy_with_integer_labels,
    metrics: _measure.Metrics | None = None,
    prepare: _prepare.Prepare | None = None,
    deployed_pass: bool = False,
    deploy: _evaluate.Deploy | None = None,
    random_weights: bool = False,
    shares: bool = True,
    microbatches: int = 1,
    loss_scale: float = 1.0,
    batch_statistics: _gradient.Statistics = "global",
) -> Step:
    """One step of training as a pure function, for programs that compile it themselves.

    `jax.vmap` of it over states trains several networks at once. See `make_train_step`
    for the arguments, and for what the step takes and returns.
    """
    _gradient.check_forward(forward)
    _measure.check_metrics(metrics, _measure.RESERVED | set(hyperparameters or {}))
    run = _gradient.make_pass(
        forward,
        functools.partial(_measure.measure, loss, metrics),
        microbatches=microbatches,
        statistics=batch_statistics,
        loss_scale=loss_scale,
        unroll=has_slow_loops(jax.default_backend()),
    )
    return step_of(
        lambda params: run,
        tx,
        estimator=estimator,
        hyperparameters=hyperparameters,
        where=where,
        prepare=prepare,
        deployed_pass=deployed_pass,
        deploy=deploy,
        random_weights=random_weights,
        shares=shares,
    )


def step_of(
    pass_for: Callable[[Any], _gradient.Pass],
    tx: optax.GradientTransformation,
    *,
    estimator: Callable[..., jax.Array] | None,
    hyperparameters: Mapping[str, optax.Schedule] | None,
    where: _paths.Where | None,
    prepare: _prepare.Prepare | None,
    deployed_pass: bool,
    deploy: _evaluate.Deploy | None,
    random_weights: bool,
    shares: bool,
) -> Step:
    """Weights, their gradient by `pass_for(params)`, the rule, and the update."""
    hyperparameters = dict(hyperparameters or {})
    prepare = prepare or _prepare.take_image_and_label
    deployed = _evaluate.deployment(deploy, where)
    update = optax.with_extra_args_support(tx).update

    def weights_of(params, values, key):
        if estimator is None:
            return params
        bound = functools.partial(estimator, **values)
        keyed = {} if key is None else {"key": key}
        return _tree.binarize(params, bound, where=where, **keyed)

    def step(state, batch, resident):
        key = jax.random.fold_in(state.key, state.step)
        prepare_key, forward_key = jax.random.split(key)
        inputs, labels = prepare(prepare_key, batch, resident)
        values = {
            name: schedule(state.step) for name, schedule in hyperparameters.items()
        }
        weight_key = None
        if estimator is not None and random_weights:
            weight_key, forward_key = jax.random.split(forward_key)
        weights, pull = jax.vjp(
            lambda params: weights_of(params, values, weight_key), state.params
        )
        found = pass_for(state.params)(
            weights,
            deployed(state.params) if deployed_pass else None,
            state.model_state,
            inputs,
            labels,
            forward_key,
        )
        (grads,) = pull(found.grads)
        updates, opt_state = update(
            grads, state.opt_state, state.params, weights=weights
        )
        params = optax.apply_updates(state.params, updates)
        _measure.check_names(found.report, values)
        report = dict(found.report)
        if estimator is not None and shares:
            report |= {
                "flip_rate": metrics.flip_rate(
                    deployed(state.params), deployed(params), where=where
                ),
                "saturated": metrics.saturated_share(weights, where=where),
                "zero_gradient": metrics.zero_share(grads, where=where),
            }
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


def has_slow_loops(platform: str) -> bool:
    """Whether microbatches are written out and not looped over.

    On the CPU a convolution inside `lax.scan` runs 30 to 40 times slower than outside
    (12.9 s a step against 0.3 to 0.4 s; three layers of 32-64-128, batch 128, jax
    0.10.2). Elsewhere a scan compiles once and keeps the memory of one microbatch.
    """
    return platform == "cpu"
