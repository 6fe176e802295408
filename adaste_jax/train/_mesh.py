"""Meshes of devices, and how the batch and the state are split over them."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from adaste_jax import _paths
from adaste_jax.train import _state

DATA_AXIS = "data"
"""The mesh axis that batches are split over."""
FSDP_AXIS = "fsdp"
"""The mesh axis that batches and the state are split over."""
TENSOR_AXIS = "tensor"
"""The mesh axis that products are split over."""

P: Callable[..., PartitionSpec] = PartitionSpec
"""Makes a spec; the constructor itself has no types."""

Rules = Sequence[tuple[str, PartitionSpec]]


def data_mesh(
    devices: Sequence[jax.Device] | None = None, *, fsdp: int = 1, tensor: int = 1
) -> Mesh:
    """A mesh with the axis `"data"`, and others where the state is to be split.

    The batch is split over the axes `"data"` and `"fsdp"`, the state over `"fsdp"`
    (`state_sharding`). Products are split over `"tensor"` where rules of
    `state_sharding` say so; that needs the strategy `"jit"`.

    Args:
        devices: The devices, of one process or of several. Default: all.
        fsdp: Number of devices that share one copy of the state. With 1 the mesh has no
            such axis.
        tensor: Number of devices that share a product of the same examples; likewise.
            They are neighbours in `devices`.

    Returns:
        A mesh, for the argument `mesh` of the functions of this module.

    Raises:
        ValueError: If the number of devices is not a multiple of `fsdp * tensor`.
    """
    devices = jax.devices() if devices is None else list(devices)
    if fsdp < 1 or tensor < 1 or len(devices) % (fsdp * tensor):
        raise ValueError(
            "`fsdp` and `tensor` must be at least 1 and their product divide the "
            f"number of devices, got {fsdp} and {tensor} for {len(devices)} devices."
        )
    names: tuple[str, ...] = (DATA_AXIS,)
    shape: tuple[int, ...] = (len(devices) // (fsdp * tensor),)
    for name, parts in ((FSDP_AXIS, fsdp), (TENSOR_AXIS, tensor)):
        if parts > 1:
            names, shape = (*names, name), (*shape, parts)
    kinds = (AxisType.Auto,) * len(names)
    return jax.make_mesh(shape, names, axis_types=kinds, devices=devices)


def default_mesh() -> Mesh:
    """The mesh of `jax.set_mesh` if it has an axis `"data"`; else all devices."""
    if not jax.sharding.get_abstract_mesh().empty:
        around = jax.sharding.get_mesh()
        if DATA_AXIS in around.axis_names:
            return around
    return data_mesh()


def replicate(tree: Any, mesh: Mesh | None = None) -> Any:
    """Puts a whole copy of every array on every device of the mesh.

    Call it once for resident data, which would otherwise be copied in every call.

    Args:
        tree: Any pytree of arrays.
        mesh: Default: that of `jax.set_mesh` if it has an axis `"data"`, else
            `data_mesh()`.

    Returns:
        The tree, on the devices.
    """
    whole = shardings(mesh)[0]
    if whole.is_fully_addressable:
        return jax.device_put(tree, whole)
    # Several processes, which give equal values: `device_put` takes no PRNG keys here,
    # and compares large arrays between processes.
    return jax.jit(lambda leaves: leaves, out_shardings=whole)(tree)


def state_sharding(
    state: _state.TrainState, mesh: Mesh, rules: Rules = ()
) -> _state.TrainState:
    """Shardings of all arrays of a state, by rules on their paths.

    The path of a kernel is `"params/body/Dense_0/kernel"`; the paths of its moments
    start with `"opt_state/"` and have the same end. The first rule found in the path
    decides. Other leaves of `params` and `opt_state` are split over `"fsdp"` along the
    largest axis that it divides. Leaves without such an axis, and the rest of the
    state, are whole on every device.

    Args:
        state: The state, of arrays or `jax.ShapeDtypeStruct`s.
        mesh: The mesh, for example `data_mesh(fsdp=4)`.
        rules: Pairs of a regular expression, searched for in the path, and a
            `PartitionSpec`.

    Returns:
        A state of `NamedSharding`s: for `sharding` of `Placement`, for
        `jax.device_put`, and for the target of a restored checkpoint.

    Raises:
        ValueError: If a pattern matches nothing, or an axis of an array cannot be
            split as its rule says.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from adaste_jax import train
        >>> params = {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)}
        >>> state = train.TrainState.create(
        ...     params, optax.sgd(0.1), key=jax.random.key(0))
        >>> mesh = train.data_mesh(jax.devices()[:2], fsdp=2)
        >>> rules = [("bias", jax.sharding.PartitionSpec())]
        >>> shardings = train.state_sharding(state, mesh, rules)
        >>> shardings.params["kernel"].spec, shardings.params["bias"].spec
        (P(None, 'fsdp'), P())
    """
    for pattern, _ in rules:
        _paths.matching(state, [pattern], name="the pattern of the rule")

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, spec in rules:
            if re.search(pattern, name):
                _check_spec(name, pattern, leaf.shape, spec, mesh)
                return NamedSharding(mesh, spec)
        sharded = name.startswith(("params/", "opt_state/")) or name == "params"
        return NamedSharding(mesh, _largest_axis(leaf.shape, mesh) if sharded else P())

    shardings: _state.TrainState = jax.tree_util.tree_map_with_path(place, state)
    return shardings


def _largest_axis(shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    parts = mesh.shape.get(FSDP_AXIS, 1)
    sizes = [size if size and size % parts == 0 else 0 for size in shape]
    if parts == 1 or not any(sizes):
        return P()
    # Of equal axes the last.
    axis = len(sizes) - 1 - int(np.argmax(sizes[::-1]))
    return P(*(None,) * axis, FSDP_AXIS)


def _check_spec(
    name: str, pattern: str, shape: tuple[int, ...], spec: PartitionSpec, mesh: Mesh
) -> None:
    for axis in names(spec):
        if axis not in mesh.shape:
            raise ValueError(
                f"the rule for {pattern!r} names the axis {axis!r}; the mesh has "
                f"{tuple(mesh.axis_names)}."
            )
    parts = [parts_of(mesh, axes) for axes in dimensions(spec, len(spec))]
    if len(spec) > len(shape) or any(
        size % part for size, part in zip(shape, parts, strict=False)
    ):
        raise ValueError(
            f"{name!r} of shape {tuple(shape)} cannot be split as the rule for "
            f"{pattern!r} says: {spec} on the mesh {dict(mesh.shape)}. Put another "
            "rule for it before that one."
        )


def parts_of(mesh: Mesh, axes: Sequence[str]) -> int:
    """In how many parts these axes of a mesh divide an array."""
    return math.prod(mesh.shape[axis] for axis in axes)


def dimensions(spec: PartitionSpec, rank: int) -> list[tuple[str, ...]]:
    """Names of the mesh axes that split each dimension of an array."""
    entries = [*spec, *(None,) * (rank - len(spec))]
    return [
        () if entry is None else entry if isinstance(entry, tuple) else (entry,)
        for entry in entries
    ]


def names(spec: PartitionSpec) -> tuple[str, ...]:
    """Names of all mesh axes in a spec."""
    return tuple(name for part in dimensions(spec, len(spec)) for name in part)


def batch_axes(mesh: Mesh) -> tuple[str, ...]:
    """The axes over which the batch is split.

    Raises:
        ValueError: If the mesh has no axis `"data"`.
    """
    if DATA_AXIS not in mesh.axis_names:
        raise ValueError(
            f"the mesh must have an axis {DATA_AXIS!r}, over which the batch is split; "
            f"it has {tuple(mesh.axis_names)}. `train.data_mesh` makes one."
        )
    return tuple(axis for axis in (DATA_AXIS, FSDP_AXIS) if axis in mesh.axis_names)


def shardings(
    mesh: Mesh | None, leading_axes: int = 0
) -> tuple[NamedSharding, NamedSharding]:
    """Two shardings: whole on every device, and split over the axes of the batch."""
    mesh = default_mesh() if mesh is None else mesh
    axes = batch_axes(mesh)
    split = P(*(None,) * leading_axes, axes if len(axes) > 1 else axes[0])
    return NamedSharding(mesh, P()), NamedSharding(mesh, split)


def check_batch(batch: Any, mesh: Mesh, *, axis: int, microbatches: int = 1) -> None:
    """Checks that devices and microbatches can share a batch evenly.

    Raises:
        ValueError: If a leaf has no batch axis, or its length cannot be divided.
    """
    devices = parts_of(mesh, batch_axes(mesh))
    parts = devices * microbatches
    for leaf in jax.tree.leaves(batch):
        shape = jnp.shape(leaf)
        if len(shape) <= axis or shape[axis] % parts:
            over = f"{devices} devices"
            if microbatches > 1:
                over += f" in {microbatches} microbatches"
            raise ValueError(
                f"the batch axis (axis {axis}) of an array of shape {shape} cannot be "
                f"split over {over}: make the batch size a multiple of {parts}, or "
                "pass a `mesh` of fewer devices."
            )


def check_structure(shardings: Any, state: Any) -> None:
    """Checks that shardings have the structure of the state.

    Raises:
        ValueError: If the trees differ.
    """
    given: Any = jax.tree.structure(shardings)
    if given != jax.tree.structure(state):
        raise ValueError(
            "`state_sharding` was made for a state of another structure: make it with "
            "`train.state_sharding(state, mesh)` from the state of this run."
        )
