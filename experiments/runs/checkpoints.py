"""Orbax checkpoints: complete or absent, and the newest readable one on restore."""

import contextlib
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from experiments import errors
from experiments.runs import kept, plain_path, processes, small_files


class Older(NamedTuple):
    """The form of the arrays in an older version.

    Attributes:
        like: Arrays of that form.
        upgraded: Function from arrays of that form to arrays of today's form.
    """

    like: Any
    upgraded: Callable[[Any], Any]


class Checkpoints:
    """The checkpoints of one run, saved in the background.

    A checkpoint holds a tree of arrays and a small dict (stored as JSON), with a
    checksum of both: Orbax detects a damaged index, but not a flipped bit in an array.
    All processes of a run must call every method.
    """

    def __init__(self, folder: pathlib.Path, *, keep: int = 2, read_only: bool = False):
        """Opens `folder`, which need not exist.

        Args:
            folder: Folder of the checkpoints; each is a subfolder named by its step.
            keep: Number of latest checkpoints that are kept; the best is kept too.
            read_only: Changes nothing; for a folder that another program may write.

        Raises:
            RunError: If the folder cannot be used.
        """
        self._folder = folder
        self._read_only = read_only
        self._best: tuple[float, int] | None = None
        with self._writing("open them"):
            if not read_only:
                folder.mkdir(parents=True, exist_ok=True)
            path, self._forget_path = plain_path.of(folder)
            self._manager = ocp.CheckpointManager(
                path,
                options=ocp.CheckpointManagerOptions(
                    # Writes `metrics`, for people who look into a checkpoint; nothing
                    # reads it, and a damaged one is of no consequence.
                    best_fn=lambda metrics: 0.0,
                    lightweight_initialize=True,
                    preservation_policy=kept.Policy(lambda: self._best, keep),
                    enable_async_checkpointing=True,
                    cleanup_tmp_directories=not read_only,
                    read_only=read_only,
                ),
            )
        self._best = kept.best_of(folder, self.steps)

    def __enter__(self) -> "Checkpoints":
        """Gives itself."""
        return self

    def __exit__(self, kind: Any, *exception: object) -> None:
        """Waits for the last save; its error does not hide one already raised."""
        if kind is None:
            self.close()
            return
        with contextlib.suppress(errors.RunError):
            self.close()

    @property
    def steps(self) -> list[int]:
        """Steps that have a complete checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        step: int,
        arrays: Any,
        record: Mapping[str, Any],
        *,
        accuracy: float | None = None,
        progress: Mapping[str, float] | None = None,
    ) -> None:
        """Starts saving; the arrays may be donated once this returns.

        Args:
            step: Step of the checkpoint, which is its name.
            arrays: The tree of arrays.
            record: The dict that is stored as JSON.
            accuracy: Accuracy on validation examples; see `rate`.
            progress: Metrics of the training so far, for human readers.

        Raises:
            RunError: If this checkpoint or the one before cannot be written, or a
                number in it is not finite.
        """
        bad = kept.nonfinite(arrays)
        if bad:
            raise errors.RunError(
                f"the state of step {step} has numbers that are not finite ({bad}), so "
                f"it is not saved. {self.last_good()}"
            )
        if accuracy is not None:
            self.rate(step, accuracy)
        record = {**record, "best": self._best}
        record = {**record, "checksum": kept.checksum(arrays, record)}
        with self._writing(f"write that of step {step} or the one before it"):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays),
                    record=ocp.args.JsonSave(record),
                ),
                metrics=dict(progress or {"step": step}),
                force=True,
            )

    def last_good(self) -> str:
        """A sentence about the last good checkpoint; waits for the last save."""
        self.wait()
        kept = self.steps
        where = (
            f"The last good checkpoint is that of step {kept[-1]}; it is kept"
            if kept
            else "There is no checkpoint yet"
        )
        advice = "Lower the learning rate or change the method, in a new --workdir."
        return f"{where}. {advice}"

    def rate(self, step: int, accuracy: float) -> None:
        """Records the accuracy of a step; the checkpoint of the best is kept.

        Args:
            step: Step of the checkpoint, which need not have been saved.
            accuracy: Accuracy on validation examples.
        """
        if self._best is None or (accuracy, step) >= self._best:
            self._best = (accuracy, step)

    def restore(
        self, like: Any, *, step: int | None = None, older: Sequence[Older] = ()
    ) -> tuple[Any, dict[str, Any], list[str]] | None:
        """Loads the latest checkpoint that can be read, or that of a step.

        Args:
            like: Arrays of the structure, shapes, dtypes and shardings to restore;
                shardings may differ from the saved ones.
            step: Step of the only checkpoint to load; None is the latest.
            older: Forms of older versions, tried if today's form does not fit.

        Returns:
            The arrays, the record and messages about checkpoints that could not be
            read, which are moved aside; None if there is no checkpoint.

        Raises:
            RunError: If there are checkpoints but none can be read, or the one of
                `step` cannot.
        """
        steps = self.steps
        if step is not None and step not in steps:
            raise errors.RunError(
                f"{self._folder} has no checkpoint of step {step}; it has {steps}."
            )
        steps = steps if step is None else [step]
        forms = [Older(like, lambda arrays: arrays), *older]
        failures: list[tuple[int, Exception]] = []
        for tried in reversed(steps):
            failure: Exception | None = None
            try:
                arrays, record = self._load_any(tried, forms)
            except Exception as error:  # Orbax and TensorStore raise many kinds
                failure = error
            if any(processes.gather(int(failure is not None))):
                elsewhere = ValueError("another process cannot read it")
                failures.append((tried, failure or elsewhere))
                continue
            return arrays, record, self._put_aside(failures)
        if not steps:
            return None
        tried, failure = failures[0]
        raise errors.RunError(
            f"none of the checkpoints in {self._folder} can be read (steps {steps}; "
            f"step {tried}: {kept.first_line(failure)}). Nothing was changed. Move "
            "that folder away to start again, or choose another --workdir."
        )

    def _load_any(
        self, step: int, forms: Sequence[Older]
    ) -> tuple[Any, dict[str, Any]]:
        """Loads in the first form that fits; an error is that of today's form."""
        failures = []
        for form in forms:
            try:
                arrays, record = self._load(step, form.like)
            except Exception as error:  # Orbax and TensorStore raise many kinds
                failures.append(error)
            else:
                return form.upgraded(arrays), record
        raise failures[0]

    def _load(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        found = self._manager.restore(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardRestore(target),
                record=ocp.args.JsonRestore(),
            ),
        )
        arrays, record = found["arrays"], dict(found["record"])
        if record.pop("checksum", None) != kept.checksum(arrays, record):
            raise ValueError("its contents do not match the checksum saved with it")
        bad = kept.nonfinite(arrays)
        if bad:
            raise ValueError(f"it holds numbers that are not finite ({bad})")
        record.pop("best", None)
        return arrays, record

    def checksum(self, step: int) -> str:
        """The checksum in the record of a step, which identifies its bits.

        Raises:
            RunError: If the record cannot be read.
        """
        file = self._folder / str(step) / "record" / "metadata"
        cure = "Name another checkpoint."
        return small_files.read(file, cure=cure, checksum=str)["checksum"]

    def wait(self) -> None:
        """Blocks until every save has finished.

        Raises:
            RunError: If a save has failed.
        """
        with self._writing("write the latest"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and releases the threads of Orbax.

        Raises:
            RunError: If a save has failed.
        """
        try:
            self.wait()
        finally:
            with self._writing("write the latest"):
                self._manager.close()
            self._forget_path()

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Turns errors of Orbax into an error that says which checkpoints are safe."""
        try:
            yield
        except Exception as error:  # a full disk is a ValueError of TensorStore
            raise errors.RunError(
                f"checkpoints in {self._folder}: cannot {what}: "
                f"{kept.first_line(error)}. Complete checkpoints are kept: "
                "fix the cause, and the same command continues from the latest one."
            ) from error

    def _put_aside(self, failures: list[tuple[int, Exception]]) -> list[str]:
        """Moves broken checkpoints out of the way of new ones of the same step."""
        if not failures or self._read_only:
            return [
                f"checkpoint {step} cannot be read: {kept.first_line(error)}"
                for step, error in failures
            ]
        aside = self._folder.with_name("damaged_checkpoints")
        if processes.is_primary():
            aside.mkdir(exist_ok=True)
            for step, _ in failures:
                shutil.rmtree(aside / str(step), ignore_errors=True)
                shutil.move(self._folder / str(step), aside / str(step))
        if processes.several():
            multihost_utils.sync_global_devices("damaged checkpoints moved")
        self._manager.reload()
        return [
            f"checkpoint {step} cannot be read and was moved to {aside}: "
            f"{kept.first_line(error)}"
            for step, error in failures
        ]
