"""Where a step of training computes, and how its work is shared."""

import dataclasses
from typing import Literal, get_args

import jax
from jax.sharding import Mesh

from adaste_jax.estimators import _base
from adaste_jax.train import _mesh, _state

Strategy = Literal["jit", "shard_map", "pmap", "pure"]
"""How a step is spread over devices: see `Placement`."""

Gather = Literal["float", "packed"]
"""How split weights are gathered: as floats, or eight signs in a byte."""

Statistics = Literal["global", "local"]
"""Batch-norm statistics of the whole batch, or of the part of each device."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a step of training computes, and how its work is shared.

    Attributes:
        strategy: `"jit"`: one program that the compiler splits. `"shard_map"`: one
            program for each device, in which JAX checks which values are equal on all
            devices. `"pmap"`: the same without the checks, on a mesh with one axis; JAX
            keeps it for old code. `"pure"`: the step is not compiled and uses no
            devices, for programs that compile it themselves. What the network draws
            from its key depends on strategy, devices and microbatches; what `prepare`
            draws does not.
        mesh: Devices to split the batch over. Default: the mesh of `sharding`; without
            it that of `jax.set_mesh` if it has an axis `"data"`, else `data_mesh()`.
            Axes may be explicit: the step computes with automatic axes, and returns its
            results on this mesh.
        sharding: The sharding of the state, from `state_sharding`. Default: the whole
            state on every device.
        gather: How split weights are gathered for the forward pass: `"float"` as
            floats, `"packed"` as bits, a 32nd of the traffic. Packed weights must be
            pure signs in every step: those of `methods.ste`, or of an annealed method
            in a second step that is made once its `binary_from` is reached.
        batch_statistics: `"global"`: batch norm must use the statistics of the whole
            batch; otherwise it is an error. Under `"shard_map"` and `"pmap"` it must
            average over `DATA_AXIS`, which is set for a Linen module given as
            `network`. `"local"`: every device and every microbatch normalises by its
            own statistics; running statistics are averaged.

    Raises:
        ValueError: If an option is out of range, or two options conflict.

    Example:
        >>> from adaste_jax import train
        >>> train.Placement(strategy="shard_map", mesh=train.data_mesh()).gather
        'float'
    """

    strategy: Strategy = "jit"
    mesh: Mesh | None = None
    sharding: _state.TrainState | None = None
    gather: Gather = "float"
    batch_statistics: Statistics = "global"

    def __post_init__(self) -> None:
        """Checks the range of options, and that they do not conflict."""
        for name, kind in (
            ("strategy", Strategy),
            ("gather", Gather),
            ("batch_statistics", Statistics),
        ):
            _base.check_choice(name, getattr(self, name), get_args(kind))
        own = self._mesh_of_the_state()
        if self.strategy == "pure" and (self.mesh or own):
            raise ValueError(
                '`strategy="pure"` knows of no devices: leave `mesh` and `sharding` '
                "out, and place the state and the batch where you compile the step."
            )
        if self.gather == "packed" and own is None:
            raise ValueError(
                '`gather="packed"` is for weights that lie split over devices: it '
                "needs `sharding`, from `train.state_sharding`."
            )
        if own is not None and self.mesh not in (None, own):
            raise ValueError("`mesh` is not the mesh of `sharding`: leave `mesh` out.")

    def on_devices(self) -> "Placement":
        """The same placement with its mesh set; no mesh if the strategy is "pure".

        Raises:
            ValueError: If the mesh does not suit the strategy. The message names both,
                and says what to do.
        """
        if self.strategy == "pure":
            return self
        mesh = self._mesh_of_the_state() or self.mesh or _mesh.default_mesh()
        axes = _mesh.batch_axes(mesh)
        if self.strategy != "jit" and set(mesh.axis_names) != set(axes):
            raise ValueError(
                f"`strategy={self.strategy!r}` is for a mesh whose axes all split the "
                f'batch, got {tuple(mesh.axis_names)}: use `strategy="jit"`.'
            )
        if self.strategy == "pmap" and (self.sharding is not None or len(axes) > 1):
            raise ValueError(
                '`strategy="pmap"` keeps the state whole on every device of a mesh '
                'with one axis: use "jit" or "shard_map" for split state.'
            )
        if self.strategy == "pmap" and jax.process_count() > 1:
            raise ValueError(
                '`strategy="pmap"` is for one process: use "jit" or "shard_map".'
            )
        return dataclasses.replace(self, mesh=mesh)

    def _mesh_of_the_state(self) -> Mesh | None:
        leaves = jax.tree.leaves(self.sharding)
        return leaves[0].mesh if leaves else None
