"""What a step is refused for, before it is compiled."""

from collections.abc import Mapping
from typing import Any, get_args

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from adaste_jax import methods
from adaste_jax.train import (
    _gather,
    _gradient,
    _mesh,
    _probe,
    _state,
    _strategies,
)


def check_options(
    *,
    strategy,
    batch_statistics,
    gather,
    microbatches,
    loss_scale,
    state_sharding,
    mesh,
) -> Mesh:
    """Refuses options that are out of range or do not go together; gives the mesh.

    Raises:
        ValueError: Naming the option, its value, and what to do.
    """
    for name, value, kinds in (
        ("strategy", strategy, get_args(_strategies.Strategy)),
        ("batch_statistics", batch_statistics, get_args(_gradient.Statistics)),
        ("gather", gather, get_args(_gather.Gather)),
    ):
        if value not in kinds:
            raise ValueError(f"`{name}` must be one of {kinds}, got {value!r}.")
    if microbatches < 1:
        raise ValueError(f"`microbatches` must be at least 1, got {microbatches}.")
    if not (np.isfinite(loss_scale) and loss_scale > 0):
        raise ValueError(f"`loss_scale` must be a number > 0, got {loss_scale}.")
    if state_sharding is not None:
        own = jax.tree.leaves(state_sharding)[0].mesh
        if mesh is not None and mesh != own:
            raise ValueError(
                "`mesh` is not the mesh of `state_sharding`: leave `mesh` out."
            )
        mesh = own
    if gather == "packed" and state_sharding is None:
        raise ValueError(
            '`gather="packed"` is for weights that lie split over devices: it needs '
            "`state_sharding`."
        )
    mesh = _mesh.default_mesh() if mesh is None else mesh
    axes = _mesh.batch_axes(mesh)
    if strategy != "jit" and set(mesh.axis_names) != set(axes):
        raise ValueError(
            f"`strategy={strategy!r}` is for a mesh whose axes all split the batch, "
            f'got {tuple(mesh.axis_names)}: use `strategy="jit"`.'
        )
    if strategy == "pmap":
        if state_sharding is not None or len(axes) > 1:
            raise ValueError(
                '`strategy="pmap"` keeps the state whole on every device of a mesh '
                'with one axis: use "jit" or "shard_map" for split state.'
            )
        if jax.process_count() > 1:
            raise ValueError(
                '`strategy="pmap"` is for one process: use "jit" or "shard_map".'
            )
    return mesh


def check_signs(method: methods.Method, state: _state.TrainState) -> None:
    """Refuses to send weights as bits that are not signs.

    Raises:
        ValueError: If the method gives other weights at step 0.
    """
    if not _is_binary(method, state):
        raise ValueError(
            '`gather="packed"` is for one-bit weights, and this method has none.'
        )
    if not _probe.gives_signs(method, state.params):
        raise ValueError(
            '`gather="packed"` sends one bit a weight, and the weights of this '
            "estimator are not pure signs at step 0 of its schedules. Use it with STE, "
            "or with AdaSTE once mu has reached 1 / alpha (a second step, with a "
            'constant mu); until then `gather="float"`.'
        )


def check_accumulation(method: methods.Method, state: _state.TrainState) -> None:
    """Refuses a transformation that averages after a rule that is not additive.

    Raises:
        ValueError: If `optax.MultiSteps` is in it, and the rule in the weights.
    """
    accumulates = any(
        isinstance(leaf, optax.MultiStepsState)
        for leaf in jax.tree.leaves(
            state.opt_state, is_leaf=lambda x: isinstance(x, optax.MultiStepsState)
        )
    )
    if not accumulates or not _is_binary(method, state):
        return
    additive = method.additive
    if additive is None:  # the form of 0.1
        additive = _probe.is_additive(method, state.params)
    if not additive:
        raise ValueError(
            "`optax.MultiSteps` averages what the estimator's backward rule gives, and "
            "that rule is not additive: the average would be wrong. Use "
            "`microbatches=`, or an estimator with the identity as its rule and "
            "`optim.scale_by_adaste` inside `MultiSteps`."
        )


def _is_binary(method: methods.Method, state: _state.TrainState) -> bool:
    """Whether there are latents."""
    return any(jax.tree.leaves(method.where(state.params)))


def labels_on_host(batch: Any) -> np.ndarray | None:
    """Integer labels of a batch that can be looked at without waiting for a device."""
    labels = batch.get("label") if isinstance(batch, Mapping) else None
    if isinstance(labels, Mapping):
        labels = labels.get("label")
    whole = isinstance(labels, np.ndarray) and np.issubdtype(labels.dtype, np.integer)
    return labels if whole else None
