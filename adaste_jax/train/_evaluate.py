"""Evaluation and batch-norm statistics at the deployed weights."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from adaste_jax import _paths, _tree
from adaste_jax.train import _gradient, _labels, _measure, _mesh, _place, _prepare

Deploy = Callable[[jax.Array], jax.Array]
"""From the latents of one leaf to the weights that are shipped."""


def make_eval_step(
    forward: _gradient.Forward,
    *,
    where: _paths.Where | None = None,
    deployed: bool = True,
    deploy: Deploy | None = None,
    loss: _labels.Loss = optax.softmax_cross_entropy_with_integer_labels,
    metrics: _measure.Metrics | None = None,
    prepare: _prepare.Prepare | None = None,
    mesh: Mesh | None = None,
) -> Callable[..., dict[str, jax.Array]]:
    """Compiles an evaluation: `evaluate(params, model_state, batch, resident=None)`.

    Args:
        forward: The network.
        where: Which leaves are latents, as in `binarize`.
        deployed: Evaluates at the weights that are shipped; False for a full-precision
            network.
        deploy: As in `make_train_step`.
        loss: From outputs and labels to one loss per label.
        metrics: What to report besides, as in `make_train_step`.
        prepare: As in `make_train_step`; it gets the key None.
        mesh: As in `make_train_step`.

    Returns:
        The compiled evaluation. `batch` may have a leaf `"mask"` [batch], true where an
        example counts, so that a last batch may be filled up. It returns sums over the
        labels that count: `loss`, `count`, those of `metrics`, and `correct` where
        labels are classes (see `make_train_step`). A label that is none of the classes
        (-1, where a data set has no label) counts nowhere. The sum of losses is
        float32, or float64 where they are; `correct` and `count` are int32.

    Raises:
        TypeError: If `forward` does not take the arguments of a `Forward`, or `metrics`
            are no functions.
        ValueError: Here, if a metric has the name of something else. In the first call,
            if the batch cannot be split evenly, or if a loss or a metric is not one
            number per label.
    """
    _gradient.check_forward(forward)
    _measure.check_metrics(metrics)
    prepare = prepare or _prepare.take_image_and_label
    shipped = deployment(deploy, where)

    def evaluate(params, model_state, batch, resident):
        weights = shipped(params) if deployed else params
        inputs, labels = prepare(None, batch, resident)
        outputs, _ = forward(weights, model_state, inputs, train=False, key=None)
        measured = _measure.measure(loss, metrics, outputs, labels)
        mask = batch.get("mask") if isinstance(batch, Mapping) else None
        return _measure.sums(measured, mask)

    run = _compiled(evaluate, mesh)

    def call(params, model_state, batch, resident=None):
        return run(params, model_state, batch, resident)

    return call


def make_statistics_step(
    forward: _gradient.Forward,
    *,
    where: _paths.Where | None = None,
    deploy: Deploy | None = None,
    prepare: _prepare.Prepare | None = None,
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
        deploy: As in `make_train_step`.
        prepare: As in `make_train_step`.
        mesh: As in `make_train_step`.

    Returns:
        The compiled update.

    Raises:
        TypeError: If `forward` does not take the arguments of a `Forward`.
    """
    _gradient.check_forward(forward)
    prepare = prepare or _prepare.take_image_and_label
    shipped = deployment(deploy, where)

    def update(params, model_state, batch, key, resident):
        inputs, _ = prepare(key, batch, resident)
        weights = shipped(params)
        return forward(weights, model_state, inputs, train=True, key=key)[1]

    run = _compiled(update, mesh, whole_arguments=2)

    def call(params, model_state, batch, key, resident=None):
        return run(params, model_state, batch, key, resident)

    return call


def _compiled(
    function: Callable[..., Any], mesh: Mesh | None, *, whole_arguments: int = 1
) -> Callable[..., Any]:
    """Compiles `function(params, model_state, batch, *rest)` over a mesh.

    Args:
        function: A pure function, whose results are whole on every device.
        mesh: None is the default mesh.
        whole_arguments: How many the rest are.
    """
    given = _mesh.default_mesh() if mesh is None else mesh
    mesh = _place.automatic(given)
    whole, split = _mesh.shardings(mesh)
    # Split parameters stay where they are.
    compiled = jax.jit(
        function,
        in_shardings=(None, None, split, *(whole,) * whole_arguments),
        out_shardings=whole,
    )

    def run(params, model_state, batch, *rest):
        _mesh.check_batch(batch, mesh, axis=0)
        with _place.within(mesh):
            found = compiled(
                *_place.parameters((params, model_state), mesh),
                _place.arrays(batch, split),
                *_place.arrays(rest, whole),
            )
        return _place.handed_back(found, given)

    return run


def deployment(
    deploy: Deploy | None, where: _paths.Where | None
) -> Callable[[Any], Any]:
    """From the tree of parameters to that of the weights that are shipped."""
    if deploy is None:
        return functools.partial(_tree.deploy, where=where)
    return lambda params: _tree.binarize(params, deploy, where=where)
