"""Steps of training of a network and a method."""

import functools
from typing import Any, Literal

import jax
import numpy as np
import optax

from adaste_jax import methods
from adaste_jax.train import (
    _compile,
    _forms,
    _gradient,
    _labels,
    _measure,
    _mesh,
    _network,
    _place,
    _placement,
    _prepare,
    _state,
    _step,
    _strategies,
    _watch,
)

Report = Literal["full", "short"] | int
"""How much a step reports: see `make_train_step`."""


_EVERY: dict[Any, int] = {"full": 1, "short": 0}


@_forms.of_training
def make_train_step(
    network: Any,
    method: methods.Method,
    *,
    loss: _labels.Loss = optax.softmax_cross_entropy_with_integer_labels,
    metrics: _measure.Metrics | None = None,
    prepare: _prepare.Prepare | None = None,
    microbatches: int = 1,
    loss_scale: float = 1.0,
    placement: _placement.Placement | None = None,
    many: bool = False,
    report: Report = _watch.EVERY,
) -> _step.Step:
    """Compiles one step of training: `step(state, inputs, labels)`.

    The step

    1. computes weights from the latents, once,
    2. takes the gradient of the mean loss at the weights, and averages it over
       microbatches and devices,
    3. applies the backward rule of the method to the average,
    4. passes the result to `method.tx`, with the weights and the number of this step as
       the extra arguments `weights` and `step`.

    So every strategy and every number of devices and microbatches takes the same step,
    even if a rule in `method.weights` or `method.tx` is not additive. The state is
    donated: use the returned one.

    Instead of inputs and labels the step also takes a batch as one tree,
    `step(state, batch, resident=None)`. It has the keys `"image"` and `"label"`, or
    `prepare` makes inputs and labels from it.

    The step does not see rules inside the network (layers with their own estimator).
    They are right under `"jit"` and `"shard_map"` with whole state and without
    microbatches. Elsewhere they are applied per device or microbatch.

    Args:
        network: A Linen module, an NNX module, or a function
            `forward(params, model_state, inputs, *, train, key)` that returns outputs
            and the new model state.
        method: The training method, from `adaste_jax.methods`.
        loss: Function from outputs and labels to one loss per label; the step takes the
            mean. If `prepare` returns a dict of labels, the loss gets the dict: see
            `Loss`.
        metrics: What to report beside the loss: functions by name, from outputs and
            labels, as the loss gets them, to one number per label; or one function,
            reported under its own name or returning a dict of numbers per label. Each
            is averaged over the same labels as the loss. A metric called `accuracy`
            replaces that of the step.
        prepare: Function from a key, a batch and the resident data to inputs and
            labels, see `Prepare`. Default: `batch["image"]` and `batch["label"]`.
        microbatches: Number of parts in which the batch is processed, to save memory.
        loss_scale: Factor of the loss before it is differentiated, for float16. The
            gradient at the weights is divided by it, before any rule.
        placement: Devices, and how they share the work: see `Placement`. Default: one
            program for all devices, and the whole state on each of them.
        many: Compiles a scan of steps: every leaf of `batch` and of the report has one
            more leading axis, the steps. This saves Python time on accelerators. On the
            CPU a convolution inside a scan is 30 to 40 times slower.
        report: How often `flip_rate`, `saturated` and `zero_gradient` are measured. A
            number n measures them in steps whose number n divides, and in the first
            step with a state that is not that of the last call; the steps between
            repeat the last values. `"full"` measures in every step, `"short"` never.
            Measuring reads every latent a few times: in every step that costs a quarter
            of the time of a large perceptron. The pure strategy measures in every step.

    Returns:
        The compiled step. `batch` is a tree of arrays [batch, ...], split over the
        mesh; `resident` a tree that every device holds whole, for data sets kept on the
        device. Arrays in another place are moved first. The step returns the new state
        and a dict of float32 scalars: `loss` (float64 if the losses are), `accuracy` if
        labels are classes, the values of `metrics` and of the method's schedules, and
        in a full report of a method with latents `flip_rate`, `saturated` and
        `zero_gradient` (see `adaste_jax.metrics`). Like a jitted function it has
        `lower`, with the same arguments.

        Labels are classes if they are integers and the outputs have one more axis, of
        at least two. They are also classes if they have the shape of the outputs and
        the loss is a classification loss, which does not change if a constant is added
        to all logits. If an integer label is not one of the classes, loss and metrics
        of the batch are NaN: stop then, since the update is wrong.

    Raises:
        TypeError: If `network` is neither a module of Flax nor takes the arguments of a
            `Forward`, or `metrics` are not functions.
        ValueError: Here, if an option is out of range, two options conflict, or a
            metric has a reserved name. In the first call, if the batch cannot be split
            evenly, if a loss or a metric is not one number per label, if
            `gather="packed"` and the weights are not signs, or if `optax.MultiSteps`
            would average after a rule that is not additive. In any call, if
            `batch["label"]` is a NumPy array with an integer that is not one of the
            classes, and there is no `prepare`.

    The forms of 0.1, `make_train_step(forward, tx, estimator=...)` and
    `make_train_step(..., strategy=..., mesh=...)`, work until 0.3 and warn.

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
    if microbatches < 1:
        raise ValueError(f"`microbatches` must be at least 1, got {microbatches}.")
    if not (np.isfinite(loss_scale) and loss_scale > 0):
        raise ValueError(f"`loss_scale` must be a number > 0, got {loss_scale}.")
    every = _EVERY.get(report, report)
    if not isinstance(every, int) or (every < 1 and report != "short"):
        raise ValueError(
            f"`report` must be one of {tuple(_EVERY)} or a number of steps of at least "
            f"1, got {report!r}."
        )
    _step.check_metrics(metrics, method)
    given = (placement or _placement.Placement()).on_devices()
    placed = _place.computing(given)
    axes = _mesh.batch_axes(placed.mesh) if placed.mesh else None
    mapped = placed.strategy in ("shard_map", "pmap")
    forward = _network.forward_of(
        network,
        axis_name=axes if mapped and placed.batch_statistics == "global" else None,
    )
    classes: list[int] = []  # of the network, known once it is traced

    def measure(outputs: Any, labels: Any) -> _measure.Measured:
        found = _measure.measure(loss, metrics, outputs, labels)
        classes[:] = [] if found.classes is None else [found.classes]
        return found

    make_pass = functools.partial(
        _gradient.make_pass,
        forward,
        measure,
        microbatches=microbatches,
        statistics=placed.batch_statistics,
        loss_scale=loss_scale,
        unroll=_step.has_slow_loops(
            placed.mesh.devices.flat[0].platform
            if placed.mesh
            else jax.default_backend()
        ),
    )

    def pass_for(params: Any) -> _gradient.Pass:
        packed = (
            method.where(params)
            if placed.gather == "packed"
            else jax.tree.map(lambda _: False, params)
        )
        return _strategies.over_devices(
            make_pass, placed, packed=packed, microbatches=microbatches
        )

    one = _step.step_of(pass_for, method, prepare=prepare, every=every)

    def several(
        state: _state.TrainState, batches: Any, resident: Any, held: Any = None
    ) -> tuple[_state.TrainState, dict[str, jax.Array]]:
        def next_one(carry: Any, batch: Any) -> tuple[Any, dict[str, jax.Array]]:
            state, report = one(carry[0], batch, resident, carry[1])
            return (state, _watch.held(report, carry[1])), report

        (state, _), reports = jax.lax.scan(next_one, (state, held), batches)
        return state, reports

    step = several if many else one
    if placed.mesh is None:
        return lambda state, batch, resident=None: step(
            state, *_prepare.batch_of(prepare, batch, resident)
        )
    return _compile.CompiledStep(
        step,
        method,
        given=given,
        prepare=prepare,
        microbatches=microbatches,
        many=many,
        classes=classes,
    )


@_forms.of_training
def train_step(
    network: Any,
    method: methods.Method,
    *,
    batch_statistics: _placement.Statistics = "global",
    **options: Any,
) -> _step.Step:
    """One step of training as a pure function, for programs that compile it themselves.

    `jax.vmap` of it over states trains several networks at once. It is
    `make_train_step` with `placement=Placement(strategy="pure")`.

    Args:
        network: A Linen module, an NNX module, or a function; see `make_train_step`.
        method: The training method, from `adaste_jax.methods`.
        batch_statistics: `"local"` allows microbatches to normalise by their own
            statistics; `"global"` makes that an error.
        **options: All other keywords of `make_train_step`.

    Returns:
        The step: `step(state, inputs, labels)` or `step(state, batch, resident=None)`.

    Raises:
        TypeError: If `network` or `metrics` have a wrong type; see `make_train_step`.
        ValueError: If an option is out of range; see `make_train_step`.
    """
    pure = _placement.Placement(strategy="pure", batch_statistics=batch_statistics)
    return make_train_step(network, method, placement=pure, **options)
