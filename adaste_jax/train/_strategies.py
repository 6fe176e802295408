"""Three ways to share a pass over many devices; all average before any rule."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from adaste_jax import _paths
from adaste_jax.train import _gather, _gradient, _mesh, _placement

MakePass = Callable[..., _gradient.Pass]
"""`_gradient.make_pass` with all but the reductions bound."""

_lax: Any = jax.lax  # its collectives have no types


def over_devices(
    make: MakePass,
    placement: _placement.Placement,
    *,
    packed: Any,
    microbatches: int,
) -> _gradient.Pass:
    """Makes a pass over the whole batch, for arrays of all devices inside `jax.jit`.

    Args:
        make: Makes the pass of one program.
        placement: The placement with its mesh, whose axes are left to the compiler.
        packed: Tree of booleans: which split weights are gathered as bits.
        microbatches: Number of parts of a batch.

    Returns:
        The pass.
    """
    sharding = None if placement.sharding is None else placement.sharding.params
    if placement.mesh is None or placement.strategy == "jit":
        return _one_program(make, sharding=sharding, packed=packed)
    mesh, statistics = placement.mesh, placement.batch_statistics
    checked = _checked_map(make, mesh, sharding, packed, microbatches, statistics)
    if placement.strategy == "shard_map":
        return checked
    mapped = _unchecked_map(make, mesh, statistics)

    def run(weights: Any, deployed: Any, state: Any, *rest: Any) -> _gradient.Found:
        if jax.tree.leaves(state):
            # Whether statistics differ by device `pmap` does not see: the same
            # program, looked at by `shard_map` and not run.
            jax.eval_shape(checked, weights, deployed, state, *rest)
        return mapped(weights, deployed, state, *rest)

    return run


def _one_program(make: MakePass, *, sharding: Any, packed: Any) -> _gradient.Pass:
    """A pass written for the whole batch; the compiler splits it."""
    if sharding is None:
        return make()

    def gathered(weights: Any) -> Any:
        return jax.tree.map(
            lambda weight, where, bits: _gather.gather(weight, where, packed=bits),
            weights,
            sharding,
            packed,
        )

    def run(weights: Any, deployed: Any, *rest: Any) -> _gradient.Found:
        inner = make(
            reduce_grads=lambda grads: jax.tree.map(_gather.place, grads, sharding)
        )
        second = None if deployed is None else gathered(deployed)
        return inner(gathered(weights), second, *rest)

    return run


def _checked_map(
    make: MakePass,
    mesh: Mesh,
    sharding: Any,
    packed: Any,
    microbatches: int,
    statistics: _placement.Statistics,
) -> _gradient.Pass:
    """A pass by `jax.shard_map`, in which JAX tracks what differs by device."""
    axes = _mesh.batch_axes(mesh)
    whole, split = _mesh.P(), _mesh.P(axes)
    specs: Any = whole
    if sharding is not None:
        specs = jax.tree.map(lambda place: place.spec, sharding)

    def vary(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: _to_varying(leaf, axes), tree)

    def gathered(weights: Any) -> Any:
        if sharding is None or weights is None:
            return weights
        return jax.tree.map(
            lambda weight, spec, bits: _gather.gather_local(weight, spec, packed=bits),
            weights,
            specs,
            packed,
        )

    def scattered(grads: Any) -> Any:
        return jax.tree.map(
            lambda grad, spec: _gather.scatter_local(grad, spec, axes), grads, specs
        )

    def vary_sums(sums: Any) -> Any:
        grads, *scalars = sums
        grads = jax.tree.map(
            lambda grad, spec: _to_varying(grad, _mesh.names(spec)), grads, specs
        )
        return grads, *vary(scalars)

    def local(weights: Any, deployed: Any, state: Any, *rest: Any) -> _gradient.Found:
        *examples, key = rest
        key = jax.random.fold_in(key, _lax.axis_index(axes))
        if sharding is None and microbatches == 1:
            # The mean of the loss is differentiated, and JAX adds up the gradient of
            # a weight where it first meets data: even before a rule in the network.
            inner = make(reduce_loss=lambda value: _lax.pmean(value, axes))
        else:
            inner = (
                make(vary=vary)
                if sharding is None
                else make(vary=vary_sums, reduce_grads=scattered)
            )
            weights, deployed = vary(gathered(weights)), vary(gathered(deployed))
            state = vary(state) if statistics == "local" else state
        found = inner(weights, deployed, state, *examples, key)
        # Elsewhere the gradients are those of all devices already.
        means = sharding is None and microbatches > 1
        return _finish(found, axes, statistics, grads=means)

    everywhere: Any = whole  # specs stand in the places of arrays
    out_specs = _gradient.Found(specs, everywhere, everywhere)

    def run(weights: Any, deployed: Any, *rest: Any) -> _gradient.Found:
        second = None if deployed is None else specs
        mapped = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(specs, second, whole, split, split, whole),
            out_specs=out_specs,
        )
        return mapped(weights, deployed, *rest)

    return run


def _unchecked_map(
    make: MakePass, mesh: Mesh, statistics: _placement.Statistics
) -> _gradient.Pass:
    """A pass by `jax.pmap`, with arguments and results that have no axis of devices."""
    axes = _mesh.batch_axes(mesh)
    devices = list(mesh.devices.ravel())

    def local(*arguments: Any) -> _gradient.Found:
        *most, key = arguments
        key = jax.random.fold_in(key, _lax.axis_index(axes))
        return _finish(make()(*most, key), axes, statistics, grads=True)

    mapped: _gradient.Pass = jax.pmap(
        local,
        axis_name=axes[0],
        in_axes=(None, None, None, 0, 0, None),
        out_axes=None,
        devices=devices,
    )

    def run(weights: Any, deployed: Any, state: Any, *rest: Any) -> _gradient.Found:
        *examples, key = rest
        examples = jax.tree.map(
            lambda leaf: leaf.reshape(len(devices), -1, *leaf.shape[1:]), examples
        )
        return mapped(weights, deployed, state, *examples, key)

    return run


def _finish(
    found: _gradient.Found,
    axes: tuple[str, ...],
    statistics: _placement.Statistics,
    *,
    grads: bool,
) -> _gradient.Found:
    """Averages over the devices what is not averaged yet.

    Args:
        found: The results of one device.
        axes: The mesh axes over which the batch is split.
        statistics: Whether the statistics of devices may differ.
        grads: Whether the gradients are those of one device.

    Raises:
        ValueError: If statistics differ by device and must not.
    """
    if grads:
        found = found._replace(grads=_lax.pmean(found.grads, axes))
    found = found._replace(report=_lax.pmean(found.report, axes))
    if not jax.tree.leaves(found.model_state):
        return found
    if statistics == "local":
        vary = lambda leaf: _to_varying(leaf, axes)
        state = _lax.pmean(jax.tree.map(vary, found.model_state), axes)
        return found._replace(model_state=state)
    differing = [
        path
        for path, leaf in _paths.named(found.model_state)
        if jax.typeof(leaf).manual_axis_type.varying
    ]
    if differing:
        raise ValueError(
            f"the state of the network ({', '.join(differing[:4])}) differs by device: "
            "its batch norm uses the statistics of one device's part of the batch. "
            "For those of the whole batch, average over the axis "
            f"{axes[0] if len(axes) == 1 else axes!r}: "
            '`linen.functional(module, axis_name="data")`, or the `axis_name` of the '
            'layer. Or pass `batch_statistics="local"`, or `strategy="jit"`.'
        )
    return found


def _to_varying(leaf: Any, axes: tuple[str, ...]) -> Any:
    """Marks a value as one that may differ by device, if it is not marked yet."""
    known = jax.typeof(leaf).manual_axis_type.varying
    missing = tuple(axis for axis in axes if axis not in known)
    return _lax.pcast(leaf, missing, to="varying") if missing else leaf
