"""Orbax checkpoints: complete or absent, and the newest readable one on restore."""

import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from experiments import errors


class Checkpoints:
    """The checkpoints of one run, saved in the background.

    A checkpoint holds a tree of arrays and a small dict that goes into JSON.
    """

    def __init__(self, folder: pathlib.Path, *, keep: int = 2):
        """Opens `folder`, which need not exist.

        Args:
            folder: Where the checkpoints lie, one subfolder each, named by the step.
            keep: How many of the latest stay.
        """
        self._folder = folder
        self._manager = ocp.CheckpointManager(
            folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.LatestN(keep),
                enable_async_checkpointing=True,
            ),
        )

    @property
    def steps(self) -> list[int]:
        """Steps that have a complete checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, arrays: Any, record: Mapping[str, Any]) -> None:
        """Starts saving; the arrays may be donated once this returns."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave(arrays),
                record=ocp.args.JsonSave(dict(record)),
            ),
        )

    def restore(self, like: Any) -> tuple[Any, dict[str, Any], list[str]] | None:
        """Loads the latest checkpoint that can be read.

        Args:
            like: Arrays of the structure, shapes, dtypes and shardings to restore.

        Returns:
            The arrays, the record and messages about checkpoints that could not be
            read, which are moved aside; None where there is no checkpoint.

        Raises:
            RunError: If there are checkpoints and none can be read.
        """
        steps = self.steps
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        failures: list[tuple[int, Exception]] = []
        for step in reversed(steps):
            try:
                found = self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        arrays=ocp.args.StandardRestore(target),
                        record=ocp.args.JsonRestore(),
                    ),
                )
            except Exception as error:  # Orbax and TensorStore raise many kinds
                failures.append((step, error))
                continue
            messages = [self._put_aside(*failure) for failure in failures]
            return found["arrays"], found["record"], messages
        if not steps:
            return None
        step, failure = failures[0]
        reason = _first_line(failure)
        raise errors.RunError(
            f"none of the checkpoints in {self._folder} can be read (steps {steps}; "
            f"step {step}: {reason}). Nothing was changed. Move that folder away to "
            "start anew, or choose another --workdir."
        )

    def wait(self) -> None:
        """Blocks until every save has finished."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and releases the threads of Orbax."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _put_aside(self, step: int, error: Exception) -> str:
        """Moves a broken checkpoint out of the way of a new one of the same step."""
        aside = self._folder.with_name("damaged_checkpoints")
        aside.mkdir(exist_ok=True)
        shutil.move(self._folder / str(step), aside / str(step))
        self._manager.reload()
        reason = _first_line(error)
        return f"checkpoint {step} cannot be read and was moved to {aside}: {reason}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]
