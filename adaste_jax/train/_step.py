"""One step of training, compiled."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from adaste_jax import _paths, _tree, metrics
from adaste_jax.train import (
    _checks,
    _evaluate,
    _gather,
    _gradient,
    _mesh,
    _prepare,
    _probe,
    _state,
    _strategies,
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
    loss: _gradient.Loss = optax.softmax_cross_entropy_with_integer_labels,
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
    run = _gradient.make_pass(
        forward,
        loss,
        microbatches=microbatches,
        statistics=batch_statistics,
        loss_scale=loss_scale,
        unroll=_slow_loops(jax.default_backend()),
    )
    return _step(
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


def _step(
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
        report = {"loss": found.loss, "accuracy": found.accuracy}
        if estimator is not None and shares:
            report |= {
                "flip_rate": metrics.flip_rate(
                    deployed(state.params), deployed(params), where=where
                ),
                "saturated": metrics.saturated_share(weights, where=where),
                "zero_gradient": metrics.zero_share(grads, where=where),
            }
        report |= {name: jnp.asarray(v, jnp.float32) for name, v in values.items()}
        new_state = _state.TrainState(
            step=state.step + 1,
            params=params,
            model_state=found.model_state,
            opt_state=opt_state,
            key=state.key,
        )
        return new_state, report

    return step


def make_train_step(
    forward: _gradient.Forward,
    tx: optax.GradientTransformation,
    *,
    estimator: Callable[..., jax.Array] | None,
    hyperparameters: Mapping[str, optax.Schedule] | None = None,
    where: _paths.Where | None = None,
    loss: _gradient.Loss = optax.softmax_cross_entropy_with_integer_labels,
    prepare: _prepare.Prepare | None = None,
    deployed_pass: bool = False,
    deploy: _evaluate.Deploy | None = None,
    random_weights: bool = False,
    shares: bool = True,
    many: bool = False,
    microbatches: int = 1,
    loss_scale: float = 1.0,
    batch_statistics: _gradient.Statistics = "global",
    strategy: _strategies.Strategy = "jit",
    mesh: Mesh | None = None,
    state_sharding: _state.TrainState | None = None,
    gather: _gather.Gather = "float",
) -> Step:
    """Compiles one step of training: `step(state, batch, resident=None)`.

    The step binarises the latents once, takes the gradient of the mean loss at the
    weights, averages it over microbatches and devices, applies the estimator's backward
    rule to the average, and gives the result to `tx`, along with the weights of this
    step as the extra argument `weights`. So every strategy and every
    number of devices and microbatches takes the same step, whether a rule that is not
    additive stands in the estimator or in `tx`. The state is donated: use the returned
    one.

    Rules inside `forward` (layers with an estimator of their own) are out of reach
    here: they are right for `"jit"` and `"shard_map"` with whole state and without
    microbatches, and see single devices or microbatches otherwise.

    Args:
        forward: The network.
        tx: Optax transformation of all parameters; see `optim.labels` for several.
        estimator: A map from `estimators`, without an `axis_name`; None trains in full
            precision.
        hyperparameters: Schedules of the step count; the estimator gets their values
            under these names, traced, so annealing does not compile again.
        where: Which leaves are latents, as in `binarize`.
        loss: From outputs and labels to one loss per label; the step takes the mean.
            `prepare` may give it more than labels, as a dict: see `Loss`.
        prepare: See `Prepare`. Default: `batch["image"]` and `batch["label"]`.
        deployed_pass: Runs a second training-mode forward pass with the deployed
            weights; its loss and batch-norm statistics are kept. The released recipe
            of AdaSTE does so.
        deploy: The map from latents to the weights that are shipped, for the second
            pass and for `flip_rate`. Default: the sign.
        random_weights: The estimator takes a `key`, another one for each leaf and step.
        shares: Whether to report `flip_rate`, `saturated` and `zero_gradient`. They
            read every latent a few times, which counts where the network is large and
            the batch small.
        many: Compiles a scan of steps: every leaf of `batch` has a leading axis more,
            the steps, and so have the metrics. Saves Python's time on accelerators. On
            the CPU a convolution inside a scan is 30 to 40 times slower.
        microbatches: Passes in which the batch is worked off, to save memory.
        loss_scale: The loss is multiplied by it before it is differentiated, and the
            gradient at the weights divided by it, before any rule: for float16.
        batch_statistics: `"global"`: a network that carries statistics normalises by
            those of the whole batch, or it is an error. Under `"shard_map"` and
            `"pmap"` its batch norm must average over `DATA_AXIS`
            (`linen.functional(module, axis_name="data")`). `"local"`: every device and
            every microbatch normalises by its own; running statistics are averaged.
        strategy: `"jit"`, one program that the compiler splits. `"shard_map"`, one
            program for each device, in which JAX checks what is the same on all of
            them. `"pmap"`, the same unchecked, on a mesh with one axis, for those who
            know it by that name; JAX keeps it for old code. What `forward` draws from
            its key depends on strategy, devices and microbatches; what `prepare` draws
            does not.
        mesh: Devices to split the batch over. Default: `data_mesh()`.
        state_sharding: Where the state lies, from `state_sharding` the function; its
            mesh is the default for `mesh`. Default: whole on every device.
        gather: How split weights become whole for the forward pass: `"float"` as they
            are, `"packed"` as bits, a 32nd of the traffic. Packed weights must be pure
            signs in every step: STE, and AdaSTE once binary (for an annealed run make
            a second step, with the last value of mu, for when it gets there).

    Returns:
        The compiled step. `batch` is a tree of arrays [batch, ...], split over the
        mesh; `resident` a tree that every device has whole, for data sets kept on the
        device. It returns the new state and a dict of float32 scalars: `loss`,
        `accuracy` and, unless in full precision or without `shares`, `flip_rate`,
        `saturated` and `zero_gradient` (see `metrics`), and the hyperparameters. As a
        jitted function it has `lower`, with the same arguments.

    Raises:
        TypeError: If `forward` does not take the arguments of a `Forward`.
        ValueError: Here, if an option is out of range or two do not go together. In
            the first call, if the batch cannot be split evenly, if `loss` gives one
            number, if `gather="packed"` and the weights are not signs, or if
            `optax.MultiSteps` would average after a rule that is not additive.
    """
    _gradient.check_forward(forward)
    mesh = _checks.check_options(
        strategy=strategy,
        batch_statistics=batch_statistics,
        gather=gather,
        microbatches=microbatches,
        loss_scale=loss_scale,
        estimator=estimator,
        state_sharding=state_sharding,
        mesh=mesh,
    )
    make_pass = functools.partial(
        _gradient.make_pass,
        forward,
        loss,
        microbatches=microbatches,
        statistics=batch_statistics,
        loss_scale=loss_scale,
        unroll=_slow_loops(mesh.devices.flat[0].platform),
    )

    def pass_for(params):
        return _strategies.over_devices(
            make_pass,
            strategy=strategy,
            mesh=mesh,
            sharding=None if state_sharding is None else state_sharding.params,
            packed=_paths.select(params, where)
            if gather == "packed"
            else jax.tree.map(lambda _: False, params),
            microbatches=microbatches,
            statistics=batch_statistics,
        )

    step = _step(
        pass_for,
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

    def steps(state, batches, resident):
        return jax.lax.scan(lambda s, b: step(s, b, resident), state, batches)

    whole, split = _mesh.shardings(mesh, leading_axes=1 if many else 0)
    target = whole if state_sharding is None else state_sharding
    compiled = jax.jit(
        steps if many else step,
        in_shardings=(target, split, whole),
        out_shardings=(target, whole),
        donate_argnums=0,
    )
    checked = False

    def call(state, batch, resident=None):
        nonlocal checked
        if not checked:
            if state_sharding is not None:
                _mesh.check_structure(state_sharding, state)
            if estimator is not None:
                start = _probe.bound_at_start(
                    estimator, hyperparameters or {}, random_weights=random_weights
                )
                sent = [start, deploy] if deployed_pass and deploy else [start]
                if gather == "packed":
                    _checks.check_signs(sent, state, where)
                _checks.check_accumulation(start, state, where)
            checked = True
        _mesh.check_batch(batch, mesh, axis=1 if many else 0, microbatches=microbatches)
        return compiled(_mesh.place(state, target), batch, resident)

    call.lower = lambda state, batch, resident=None: compiled.lower(  # type: ignore[attr-defined]
        state, batch, resident
    )
    return call


def _slow_loops(platform: str) -> bool:
    """Whether microbatches are written out and not looped over.

    On the CPU a convolution inside `lax.scan` runs 30 to 40 times slower than outside
    (12.9 s a step against 0.3 to 0.4 s; three layers of 32-64-128, batch 128, jax
    0.10.2). Elsewhere a scan compiles once and keeps the memory of one microbatch.
    """
    return platform == "cpu"
