"""One step of training, compiled over a mesh of devices."""

import functools
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from adaste_jax import methods
from adaste_jax.train import (
    _buffers,
    _checks,
    _forms,
    _gather,
    _gradient,
    _labels,
    _measure,
    _mesh,
    _network,
    _place,
    _prepare,
    _state,
    _step,
    _strategies,
)


@_forms.of_training(warns=True)
def make_train_step(
    network: Any,
    method: methods.Method,
    *,
    loss: _labels.Loss = optax.softmax_cross_entropy_with_integer_labels,
    metrics: _measure.Metrics | None = None,
    prepare: _prepare.Prepare | None = None,
    shares: bool = True,
    many: bool = False,
    microbatches: int = 1,
    loss_scale: float = 1.0,
    batch_statistics: _gradient.Statistics = "global",
    strategy: _strategies.Strategy = "jit",
    mesh: Mesh | None = None,
    state_sharding: _state.TrainState | None = None,
    gather: _gather.Gather = "float",
) -> _step.Step:
    """Compiles one step of training: `step(state, inputs, labels)`.

    The step makes weights of the latents once, takes the gradient of the mean loss at
    the weights, averages it over microbatches and devices, applies the backward rule of
    the method to the average, and gives the result to `method.tx`, with the weights and
    the number of this step as the extra arguments `weights` and `step`. So every
    strategy and every number of devices and microbatches takes the same step, whether a
    rule that is not additive stands in `method.weights` or in `method.tx`. The state is
    donated: use the returned one.

    Instead of inputs and labels the step takes a batch as one tree,
    `step(state, batch, resident=None)`, with the keys `"image"` and `"label"` or what
    `prepare` makes inputs and labels of.

    Rules inside the network (layers with an estimator of their own) are out of reach
    here: they are right for `"jit"` and `"shard_map"` with whole state and without
    microbatches, and see single devices or microbatches otherwise.

    Args:
        network: A Linen module, an NNX module, or a function
            `forward(params, model_state, inputs, *, train, key)` that returns outputs
            and the new model state.
        method: How to train, from `methods`.
        loss: From outputs and labels to one loss per label; the step takes the mean.
            `prepare` may give it more than labels, as a dict: see `Loss`.
        metrics: What to report besides: functions by name, from outputs and labels, as
            the loss gets them, to one number per label; or one function, reported under
            its own name, or that gives a dict of numbers per label. Each is averaged
            over the same labels as the loss. One called `accuracy` takes the place of
            that of the step.
        prepare: See `Prepare`. Default: `batch["image"]` and `batch["label"]`.
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
            `"pmap"` its batch norm must average over `DATA_AXIS`, which a Linen module
            given as `network` is told. `"local"`: every device and
            every microbatch normalises by its own; running statistics are averaged.
        strategy: `"jit"`, one program that the compiler splits. `"shard_map"`, one
            program for each device, in which JAX checks what is the same on all of
            them. `"pmap"`, the same unchecked, on a mesh with one axis, for those who
            know it by that name; JAX keeps it for old code. What the network draws from
            its key depends on strategy, devices and microbatches; what `prepare` draws
            does not.
        mesh: Devices to split the batch over. Default: the mesh of `jax.set_mesh` if it
            has an axis `"data"`, else `data_mesh()`. Axes may be explicit: the step
            computes with automatic ones, and gives its results back on this mesh.
        state_sharding: Where the state lies, from `state_sharding` the function; its
            mesh is the default for `mesh`. Default: whole on every device.
        gather: How split weights become whole for the forward pass: `"float"` as they
            are, `"packed"` as bits, a 32nd of the traffic. Packed weights must be pure
            signs in every step: STE, and AdaSTE once binary (for an annealed run make
            a second step, with the last value of mu, for when it gets there).

    Returns:
        The compiled step. `batch` is a tree of arrays [batch, ...], split over the
        mesh; `resident` a tree that every device has whole, for data sets kept on the
        device. Arrays that lie elsewhere are put in place first. It returns the new
        state and a dict of float32 scalars: `loss` (float64 where the losses are),
        `accuracy` where labels are classes, those of `metrics`, and, unless in full
        precision or without `shares`, `flip_rate`, `saturated` and `zero_gradient` (see
        `metrics` the module), and the values of the schedules of the method. As a
        jitted function it has `lower`, with the same arguments.

        Labels are classes where they are integers and the outputs have one axis more,
        of at least two; or where they have the shape of the outputs and the loss is
        one of classes, which does not change when the same is added to all logits. If
        an integer label is none of the classes, loss and metrics of the batch are NaN:
        stop then, since the update is of no use.

    Raises:
        TypeError: If `network` is neither a module of Flax nor takes the arguments of a
            `Forward`, or `metrics` are no functions.
        ValueError: Here, if an option is out of range, two do not go together, or a
            metric has the name of something else. In the first call, if the batch
            cannot be split evenly, if a loss or a metric is not one number per label,
            if `gather="packed"` and the weights are not signs, or if
            `optax.MultiSteps` would average after a rule that is not additive. In any
            call, if `batch["label"]` is an array of NumPy with an integer that is none
            of the classes, and `prepare` is left out.

    The form of 0.1, `make_train_step(forward, tx, estimator=..., ...)`, works until 0.3
    and warns.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import linen as nn
        >>> from adaste_jax import methods, train
        >>> inputs, labels = jnp.ones((8, 3)), jnp.zeros(8, int)
        >>> network, method = nn.Dense(2), methods.adaste(steps=100)
        >>> state = train.init(network, method, inputs)
        >>> step = train.make_train_step(network, method)
        >>> state, report = step(state, inputs, labels)
        >>> sorted(report)[:3], int(state.step)
        (['accuracy', 'flip_rate', 'loss'], 1)
    """
    _step.check_metrics(metrics, method)
    given = _checks.check_options(
        strategy=strategy,
        batch_statistics=batch_statistics,
        gather=gather,
        microbatches=microbatches,
        loss_scale=loss_scale,
        state_sharding=state_sharding,
        mesh=mesh,
    )
    mesh = _place.automatic(given)
    state_sharding = jax.tree.map(_place.automatic_sharding, state_sharding)
    mapped = strategy != "jit" and batch_statistics == "global"
    forward = _network.forward_of(
        network, axis_name=_mesh.batch_axes(mesh) if mapped else None
    )
    classes: list[int] = []  # of the network, known once it is traced

    def measure(outputs, labels):
        found = _measure.measure(loss, metrics, outputs, labels)
        classes[:] = [] if found.classes is None else [found.classes]
        return found

    make_pass = functools.partial(
        _gradient.make_pass,
        forward,
        measure,
        microbatches=microbatches,
        statistics=batch_statistics,
        loss_scale=loss_scale,
        unroll=_step.has_slow_loops(mesh.devices.flat[0].platform),
    )

    def pass_for(params):
        return _strategies.over_devices(
            make_pass,
            strategy=strategy,
            mesh=mesh,
            sharding=None if state_sharding is None else state_sharding.params,
            packed=method.where(params)
            if gather == "packed"
            else jax.tree.map(lambda _: False, params),
            microbatches=microbatches,
            statistics=batch_statistics,
        )

    step = _step.step_of(pass_for, method, prepare=prepare, shares=shares)

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
    axis = 1 if many else 0
    checked = False
    unshared = _buffers.Known()

    def check(state):
        if state_sharding is not None:
            _mesh.check_structure(state_sharding, state)
        if gather == "packed":
            _checks.check_signs(method, state)
        _checks.check_accumulation(method, state)

    def call(state, batch, resident=None):
        nonlocal checked
        batch, resident = _prepare.batch_of(prepare, batch, resident)
        if not checked:
            check(state)
        _mesh.check_batch(batch, mesh, axis=axis, microbatches=microbatches)
        if not unshared(state, resident):
            state = _buffers.unshared(state, batch, resident)
        with _place.within(mesh):
            arguments = (
                _place.state(state, target),
                _place.arrays(batch, split),
                _place.arrays(resident, whole),
            )
            labels = _checks.labels_on_host(batch) if prepare is None else None
            if labels is not None:
                if not checked:
                    compiled.eval_shape(*arguments)  # traces, once for all
                if classes:
                    _labels.check_labels(labels, classes[0])
            checked = True
            new_state, report = compiled(*arguments)
        new_state, report = _place.handed_back((new_state, report), given)
        unshared.remember(new_state, resident)
        return new_state, report

    def lower(state, batch, resident=None):
        batch, resident = _prepare.batch_of(prepare, batch, resident)
        with _place.within(mesh):
            return compiled.lower(state, batch, resident)

    call.lower = lower  # type: ignore[attr-defined]
    return call
