"""What a run leaves behind: config, metrics, result; safe against a kill."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import platform
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from experiments import errors

# Where data lies does not change what is computed from it.
FREE_FIELDS = ("cache_dir", "data_dir")

LOCK = ".lock"

CONFIG = "config.json"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"

METRICS = "metrics.jsonl"
"""A line for each epoch and split: numbers by name."""

LAYERS = "layers.jsonl"
"""A line for each epoch and binary layer; see `layers.py`."""


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Replaces a file as a whole, or leaves it as it was."""
    descriptor, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"
    )
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise


def read_lines(file: pathlib.Path) -> list[dict[str, Any]]:
    """All objects of a file, one a line, up to a line that a kill has cut short."""
    if not file.exists():
        return []
    records = []
    for line in file.read_text("utf-8", "replace").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


class Workdir:
    """A folder that belongs to one config, and to one program while it is unfinished.

    The second program to open it is refused. What holds it is a lock of the operating
    system, which ends with the process however that ends.

    Attributes:
        path: The folder.
        writes: Whether this process writes to it; where not, writing does nothing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: Mapping[str, Any],
        *,
        writes: bool = True,
    ):
        """Makes the folder, or checks that what stands there is of this config.

        Args:
            path: The folder.
            config: Of the run.
            writes: False in all processes of a run but one: then nothing is checked.

        Raises:
            RunError: If it belongs to another config, another program trains there, or
                it cannot be written.
        """
        self.path = pathlib.Path(path).expanduser().absolute()
        self.writes = writes
        self._release = lambda: None
        if not writes:
            return
        text = json.dumps(config, indent=2, sort_keys=True, default=str) + "\n"
        try:
            self._open(text)
        except OSError as error:
            raise errors.RunError(
                f"cannot use {self.path} as a workdir: {error}. Choose another "
                "--workdir."
            ) from error

    def _open(self, text: str) -> None:
        file = self.path / CONFIG
        self.path.mkdir(parents=True, exist_ok=True)
        if not file.exists() and any(map(_is_foreign, self.path.iterdir())):
            raise errors.RunError(
                f"{self.path} holds files but no {CONFIG}, so it is not a "
                "workdir of this program. Choose another --workdir."
            )
        if self.result() is None:
            self._release = weakref.finalize(self, os.close, _lock(self.path))
            for left in self.path.glob(".*.tmp"):  # by a kill
                left.unlink()
        if not file.exists():
            write_atomically(file, text)
        try:
            found = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise errors.RunError(
                f"{file} is not JSON ({error}), so the config that this workdir "
                "belongs to is unknown. Choose another --workdir."
            ) from error
        _check_same(found, json.loads(text), self.path)

    def __enter__(self) -> "Workdir":
        """Gives itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Lets other programs have the folder."""
        self._release()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turns an error of the file system into one that says what is safe.

        Raises:
            RunError: If something in the folder cannot be written.
        """
        try:
            yield
        except OSError as error:
            raise errors.RunError(
                f"cannot write to {self.path}: {error}. The checkpoints there are "
                "whole: mend the cause, and the same command goes on from the latest."
            ) from error

    def write(self, name: str, text: str) -> None:
        """Replaces a file as a whole."""
        if self.writes:
            with self.writing():
                write_atomically(self.path / name, text)

    def append(self, *records: Mapping[str, Any], file: str = METRICS) -> None:
        """Adds lines to `metrics.jsonl`, or to another file of lines."""
        if self.writes:
            text = "".join(json.dumps(record) + "\n" for record in records)
            with self.writing(), open(self.path / file, "a", encoding="utf-8") as out:
                out.write(text)

    def records(self, file: str = METRICS) -> list[dict[str, Any]]:
        """All lines of `metrics.jsonl`, or of another file of lines."""
        return read_lines(self.path / file)

    def rewind(self, step: int) -> None:
        """Drops the metrics that a run resumed at `step` will write again.

        They are those after the step, and those of the test, which comes last of all.
        """
        for file in (METRICS, LAYERS):
            if not (self.path / file).exists():
                continue
            kept = [
                record
                for record in self.records(file)
                if record["step"] <= step and record.get("split") != "test"
            ]
            self.write(file, "".join(json.dumps(record) + "\n" for record in kept))

    def result(self) -> dict[str, Any] | None:
        """What a finished run has measured, or None."""
        file = self.path / RESULT
        return json.loads(file.read_text("utf-8")) if file.exists() else None

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes `result.json`, which says that the run is done."""
        self.write(RESULT, json.dumps(result, indent=2, sort_keys=True) + "\n")


def _is_foreign(file: pathlib.Path) -> bool:
    """Whether a file is not one that a kill may leave before there is a config."""
    return file.name != LOCK and not file.match(f".{CONFIG}.*.tmp")


def _lock(path: pathlib.Path) -> int:
    """Takes the lock of a workdir; a descriptor that holds it while it is open.

    Raises:
        RunError: If another process has it.
    """
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 1000).decode("utf-8", "replace").strip()
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(descriptor)
            raise errors.RunError(
                f"another program trains in {path} ({holder or 'it has just begun'}). "
                "Wait for it or stop it, or choose another --workdir."
            ) from error
        # Some network file systems have no locks: there the user has to take care.
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    holder = f"process {os.getpid()} on {platform.node()}, since {now}\n"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, holder.encode(), 0)
    return descriptor


def _check_same(
    found: Mapping[str, Any], wanted: Mapping[str, Any], path: pathlib.Path
) -> None:
    found, wanted = dict(flat(found)), dict(flat(wanted))
    names = sorted(
        name
        for name in found.keys() | wanted.keys()
        if found.get(name) != wanted.get(name) and name not in FREE_FIELDS
    )
    if names:
        changes = "\n".join(
            f"  {name}: {found.get(name, 'absent')} there, "
            f"{wanted.get(name, 'absent')} here"
            for name in names
        )
        raise errors.RunError(
            f"the workdir {path} belongs to another config:\n{changes}\n"
            "Give the same config to resume it, or another --workdir."
        )


def flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Leaves of nested dicts, with names joined by dots."""
    pairs: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            pairs += flat(value, f"{prefix}{name}.")
        else:
            pairs.append((prefix + name, value))
    return pairs
