"""Orbax checkpoints: complete or absent, and the newest readable one on restore."""

import contextlib
import hashlib
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from experiments import errors, plain_path, processes


class Checkpoints:
    """The checkpoints of one run, saved in the background.

    A checkpoint holds a tree of arrays and a small dict that goes into JSON, with a
    checksum of both: Orbax notices a damaged index, but not a flipped bit in an array.
    All processes of a run take part in everything.
    """

    def __init__(self, folder: pathlib.Path, *, keep: int = 2, read_only: bool = False):
        """Opens `folder`, which need not exist.

        Args:
            folder: Where the checkpoints lie, one subfolder each, named by the step.
            keep: How many of the latest stay; the best stays besides.
            read_only: Changes nothing: for a folder that another program may write.

        Raises:
            RunError: If the folder cannot be used.
        """
        self._folder = folder
        self._read_only = read_only
        with self._writing("open them"):
            if not read_only:
                folder.mkdir(parents=True, exist_ok=True)
            path, self._forget_path = plain_path.of(folder)
            self._manager = ocp.CheckpointManager(
                path,
                options=ocp.CheckpointManagerOptions(
                    # Keeps the metrics; which checkpoints stay, the policy says.
                    best_fn=_accuracy,
                    best_mode="max",
                    preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                        [
                            checkpoint_managers.LatestN(keep),
                            checkpoint_managers.BestN(
                                get_metric_fn=_accuracy,
                                n=1,
                                keep_checkpoints_without_metrics=False,
                            ),
                        ]
                    ),
                    enable_async_checkpointing=True,
                    cleanup_tmp_directories=not read_only,
                    read_only=read_only,
                ),
            )

    def __enter__(self) -> "Checkpoints":
        """Gives itself."""
        return self

    def __exit__(self, kind: Any, *exception: object) -> None:
        """Waits for the last save; its error does not hide one that is under way."""
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
    ) -> None:
        """Starts saving; the arrays may be donated once this returns.

        Args:
            step: Its name.
            arrays: The tree of arrays.
            record: What goes into JSON.
            accuracy: On validation images; the checkpoint with the highest stays.

        Raises:
            RunError: If it, or the one before, cannot be written.
        """
        record = {**record, "checksum": _checksum(arrays, record)}
        with self._writing(f"write that of step {step} or the one before it"):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays),
                    record=ocp.args.JsonSave(record),
                ),
                metrics=None if accuracy is None else {"accuracy": accuracy},
                force=True,
            )

    def restore(
        self, like: Any, *, step: int | None = None
    ) -> tuple[Any, dict[str, Any], list[str]] | None:
        """Loads the latest checkpoint that can be read, or that of a step.

        Args:
            like: Arrays of the structure, shapes, dtypes and shardings to restore;
                shardings may be others than those that were saved.
            step: Only this one will do; None is the latest.

        Returns:
            The arrays, the record and messages about checkpoints that could not be
            read, which are moved aside; None where there is no checkpoint.

        Raises:
            RunError: If there are checkpoints and none can be read, or not the one.
        """
        steps = self.steps
        if step is not None and step not in steps:
            raise errors.RunError(
                f"{self._folder} has no checkpoint of step {step}; it has {steps}."
            )
        steps = steps if step is None else [step]
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        failures: list[tuple[int, Exception]] = []
        for tried in reversed(steps):
            failure: Exception | None = None
            try:
                arrays, record = self._load(tried, target)
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
            f"step {tried}: {_first_line(failure)}). Nothing was changed. Move that "
            "folder away to start anew, or choose another --workdir."
        )

    def _load(self, step: int, target: Any) -> tuple[Any, dict[str, Any]]:
        found = self._manager.restore(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardRestore(target),
                record=ocp.args.JsonRestore(),
            ),
        )
        arrays, record = found["arrays"], dict(found["record"])
        if record.pop("checksum", None) != _checksum(arrays, record):
            raise ValueError("its contents do not have the checksum it was saved with")
        return arrays, record

    def wait(self) -> None:
        """Blocks until every save has finished.

        Raises:
            RunError: If one has failed.
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
        """Turns what Orbax raises into an error that says what is safe."""
        try:
            yield
        except Exception as error:  # a full disk is a ValueError of TensorStore
            raise errors.RunError(
                f"checkpoints in {self._folder}: cannot {what}: {_first_line(error)}. "
                "Those that are complete are kept: mend the cause, and the same "
                "command goes on from the latest."
            ) from error

    def _put_aside(self, failures: list[tuple[int, Exception]]) -> list[str]:
        """Moves broken checkpoints out of the way of new ones of the same step."""
        if not failures or self._read_only:
            return [
                f"checkpoint {step} cannot be read: {_first_line(error)}"
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
            f"{_first_line(error)}"
            for step, error in failures
        ]


def exist(folder: pathlib.Path) -> bool:
    """Whether a folder holds checkpoints, readable or not."""
    return any(found.name.isdecimal() for found in folder.glob("*"))


def _accuracy(metrics: Mapping[str, float]) -> float:
    return metrics["accuracy"]


def _checksum(arrays: Any, record: Mapping[str, Any]) -> str:
    """Of every bit of the arrays and of the record."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(record, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        header = (jax.tree_util.keystr(path), str(array.dtype), array.shape)
        digest.update(repr(header).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or repr(error)).splitlines()[0]
    for tail in (
        " [source locations",
        " [tensorstore_spec",
    ):  # long, and of no use here
        line = line.split(tail)[0]
    return line[:1000]
