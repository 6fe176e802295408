"""Evaluates the shipped network on a data set, with batch-norm statistics that fit."""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from adaste_jax import methods
from adaste_jax.train import (
    _evaluate,
    _labels,
    _measure,
    _mesh,
    _network,
    _state,
)

BATCHES = 100
"""Largest number of batches that are read for the statistics."""


def evaluate(
    network: Any,
    method: methods.Method,
    state: _state.TrainState,
    inputs: Any,
    labels: Any,
    *,
    loss: _labels.Loss = optax.softmax_cross_entropy_with_integer_labels,
    metrics: _measure.Metrics | None = None,
    batch_size: int = 500,
    training_inputs: Any = None,
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """Evaluates the shipped network on a whole data set.

    While training weights are soft, batch-norm statistics are those of the soft
    weights, which costs some methods 5 to 16 points of accuracy. Then the statistics
    are re-estimated from `training_inputs` by `reestimate_statistics`, which also
    returns the state to ship. Every call compiles again; if you evaluate often, use
    `make_eval_step`.

    Args:
        network: A Linen module, an NNX module, or a function; see `make_train_step`.
        method: The training method.
        state: The training state, which is not changed.
        inputs: Inputs of the network, [examples, ...] or a tree of such arrays.
        labels: Labels of the inputs, [examples, ...], as the loss takes them.
        loss: Function from outputs and labels to one loss per label.
        metrics: What else to report: functions by name, from outputs and labels to
            one number per label.
        batch_size: Number of examples in a batch.
        training_inputs: Inputs that the network was trained on, only for batch-norm
            statistics. Do not pass inputs of the evaluation: the network would adapt to
            them.
        mesh: Devices to split batches over. Default: the mesh of `jax.set_mesh` if it
            has an axis `"data"`, else `data_mesh()`.

    Returns:
        Means over all labels that count (see `make_eval_step`): `loss`, `accuracy` if
        labels are classes, and those of `metrics`.

    Raises:
        ValueError: If no label counts, or statistics must be re-estimated and
            `training_inputs` is not given.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import linen as nn
        >>> from adaste_jax import methods, train
        >>> inputs, labels = jnp.ones((8, 3)), jnp.zeros(8, int)
        >>> network, method = nn.Dense(2), methods.ste(steps=10)
        >>> state = train.init(network, method, inputs)
        >>> sorted(train.evaluate(network, method, state, inputs, labels))
        ['accuracy', 'loss']
    """
    model_state = state.model_state
    if int(state.step) < method.statistics_from:
        if training_inputs is not None:
            model_state = reestimate_statistics(
                network, method, state, training_inputs, mesh=mesh
            )
        elif any(_statistics(network, method, state, inputs)):
            raise ValueError(
                f"the batch-norm statistics of step {int(state.step)} are those of the "
                "training weights, which still differ from the shipped weights. Pass "
                "`training_inputs=`, some thousand training inputs, to re-estimate "
                "the statistics from them."
            )
    mesh = _mesh.default_mesh() if mesh is None else mesh
    step = _evaluate.make_eval_step(
        network, method, loss=loss, metrics=metrics, mesh=mesh
    )
    totals: dict[str, float] = {}
    for batch in _filled_up(inputs, labels, batch_size, _devices(mesh)):
        for name, total in step(state.params, model_state, batch).items():
            totals[name] = totals.get(name, 0.0) + float(total)
    count = totals.pop("count", 0.0)
    if not count:
        raise ValueError(
            "there is no label to evaluate: no label is one of the classes, or there "
            "are no inputs. Pass labelled inputs."
        )
    return {
        "accuracy" if name == "correct" else name: total / count
        for name, total in totals.items()
    }


def reestimate_statistics(
    network: Any,
    method: methods.Method,
    state: _state.TrainState,
    training_inputs: Any,
    *,
    batch_size: int = 100,
    key: jax.Array | None = None,
    mesh: Mesh | None = None,
) -> Any:
    """Re-estimates the batch-norm statistics for the shipped weights.

    It reads `training_inputs` in their order, in at most 100 batches. The running
    averages are those over these batches alone, without their initial values.

    Args:
        network: A Linen module, an NNX module, or a function; see `make_train_step`.
        method: The training method.
        state: The training state, which is not changed.
        training_inputs: Inputs that the network was trained on, [examples, ...].
        batch_size: Number of examples in a batch; examples that do not fill a last
            batch are left out.
        key: PRNG key for dropout. Default: that of the state.
        mesh: Devices to split batches over. Default: the mesh of `jax.set_mesh` if it
            has an axis `"data"`, else `data_mesh()`.

    Returns:
        The new model state; the old one if the network has no statistics.

    Raises:
        ValueError: If there are fewer inputs than devices.
    """
    averaged = _statistics(network, method, state, training_inputs)
    if not any(averaged):
        return state.model_state
    mesh = _mesh.default_mesh() if mesh is None else mesh
    key = state.key if key is None else key
    update = _evaluate.make_statistics_step(
        network, method, prepare=lambda key, batch, resident: (batch, None), mesh=mesh
    )
    leaves, structure = jax.tree.flatten(state.model_state)

    def started_from(value: float) -> Any:
        made = [
            jnp.full_like(leaf, value) if chosen else leaf
            for leaf, chosen in zip(leaves, averaged, strict=True)
        ]
        return jax.tree.unflatten(structure, made)

    batches = list(_batches(training_inputs, batch_size, _devices(mesh)))
    if not batches:
        raise ValueError(
            f"`training_inputs` must hold at least {_devices(mesh)} examples, one for "
            "each device."
        )
    # A running average of momentum m keeps m^n of what it started from after n batches.
    first = jax.random.fold_in(key, 0)
    one = update(state.params, started_from(1.0), batches[0], first)
    zero = found = update(state.params, started_from(0.0), batches[0], first)
    for number, batch in enumerate(batches[1:], 1):
        found = update(state.params, found, batch, jax.random.fold_in(key, number))

    def corrected(average: Any, kept_one: Any, kept_zero: Any, chosen: bool) -> Any:
        if not chosen:
            return average
        momentum = jnp.clip(kept_one - kept_zero, 0.0, 1.0 - 1e-6)
        return (average / (1 - momentum ** len(batches))).astype(average.dtype)

    new = map(corrected, *map(jax.tree.leaves, (found, one, zero)), averaged)
    return jax.tree.unflatten(structure, new)


def _statistics(
    network: Any, method: methods.Method, state: _state.TrainState, inputs: Any
) -> list[bool]:
    """Which leaves of the model state are running averages: those that training sets.

    Nothing is computed. Counts and keys of random streams are not floating point, so
    they do not count.
    """
    forward = _network.forward_of(network)
    changed: list[bool] = []

    def look(params: Any, model_state: Any, inputs: Any, key: Any) -> None:
        _, new = forward(
            method.deploy(params), model_state, inputs, train=True, key=key
        )
        changed.extend(
            after is not before and jnp.issubdtype(before.dtype, jnp.floating)
            for before, after in zip(
                jax.tree.leaves(model_state), jax.tree.leaves(new), strict=True
            )
        )

    example = jax.tree.map(lambda leaf: leaf[:2], inputs)
    jax.eval_shape(look, state.params, state.model_state, example, state.key)
    return changed


def _devices(mesh: Mesh) -> int:
    return _mesh.parts_of(mesh, _mesh.batch_axes(mesh))


def _batches(tree: Any, size: int, parts: int) -> Iterator[Any]:
    """Whole batches of a multiple of `parts` examples."""
    number = len(jax.tree.leaves(tree)[0])
    size = min(max(size, parts), number) // parts * parts
    starts = range(0, number - size + 1, size) if size else ()
    for start in itertools.islice(starts, BATCHES):
        yield jax.tree.map(lambda leaf: leaf[start : start + size], tree)  # noqa: B023


def _filled_up(inputs: Any, labels: Any, size: int, parts: int) -> Iterator[Any]:
    """Batches of one size; the last is filled up with examples that do not count."""
    number = len(jax.tree.leaves(inputs)[0])
    size = -(-min(size, number) // parts) * parts
    for start in range(0, number, size or 1):
        taken = np.arange(start, start + size)
        rows = np.minimum(taken, number - 1)
        pick = lambda leaf: jnp.asarray(leaf)[rows]  # noqa: B023
        yield {
            "image": jax.tree.map(pick, inputs),
            "label": jax.tree.map(pick, labels),
            "mask": taken < number,
        }
