"""Train and evaluation steps for latents, compiled over a mesh of devices.

The steps know nothing of Flax: a network is a function

    forward(params, model_state, inputs, *, train, key) -> (outputs, model_state),

with `model_state` whatever it carries besides parameters (batch-norm statistics), and
`key` a PRNG key or None. `nn.linen.functional` and `nn.nnx.functional` make one of a
Flax module.

One program sees the whole batch (`jax.jit` with `NamedSharding`), so gradients are
averaged over all devices before any backward rule, and batch norm uses the statistics
of the whole batch. One device is a mesh of one.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from adaste_jax import _paths, _tree, metrics

DATA_AXIS = "data"

Loss = Callable[[jax.Array, jax.Array], jax.Array]
"""From outputs [batch, ...] and labels [batch, ...] to losses, one per label."""

Prepare = Callable[[Any, Any, Any], tuple[jax.Array, jax.Array]]
"""From a key, a batch and the resident data to (inputs, labels), inside the compiled
step: look-up, augmentation, normalisation."""


class Forward(Protocol):
    """A network as a function."""

    def __call__(
        self, params: Any, model_state: Any, inputs: Any, *, train: bool, key: Any
    ) -> tuple[jax.Array, Any]:
        """Gives outputs and the new model state."""


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
        model_state: Batch-norm statistics and the like.
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
        """The state before the first step."""
        return cls(
            step=jnp.zeros((), jnp.int32),
            params=params,
            model_state={} if model_state is None else model_state,
            opt_state=tx.init(params),
            key=key,
        )


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the one axis `"data"`, over all devices by default.

    Args:
        devices: Which devices, of one process or of several.

    Returns:
        A mesh for the `mesh` of the functions below.
    """
    devices = jax.devices() if devices is None else list(devices)
    return jax.make_mesh(
        (len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )


def replicate(tree: Any, mesh: Mesh | None = None) -> Any:
    """Puts a whole copy of every array on every device of the mesh.

    Do it once for resident data, which would otherwise be copied in every call.

    Args:
        tree: Any pytree of arrays.
        mesh: Default: `data_mesh()`.

    Returns:
        The tree, on the devices.
    """
    whole = _shardings(mesh)[0]
    if whole.is_fully_addressable:
        return jax.device_put(tree, whole)
    # Several processes, which give equal values: `device_put` takes no PRNG keys here,
    # and compares large arrays between processes.
    return jax.jit(lambda leaves: leaves, out_shardings=whole)(tree)


def make_train_step(
    forward: Forward,
    tx: optax.GradientTransformation,
    *,
    estimator: Callable[..., jax.Array] | None,
    hyperparameters: Mapping[str, optax.Schedule] | None = None,
    where: _paths.Where | None = None,
    loss: Loss = optax.softmax_cross_entropy_with_integer_labels,
    prepare: Prepare | None = None,
    deployed_pass: bool = False,
    many: bool = False,
    mesh: Mesh | None = None,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """Compiles one step of training: `step(state, batch, resident=None)`.

    The step binarises the latents once, takes the gradient of the mean loss with
    respect to them and gives it to `tx`. The state is donated: use the returned one.

    Args:
        forward: The network.
        tx: Optax transformation of all parameters; see `optim.labels` for several.
        estimator: A map from `estimators`; None trains in full precision.
        hyperparameters: Schedules of the step count; the estimator gets their values
            under these names, traced, so annealing does not compile again.
        where: Which leaves are latents, as in `binarize`.
        loss: From outputs and labels to one loss per label.
        prepare: See `Prepare`. Default: `batch["image"]` and `batch["label"]`.
        deployed_pass: Runs a second training-mode forward pass with the deployed
            weights; its loss and batch-norm statistics are kept. The released recipe
            of AdaSTE does so.
        many: Compiles a scan of steps: every leaf of `batch` has a leading axis more,
            the steps, and so have the metrics. Saves Python's time on accelerators. On
            the CPU a convolution inside a scan is 30 to 40 times slower.
        mesh: Devices to split the batch over. Default: `data_mesh()`.

    Returns:
        The compiled step. `batch` is a tree of arrays [batch, ...], split over the
        mesh; `resident` a tree that every device has whole, for data sets kept on the
        device. It returns the new state and a dict of float32 scalars: `loss`,
        `accuracy` and, unless in full precision, `flip_rate`, `saturated` and
        `zero_gradient` (see `metrics`), and the hyperparameters.
    """
    hyperparameters = dict(hyperparameters or {})
    prepare = prepare or _take_image_and_label

    def objective(params, state, inputs, labels, key, values):
        weights = params
        if estimator is not None:
            bound = functools.partial(estimator, **values)
            weights = _tree.binarize(params, bound, where=where)
        outputs, model_state = forward(
            weights, state.model_state, inputs, train=True, key=key
        )
        return jnp.mean(loss(outputs, labels)), (outputs, model_state, weights)

    def step(state, batch, resident):
        key = jax.random.fold_in(state.key, state.step)
        prepare_key, forward_key = jax.random.split(key)
        inputs, labels = prepare(prepare_key, batch, resident)
        values = {
            name: schedule(state.step) for name, schedule in hyperparameters.items()
        }
        grad = jax.value_and_grad(objective, has_aux=True)
        (value, (outputs, model_state, weights)), grads = grad(
            state.params, state, inputs, labels, forward_key, values
        )
        if deployed_pass:
            outputs, model_state = forward(
                _tree.deploy(state.params, where=where),
                model_state,
                inputs,
                train=True,
                key=forward_key,
            )
            value = jnp.mean(loss(outputs, labels))
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        report = {"loss": value, "accuracy": _accuracy(outputs, labels)}
        if estimator is not None:
            report |= {
                "flip_rate": metrics.flip_rate(state.params, params, where=where),
                "saturated": metrics.saturated_share(weights, where=where),
                "zero_gradient": metrics.zero_share(grads, where=where),
            }
        report |= {name: jnp.asarray(v, jnp.float32) for name, v in values.items()}
        new_state = TrainState(
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            key=state.key,
        )
        return new_state, report

    def steps(state, batches, resident):
        return jax.lax.scan(lambda s, b: step(s, b, resident), state, batches)

    whole, split = _shardings(mesh, leading_axes=1 if many else 0)
    compiled = jax.jit(
        steps if many else step,
        in_shardings=(whole, split, whole),
        out_shardings=(whole, whole),
        donate_argnums=0,
    )

    def call(state, batch, resident=None):
        _check_batch(batch, split, axis=1 if many else 0)
        # A state that lies elsewhere would be compiled for, and then again for the
        # state that the first step returns.
        if getattr(state.step, "sharding", None) != whole:
            state = jax.device_put(state, whole)
        return compiled(state, batch, resident)

    return call


def make_eval_step(
    forward: Forward,
    *,
    where: _paths.Where | None = None,
    deployed: bool = True,
    loss: Loss = optax.softmax_cross_entropy_with_integer_labels,
    prepare: Prepare | None = None,
    mesh: Mesh | None = None,
) -> Callable[..., dict[str, jax.Array]]:
    """Compiles an evaluation: `evaluate(params, model_state, batch, resident=None)`.

    Args:
        forward: The network.
        where: Which leaves are latents, as in `binarize`.
        deployed: Evaluates at `deploy(params)`, the weights that are shipped; False
            for a full-precision network.
        loss: As in `make_train_step`.
        prepare: As in `make_train_step`; it gets the key None.
        mesh: As in `make_train_step`.

    Returns:
        The compiled evaluation. `batch` may have a leaf `"mask"` [batch], true where an
        example counts, so that a last batch may be filled up. It returns sums over the
        batch: `loss`, `correct`, `count`.
    """
    prepare = prepare or _take_image_and_label

    def evaluate(params, model_state, batch, resident):
        weights = _tree.deploy(params, where=where) if deployed else params
        inputs, labels = prepare(None, batch, resident)
        outputs, _ = forward(weights, model_state, inputs, train=False, key=None)
        losses = loss(outputs, labels)
        correct = jnp.argmax(outputs, axis=-1) == labels
        counts = jnp.ones(losses.shape, bool)
        if "mask" in batch:
            extra = (1,) * (losses.ndim - 1)
            counts &= batch["mask"].reshape(batch["mask"].shape + extra)
        return {
            "loss": jnp.sum(jnp.where(counts, losses, 0.0)),
            "correct": jnp.sum(correct & counts),
            "count": jnp.sum(counts),
        }

    whole, split = _shardings(mesh)
    compiled = jax.jit(
        evaluate, in_shardings=(whole, whole, split, whole), out_shardings=whole
    )

    def call(params, model_state, batch, resident=None):
        _check_batch(batch, split, axis=0)
        return compiled(params, model_state, batch, resident)

    return call


def make_statistics_step(
    forward: Forward,
    *,
    where: _paths.Where | None = None,
    prepare: Prepare | None = None,
    mesh: Mesh | None = None,
) -> Callable[..., Any]:
    """Compiles `update(params, model_state, batch, key, resident=None) -> model_state`.

    A training-mode forward pass with the deployed weights that keeps nothing but the
    new batch-norm statistics. While annealing leaves the training weights soft, the
    running statistics are not those of the deployed weights, which costs 7 to 16
    points of accuracy; some tens of these updates before an evaluation recover them.

    Args:
        forward: The network.
        where: Which leaves are latents, as in `binarize`.
        prepare: As in `make_train_step`.
        mesh: As in `make_train_step`.

    Returns:
        The compiled update.
    """
    prepare = prepare or _take_image_and_label

    def update(params, model_state, batch, key, resident):
        inputs, _ = prepare(key, batch, resident)
        weights = _tree.deploy(params, where=where)
        return forward(weights, model_state, inputs, train=True, key=key)[1]

    whole, split = _shardings(mesh)
    compiled = jax.jit(
        update, in_shardings=(whole, whole, split, whole, whole), out_shardings=whole
    )

    def call(params, model_state, batch, key, resident=None):
        _check_batch(batch, split, axis=0)
        return compiled(params, model_state, batch, key, resident)

    return call


def _take_image_and_label(key, batch, resident):
    del key, resident
    return batch["image"], batch["label"]


def _accuracy(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(jnp.argmax(outputs, axis=-1) == labels)


def _shardings(
    mesh: Mesh | None, leading_axes: int = 0
) -> tuple[NamedSharding, NamedSharding]:
    """Whole on every device, and split over the data axis."""
    mesh = data_mesh() if mesh is None else mesh
    split = PartitionSpec(*(None,) * leading_axes, DATA_AXIS)
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, split)


def _check_batch(batch: Any, split: NamedSharding, axis: int) -> None:
    """Refuses a batch that the devices cannot share evenly.

    Raises:
        ValueError: If a leaf has no batch axis, or one that does not divide.
    """
    devices = split.mesh.shape[DATA_AXIS]
    for leaf in jax.tree.leaves(batch):
        shape = jnp.shape(leaf)
        if len(shape) <= axis or shape[axis] % devices:
            raise ValueError(
                f"the batch axis (axis {axis}) of an array of shape {shape} cannot be "
                f"split over {devices} devices: make the batch size a multiple of "
                f"{devices}, or pass a `mesh` of fewer devices."
            )
