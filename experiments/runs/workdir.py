"""What a run leaves behind: config, metrics, result; safe against a kill."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import platform
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from experiments import errors
from experiments.data import fingerprint
from experiments.runs import identity
from experiments.runs import small_files

LOCK = ".lock"

CONFIG = "config.json"
ORIGIN = "origin.json"
"""What the run computes from besides its config: data, and networks it starts from."""
PROBLEM = "problem.json"
"""The network and its input, so that it can be built again without the data."""
RESULT = "result.json"
CHECKPOINTS = "checkpoints"

METRICS = "metrics.jsonl"
"""A line for each epoch and split: numbers by name."""

LAYERS = "layers.jsonl"
"""A line for each epoch and binary layer; see `layers.py`."""

_CURES = {
    CONFIG: "The config that this workdir belongs to is unknown: choose another "
    "--workdir, or put the file back from a copy.",
    ORIGIN: "What the run began with is unknown: put the file back from a copy, or "
    "delete it to go on without a check of the data.",
    PROBLEM: "Put it back from a copy, or delete it: then the data are read instead.",
    RESULT: "Delete it, and the same command writes it anew from the checkpoint.",
}


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
        upgrade: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    ):
        """Makes the folder, or checks that what stands there is of this config.

        Args:
            path: The folder.
            config: Of the run, as JSON.
            writes: False in all processes of a run but one: then nothing is checked.
            upgrade: From a config that an older version has written to today's form;
                it raises ValueError where there is none.

        Raises:
            RunError: If it belongs to another config, another program trains there, or
                it cannot be written.
        """
        self.path = absolute(path)
        self.writes = writes
        self._lock: int | None = None
        self._release = lambda: None
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
            self._lock = _lock(self.path)
            self._release = weakref.finalize(self, os.close, self._lock)
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
        """Lets other programs have the folder."""
        self._release()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turns an error of the file system into one that says what is safe.

        Raises:
            RunError: If something in the folder cannot be written, or the folder is
                not the one that the run began in.
        """
        self.check_place()
        try:
            yield
        except OSError as error:
            raise errors.RunError(
                f"cannot write to {self.path}: {error}. The checkpoints there are "
                "whole: mend the cause, and the same command goes on from the latest."
            ) from error

    def check_place(self) -> None:
        """Refuses to write where the folder has been removed or put in another's place.

        Raises:
            RunError: If the lock that this process holds is not the file of that name.
        """
        if self._lock is None:
            return
        try:
            there = os.stat(self.path / LOCK)
        except OSError:
            there = None
        if there is None or not os.path.samestat(there, os.fstat(self._lock)):
            raise errors.RunError(
                f"{self.path} has been removed or replaced while the run trained in "
                "it, so nothing more is written there. Put it back as it was, or start "
                "the run anew; the same command does."
            )

    def write(self, name: str, text: str) -> None:
        """Replaces a file as a whole."""
        if self.writes:
            with self.writing():
                small_files.write(self.path / name, text)

    def append(self, *records: Mapping[str, Any], file: str = METRICS) -> None:
        """Adds lines to `metrics.jsonl`, or to another file of lines."""
        if self.writes:
            text = "".join(small_files.dumps(record) + "\n" for record in records)
            with self.writing(), open(self.path / file, "a", encoding="utf-8") as out:
                out.write(text)

    def records(self, file: str = METRICS) -> list[dict[str, Any]]:
        """All good lines of `metrics.jsonl`, or of another file of lines."""
        return read_lines(self.path / file).records

    def rewind(self, step: int, *, to_report: bool = False) -> list[str]:
        """Begins the files of lines, or drops what a resumed run writes again.

        Dropped are those after the step, and those of the test, which comes last of
        all. Lines that cannot be read are moved to a file of their own.

        Args:
            step: Of the checkpoint; -1 drops everything.
            to_report: Whether the run will report the step itself, at which an epoch
                ends, again.

        Returns:
            Messages about lines that could not be read.
        """
        last = step - 1 if to_report else step
        messages = []
        for file in (METRICS, LAYERS):
            if not self.writes:
                continue
            lines = read_lines(self.path / file)
            kept = [
                record
                for record in lines.records
                if record["step"] <= last and record.get("split") != "test"
            ]
            if lines.bad:
                aside = f"damaged_{file}"
                with (
                    self.writing(),
                    open(
                        self.path / aside, "a", encoding="utf-8", errors="replace"
                    ) as out,
                ):
                    out.writelines(f"{line}\n" for line in lines.bad.values())
                numbers = ", ".join(map(str, list(lines.bad)[:10]))
                messages.append(
                    f"{len(lines.bad)} lines of {file} cannot be read (lines "
                    f"{numbers}) and were moved to {aside}; the others are kept."
                )
            text = "".join(small_files.dumps(record) + "\n" for record in kept)
            self.write(file, text)
        return messages

    def settle_origin(self, found: Mapping[str, Any], *, begun: bool) -> list[str]:
        """Records what the run computes from, or checks that it is the same.

        Args:
            found: By name (`data`, `init_from`, `teacher`) what there is now, as JSON.
            begun: Whether the run has checkpoints. What a run starts from does not
                count any more then.

        Returns:
            Messages.

        Raises:
            RunError: Naming what is not as it was.
        """
        if not self.writes:
            return []
        recorded = origin(self.path)
        if recorded is None:
            self.write(ORIGIN, small_files.dumps(found, indent=2) + "\n")
            if not begun:
                return []
            return [
                "this run was begun by a version that did not record its data: from "
                f"now on {ORIGIN} does."
            ]
        changes = fingerprint.differences(recorded["data"], found["data"])
        for name in ("teacher",) if begun else ("teacher", "init_from"):
            there, here = (tree.get(name) or {} for tree in (recorded, found))
            if there != here:
                words = [
                    f"step {one['step']}" if one else "none" for one in (there, here)
                ]
                changes.append(f"{name}: {words[0]} then, {words[1]} now, other bits")
        if changes:
            listing = "".join(f"  {line}\n" for line in changes)
            raise errors.RunError(
                f"the run in {self.path} began with other data or networks:\n{listing}"
                "The rest of it would not fit its beginning. Put them back as they "
                "were, or take another --workdir."
            )
        return []

    def result(self) -> dict[str, Any] | None:
        """What a finished run has measured, or None.

        Raises:
            RunError: If the file is damaged.
        """
        return finished(self.path)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes `result.json`, which says that the run is done."""
        self.write(RESULT, small_files.dumps(result, indent=2) + "\n")


def absolute(path: str | os.PathLike[str]) -> pathlib.Path:
    """The folder that a workdir's name means."""
    return pathlib.Path(path).expanduser().absolute()


