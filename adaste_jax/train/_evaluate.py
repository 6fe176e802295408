"""Evaluation and batch-norm statistics at the deployed weights."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from adaste_jax import _paths, _tree
from adaste_jax.train import _gradient, _mesh, _prepare

Deploy = Callable[[jax.Array], jax.Array]
"""From the latents of one leaf to the weights that are shipped."""


def make_eval_step(
    forward: _gradient.Forward,
    *,
    where: _paths.Where | None = None,
    deployed: bool = True,
    deploy: Deploy | None = None,
    loss: _gradient.Loss = optax.softmax_cross_entropy_with_integer_labels,
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
        loss: As in `make_train_step`.
        prepare: As in `make_train_step`; it gets the key None.
        mesh: As in `make_train_step`.

    Returns:
        The compiled evaluation. `batch` may have a leaf `"mask"` [batch], true where an
        example counts, so that a last batch may be filled up. It returns sums over the
        batch: `loss`, `correct`, `count`.

    Raises:
        TypeError: If `forward` does not take the arguments of a `Forward`.
    """
    _gradient.check_forward(forward)
    prepare = prepare or _prepare.take_image_and_label
    shipped = deployment(deploy, where)

    def evaluate(params, model_state, batch, resident):
        weights = shipped(params) if deployed else params
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

    mesh = _mesh.data_mesh() if mesh is None else mesh
    whole, split = _mesh.shardings(mesh)
    # Split parameters stay where they are.
    compiled = jax.jit(
        evaluate, in_shardings=(None, None, split, whole), out_shardings=whole
    )

    def call(params, model_state, batch, resident=None):
        _mesh.check_batch(batch, mesh, axis=0)
        return compiled(params, model_state, batch, resident)

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

    mesh = _mesh.data_mesh() if mesh is None else mesh
    whole, split = _mesh.shardings(mesh)
    compiled = jax.jit(
        update, in_shardings=(None, None, split, whole, whole), out_shardings=whole
    )

    def call(params, model_state, batch, key, resident=None):
        _mesh.check_batch(batch, mesh, axis=0)
        return compiled(params, model_state, batch, key, resident)

    return call


def deployment(
    deploy: Deploy | None, where: _paths.Where | None
) -> Callable[[Any], Any]:
    """From the tree of parameters to that of the weights that are shipped."""
    if deploy is None:
        return functools.partial(_tree.deploy, where=where)
    return lambda params: _tree.binarize(params, deploy, where=where)
