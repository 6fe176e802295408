"""Moves arrays to where a step needs them.

On a mesh with explicit axes the type of every array says how it is split. The steps
leave that to the compiler: they compute on the same devices with automatic axes, and
return their results on the caller's mesh.
"""

import contextlib
import dataclasses
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding

from adaste_jax.train import _buffers, _mesh, _placement


def computing(given: _placement.Placement) -> _placement.Placement:
    """The same devices, whose axes are left to the compiler."""
    if given.mesh is None or not is_explicit(given.mesh):
        return given
    return dataclasses.replace(
        given,
        mesh=automatic(given.mesh),
        sharding=jax.tree.map(automatic_sharding, given.sharding),
    )


def automatic(mesh: Mesh) -> Mesh:
    """The same devices, whose axes are left to the compiler."""
    if not is_explicit(mesh):
        return mesh
    kinds = (AxisType.Auto,) * len(mesh.axis_names)
    return Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)


def is_explicit(mesh: Any) -> bool:
    """Whether types of arrays on the mesh say how they are split."""
    return AxisType.Explicit in mesh.axis_types


def within(mesh: Mesh) -> contextlib.AbstractContextManager[Any]:
    """A context in which arrays of the mesh may be used, under any `jax.set_mesh`."""
    around = jax.sharding.get_abstract_mesh()
    if around.empty or around == mesh.abstract_mesh:
        return contextlib.nullcontext()
    return jax.set_mesh(mesh)


def automatic_sharding(place: NamedSharding) -> NamedSharding:
    """The same sharding, on a mesh whose axes are left to the compiler."""
    mesh = place.mesh
    if not (isinstance(mesh, Mesh) and is_explicit(mesh)):
        return place
    return NamedSharding(automatic(mesh), place.spec)


def handed_back(tree: Any, mesh: Mesh) -> Any:
    """Results on the caller's mesh; unchanged unless its axes are explicit."""
    if not is_explicit(mesh):
        return tree
    return jax.tree.map(
        lambda leaf: jax.device_put(leaf, NamedSharding(mesh, leaf.sharding.spec)), tree
    )


def state(tree: Any, target: Any) -> Any:
    """Moves the state to its sharding; a state that is already there is unchanged.

    For a state elsewhere the step would be compiled twice: once for it, and once for
    the state that the first step returns.
    """
    leaves = jax.tree.leaves(tree)
    targets = (
        [target] * len(leaves)
        if isinstance(target, NamedSharding)
        else jax.tree.leaves(target)
    )
    lies = [getattr(leaf, "sharding", None) for leaf in leaves]
    return tree if lies == targets else jax.device_put(tree, target)


def arrays(tree: Any, target: NamedSharding) -> Any:
    """Moves a batch or resident data to its sharding.

    `jax.jit` moves host arrays, and arrays that are not bound to a device.
    """

    def put(leaf: Any) -> Any:
        if not _is_bound(leaf) or leaf.sharding == target:
            return leaf
        mesh = getattr(leaf.sharding, "mesh", None)
        typed = mesh is not None and is_explicit(mesh)
        if not typed and leaf.sharding.is_equivalent_to(target, leaf.ndim):
            return leaf
        return jax.device_put(leaf, target)

    return jax.tree.map(put, tree)


def parameters(tree: Any, mesh: Mesh) -> Any:
    """Parameters on the devices of the mesh: split as they are there, or else whole."""
    whole = _mesh.shardings(mesh)[0]
    devices = set(mesh.devices.flat)

    def put(leaf: Any) -> Any:
        if not _is_bound(leaf):
            return leaf
        place = leaf.sharding
        if place.device_set != devices:
            return jax.device_put(leaf, whole)
        if isinstance(place, NamedSharding) and is_explicit(place.mesh):
            return jax.device_put(leaf, automatic_sharding(place))
        return leaf

    return jax.tree.map(put, tree)


def _is_bound(leaf: Any) -> bool:
    """Whether the value is an array that `jax.jit` would not move."""
    return _buffers.is_concrete(leaf) and leaf.committed
