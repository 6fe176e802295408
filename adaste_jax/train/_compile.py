"""A step of training, compiled over a mesh of devices."""

from typing import Any

import jax

from adaste_jax import methods
from adaste_jax.train import (
    _buffers,
    _checks,
    _labels,
    _mesh,
    _place,
    _placement,
    _prepare,
    _state,
    _step,
    _watch,
)


class CompiledStep:
    """The result of `make_train_step`: it checks, places, and calls the program.

    Args:
        step: The pure step, `step(state, batch, resident, held)`.
        method: The training method.
        given: The placement with its mesh, whose axes may be explicit.
        prepare: The user's `prepare`; None uses `batch["image"]` and `batch["label"]`.
        microbatches: Number of parts of a batch.
        many: Whether `step` is a scan of steps.
        classes: Holds the network's number of classes once `step` is traced.
    """

    def __init__(
        self,
        step: _step.Step,
        method: methods.Method,
        *,
        given: _placement.Placement,
        prepare: _prepare.Prepare | None,
        microbatches: int,
        many: bool,
        classes: list[int],
    ):
        self._method, self._prepare = method, prepare
        self._microbatches, self._classes = microbatches, classes
        self._placed = _place.computing(given)
        self._given = given.mesh or _mesh.default_mesh()
        self._mesh = _place.automatic(self._given)
        self._axis = 1 if many else 0
        self._whole, self._split = _mesh.shardings(self._mesh, self._axis)
        state = self._placed.sharding
        self._target: Any = self._whole if state is None else state
        self._compiled = jax.jit(
            step,
            in_shardings=(self._target, self._split, self._whole, self._whole),
            out_shardings=(self._target, self._whole),
            donate_argnums=0,
        )
        self._checked = False
        self._unshared = _buffers.Known()
        self._held: Any = None  # before the first call

    def __call__(
        self, state: _state.TrainState, batch: Any, resident: Any = None
    ) -> tuple[_state.TrainState, dict[str, jax.Array]]:
        """Takes a step."""
        mesh = self._mesh
        batch, resident = _prepare.batch_of(self._prepare, batch, resident)
        if not self._checked:
            self._check(state)
        _mesh.check_batch(batch, mesh, axis=self._axis, microbatches=self._microbatches)
        if not self._unshared(state, resident):
            self._held = jax.device_put(_watch.unknown(), self._whole)
            state = _buffers.unshared(state, batch, resident)
        with _place.within(mesh):
            arguments = (
                _place.state(state, self._target),
                _place.arrays(batch, self._split),
                _place.arrays(resident, self._whole),
                _place.arrays(self._held, self._whole),
            )
            labels = _checks.labels_on_host(batch) if self._prepare is None else None
            if labels is not None:
                if not self._checked:
                    trace: Any = self._compiled.eval_shape
                    trace(*arguments)  # once for all
                if self._classes:
                    _labels.check_labels(labels, self._classes[0])
            self._checked = True
            found = self._compiled(*arguments)
        new_state, report = _place.handed_back(found, self._given)
        self._unshared.remember(new_state, resident)
        last = jax.tree.map(lambda leaf: leaf[-1], report) if self._axis else report
        self._held = _watch.held(last, self._held)
        return new_state, report

    def lower(
        self, state: _state.TrainState, batch: Any, resident: Any = None
    ) -> jax.stages.Lowered:
        """Lowers the program for these arguments, as `jax.jit` does."""
        batch, resident = _prepare.batch_of(self._prepare, batch, resident)
        with _place.within(self._mesh):
            return self._compiled.lower(state, batch, resident, _watch.unknown())

    def _check(self, state: _state.TrainState) -> None:
        """Checks the arguments of a step."""
        if self._placed.sharding is not None:
            _mesh.check_structure(self._placed.sharding, state)
        if self._placed.gather == "packed":
            _checks.check_signs(self._method, state)
        _checks.check_accumulation(self._method, state)
