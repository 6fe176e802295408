"""The workdir of a run: config, metrics, result; safe against a kill."""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from experiments import errors
from experiments.runs import identity, lines, lock, origins, small_files

LOCK = lock.NAME
CONFIG = "config.json"
ORIGIN = "origin.json"
"""The data of the run, and the networks that it starts from."""
PROBLEM = "problem.json"
"""The network and its input, so that it can be built again without the data."""
RESULT, TOKENIZER = "result.json", "tokenizer.json"
CHECKPOINTS = "checkpoints"
METRICS, LAYERS, read_lines = lines.METRICS, lines.LAYERS, lines.read

_CURES = {
    CONFIG: "The config that this workdir belongs to is unknown: choose another "
    "--workdir, or restore the file from a copy.",
    ORIGIN: "What the run began with is unknown: restore the file from a copy, or "
    "delete it to continue without a check of the data.",
    PROBLEM: "Restore it from a copy, or delete it; then the data are read instead.",
    RESULT: "Delete it; the same command writes it again from the checkpoint.",
}


class Workdir:
    """A folder that belongs to one config, and to one program while it is unfinished.

    A second program that opens it gets an error.

    Attributes:
        path: The folder.
        writes: Whether this process writes to it; if not, the writers do nothing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: Mapping[str, Any],
        *,
        writes: bool = True,
        upgrade: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    ):
        """Makes the folder, or checks that it belongs to this config.

        Args:
            path: The folder.
            config: Config of the run, as JSON.
            writes: False in all processes of a run but one; then nothing is checked.
            upgrade: Converts a config of an older version to today's form; raises
                ValueError if it cannot.

        Raises:
            RunError: If the folder belongs to another config, another program trains
                there, or it cannot be written.
        """
        self.path = absolute(path)
        self.writes = writes
        self._lock: lock.Lock | None = None
        if not writes:
            return
        config = json.loads(small_files.dumps(config))
        try:
            self._open(config, upgrade)
        except OSError as error:
            raise errors.RunError(
                f"cannot use {self.path} as a workdir: {error}. Choose another "
                "--workdir."
            ) from error

    def _open(
        self,
        config: Mapping[str, Any],
        upgrade: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    ) -> None:
        file = self.path / CONFIG
        self.path.mkdir(parents=True, exist_ok=True)
        if not file.exists() and any(map(_is_foreign, self.path.iterdir())):
            raise errors.RunError(
                f"{self.path} holds files but no {CONFIG}, so it is not a "
                "workdir of this program. Choose another --workdir."
            )
        check(self.path, config, upgrade=upgrade)
        if self.result() is None:
            self._lock = lock.Lock(self.path)
            for pattern in (".*.partial", ".*.tmp"):  # left by a kill
                for left in self.path.glob(pattern):
                    left.unlink()
        if not file.exists():
            small_files.write_json(file, config)
            check(self.path, config, upgrade=upgrade)  # another may have been first

    def __enter__(self) -> "Workdir":
        """Gives itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Releases the folder for other programs."""
        if self._lock is not None:
            self._lock.release()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turns a file system error into one that says which files are safe.

        Raises:
            RunError: If something in the folder cannot be written, or the folder has
                been replaced.
        """
        self.check_place()
        try:
            yield
        except OSError as error:
            raise errors.RunError(
                f"cannot write to {self.path}: {error}. The checkpoints there are "
                "complete: fix the cause; the same command continues from the latest."
            ) from error

    def check_place(self) -> None:
        """Checks that the folder has not been removed or replaced.

        Raises:
            RunError: If the lock there is not the one that this process holds.
        """
        if self._lock is not None and not self._lock.is_in_place():
            raise errors.RunError(
                f"{self.path} has been removed or replaced while the run trained in "
                "it, so nothing more is written there. Restore it; or give the same "
                "command, which starts a new run."
            )

    def write(self, name: str, text: str) -> None:
        """Replaces a file of the folder as a whole."""
        if self.writes:
            with self.writing():
                small_files.write(self.path / name, text)

    def append(self, *records: Mapping[str, Any], file: str = METRICS) -> None:
        """Adds lines to `metrics.jsonl`, or to another file of lines."""
        if self.writes:
            with self.writing(), open(self.path / file, "a", encoding="utf-8") as out:
                out.write(lines.dumps(records))

    def records(self, file: str = METRICS) -> list[dict[str, Any]]:
        """All good lines of `metrics.jsonl`, or of another file of lines."""
        return read_lines(self.path / file).records

    def rewind(self, step: int, *, to_report: bool = False) -> list[str]:
        """Starts the line files, or drops lines that a resumed run writes again.

        Lines after the step are dropped, and the lines of the test, which comes last.
        Lines that cannot be read are moved to a separate file.

        Args:
            step: Step of the checkpoint; -1 drops everything.
            to_report: Whether an epoch ends at the step and the run reports it again.

        Returns:
            Messages about lines that could not be read.
        """
        messages = []
        for file in (METRICS, LAYERS) if self.writes else ():
            found = read_lines(self.path / file)
            if found.bad:
                with self.writing():
                    messages.append(lines.put_aside(self.path / file, found.bad))
            kept = lines.until(found.records, step - 1 if to_report else step)
            self.write(file, lines.dumps(kept))
        return messages

    def settle_origin(self, found: Mapping[str, Any], *, begun: bool) -> list[str]:
        """Records the origin of the run, or checks that it has not changed.

        Args:
            found: The origin now, as JSON: `data`, `init_from` and `teacher`.
            begun: Whether the run has checkpoints; then `init_from` is ignored.

        Returns:
            Messages.

        Raises:
            RunError: If something differs; the message names it.
        """
        if not self.writes:
            return []
        recorded = origin(self.path)
        if recorded is None:
            self.write(ORIGIN, small_files.dumps(found, indent=2) + "\n")
            if not begun:
                return []
            return [
                "this run was started by a version that did not record its data; "
                f"{ORIGIN} now records them."
            ]
        changes = origins.changes(recorded, found, begun=begun)
        if changes:
            listing = "".join(f"  {line}\n" for line in changes)
            raise errors.RunError(
                f"the run in {self.path} began with other data or networks:\n{listing}"
                "It cannot continue with these. Restore them, or choose another "
                "--workdir."
            )
        return []

    def result(self) -> dict[str, Any] | None:
        """The result of a finished run, or None.

        Raises:
            RunError: If the file is damaged.
        """
        return finished(self.path)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes `result.json`, which marks the run as finished."""
        self.write(RESULT, small_files.dumps(result, indent=2) + "\n")


def absolute(path: str | os.PathLike[str]) -> pathlib.Path:
    """The absolute path of a workdir; `~` is the home folder."""
    return pathlib.Path(path).expanduser().absolute()


def check(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    *,
    upgrade: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> None:
    """Checks that a folder does not belong to another config; changes nothing.

    Args:
        path: The folder.
        config: Config of the run, as JSON.
        upgrade: Converts a config of an older version to today's form.

    Raises:
        RunError: If the configs differ; the message names the fields.
    """
    folder = absolute(path)
    found = _read(folder, CONFIG)
    if found is None:
        return
    try:
        changes = identity.different(upgrade(found), config)
    except ValueError as error:
        raise errors.RunError(
            f"cannot read {folder / CONFIG}: {error}. {_CURES[CONFIG]}"
        ) from error
    if changes:
        raise errors.RunError(
            f"the workdir {folder} belongs to another config:\n"
            f"{identity.listing(changes)}\n"
            "Give the same config to resume it, or another --workdir."
        )


def finished(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The result of the run in a folder; None if there is no result or no folder.

    Raises:
        RunError: If the file is damaged.
    """
    return _read(absolute(path), RESULT, test_accuracy=float)


def origin(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The recorded origin of the run in a folder; None if there is no record.

    Raises:
        RunError: If the file is damaged.
    """
    return _read(absolute(path), ORIGIN, data=dict)


def problem(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The recorded problem of the run in a folder; None for version 0.1.

    Raises:
        RunError: If the file is damaged.
    """
    return _read(absolute(path), PROBLEM, network=dict, num_train=int)


def _read(folder: pathlib.Path, name: str, **needed: type) -> dict[str, Any] | None:
    file = folder / name
    if not file.exists():
        return None
    return small_files.read(file, cure=_CURES[name], **needed)


def _is_foreign(file: pathlib.Path) -> bool:
    """Whether a file cannot come from a run that was killed before its config."""
    return file.name != LOCK and not file.match(f".{CONFIG}.*")