def check(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    *,
    upgrade: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> None:
    """Refuses a folder that belongs to another config; changes nothing.

    Raises:
        RunError: Naming the fields that differ.
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
    """The result of the run in a folder; None where there is none or no such folder.

    Raises:
        RunError: If the file is damaged.
    """
    return _read(absolute(path), RESULT, test_accuracy=float)


def origin(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What the run in a folder began with; None where that is not recorded.

    Raises:
        RunError: If the file is damaged.
    """
    return _read(absolute(path), ORIGIN, data=dict)


def problem(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What the run in a folder recorded of its problem; None of version 0.1.

    Raises:
        RunError: If the file is damaged.
    """
    return _read(absolute(path), PROBLEM, network=dict, num_train=int)


def read_lines(file: pathlib.Path) -> small_files.Lines:
    """The lines of `metrics.jsonl` or `layers.jsonl`.

    Raises:
        RunError: If the file cannot be read.
    """
    return small_files.read_lines(file, step=int)


def _read(folder: pathlib.Path, name: str, **needed: type) -> dict[str, Any] | None:
    file = folder / name
    if not file.exists():
        return None
    return small_files.read(file, cure=_CURES[name], **needed)


def _is_foreign(file: pathlib.Path) -> bool:
    """Whether a file is not one that a kill may leave before there is a config."""
    return file.name != LOCK and not file.match(f".{CONFIG}.*")


def _lock(path: pathlib.Path) -> int:
    """Takes the lock of a workdir; a descriptor that holds it while it is open.

    Raises:
        RunError: If another process has it.
    """
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
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
