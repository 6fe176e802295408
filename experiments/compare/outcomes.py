"""Where the outcomes of trials are kept, so that none is trained twice."""

import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from experiments import errors
from experiments.compare import search, trials
from experiments.runs import identity, small_files, workdir

_MEASURED = ("accuracy", "loss")


class Kept(Protocol):
    """The outcomes of one row of a comparison."""

    def claim(self, own: Mapping[str, Any]) -> None:
        """Checks that what is kept belongs to this method with these options.

        Raises:
            RunError: If it belongs to others.
        """

    def find(
        self, trial: trials.Trial, options: search.Options, split: str
    ) -> dict[str, Any] | None:
        """The outcome of a trial; None if it is not there."""

    def keep(
        self,
        trial: trials.Trial,
        options: search.Options,
        split: str,
        outcome: dict[str, Any],
    ) -> dict[str, Any]:
        """Keeps an outcome, and returns it: a failure if it is not finite."""


class Folder:
    """A folder with a file for each trial."""

    def __init__(self, path: pathlib.Path):
        """Makes nothing yet."""
        self._path = path

    def claim(self, own: Mapping[str, Any]) -> None:
        """See `Kept`."""
        workdir.Workdir(self._path, own, upgrade=_upgraded)

    def find(
        self, trial: trials.Trial, options: search.Options, split: str
    ) -> dict[str, Any] | None:
        """See `Kept`.

        Raises:
            RunError: If the file is damaged.
        """
        file = self._file(trial, options, split)
        return _read(file) if file.exists() else None

    def keep(
        self,
        trial: trials.Trial,
        options: search.Options,
        split: str,
        outcome: dict[str, Any],
    ) -> dict[str, Any]:
        """See `Kept`."""
        outcome = _finite(outcome)
        small_files.write_json(self._file(trial, options, split), outcome)
        return outcome

    def _file(
        self, trial: trials.Trial, options: search.Options, split: str
    ) -> pathlib.Path:
        parts = [f"{split}-seed{trial.seed}-{trial.learning_rate:.6g}"]
        parts += [f"{name}={value}" for name, value in options]
        return self._path / ("-".join(parts) + ".json")


class Lines:
    """Outcomes of the rows of several comparisons in one file, a line for each.

    Attributes:
        path: The file.
        records: Its lines.
        on_append: Called with each new line, when it is on the disk.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Reads the file; what a kill has cut short is removed from it.

        Raises:
            RunError: If the file cannot be read, or a line of it is damaged.
        """
        self.path = pathlib.Path(path)
        self.on_append: Callable[[dict[str, Any]], None] = lambda record: None
        kinds = {"split": str, "seed": int, "learning_rate": float, "options": dict}
        found = small_files.read_lines(self.path, **kinds)
        if found.bad:
            raise errors.RunError(
                f"cannot read {self.path}: line {next(iter(found.bad))} is not an "
                "outcome. Restore or remove it; a trial without a line is trained "
                "again."
            )
        self.records = found.records
        if self.path.exists() and not self.path.read_bytes().endswith(b"\n"):
            lines = "".join(small_files.dumps(one) + "\n" for one in self.records)
            small_files.write(self.path, lines)

    def of(self, **head: Any) -> "LinesOfRow":
        """The lines of one row, which all begin with these fields."""
        return LinesOfRow(self, head)

    def append(self, record: dict[str, Any]) -> None:
        """Adds a line, which is on the disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(small_files.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.records.append(record)
        self.on_append(record)


class LinesOfRow:
    """The lines of one row in a file of lines."""

    def __init__(self, lines: Lines, head: Mapping[str, Any]):
        """A view of a file."""
        self._lines, self._head = lines, dict(head)
        self._begun = time.monotonic()

    def claim(self, own: Mapping[str, Any]) -> None:
        """See `Kept`: nothing, since the fields of the head say what a line is of."""

    def find(
        self, trial: trials.Trial, options: search.Options, split: str
    ) -> dict[str, Any] | None:
        """See `Kept`."""
        wanted = self._record(trial, options, split)
        for record in self._lines.records:
            if all(record.get(name) == value for name, value in wanted.items()):
                return record
        return None

    def keep(
        self,
        trial: trials.Trial,
        options: search.Options,
        split: str,
        outcome: dict[str, Any],
    ) -> dict[str, Any]:
        """See `Kept`. Of the flips, those of the first and last epoch are kept.

        `seconds` is the time since the row was opened, or since its last line.
        """
        seconds = round(time.monotonic() - self._begun, 1)
        self._begun = time.monotonic()
        outcome = {**_finite(outcome), "seconds": seconds}
        flips = outcome.get("flips_per_epoch")
        if flips:
            outcome = {**outcome, "flips_per_epoch": [flips[0], flips[-1]]}
        record = self._record(trial, options, split) | {
            name: _short(value) for name, value in outcome.items()
        }
        self._lines.append(record)
        return record

    def _record(
        self, trial: trials.Trial, options: search.Options, split: str
    ) -> dict[str, Any]:
        rate = float(f"{trial.learning_rate:.6g}")
        found = {"split": split, "seed": trial.seed, "learning_rate": rate}
        return {**self._head, **found, "options": dict(options)}


def _short(value: Any) -> Any:
    """Numbers with six digits, which are more than two runs have in common."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return [_short(one) for one in value] if isinstance(value, list) else value


def _upgraded(found: Mapping[str, Any]) -> dict[str, Any]:
    """The method and options in the file of a row; new options have their defaults."""
    method = found.get("method")
    stored = {"method": method, "methods": {method: found.get("options", {})}}
    config = identity.config_of(stored)
    if method not in config.methods:
        raise ValueError(f"it names no method, but {method!r}")
    return {"method": method, "options": config.methods[method].to_dict()}


def _finite(outcome: dict[str, Any]) -> dict[str, Any]:
    """An outcome; a failure if a measured value is not a finite number."""
    for name in _MEASURED:
        value = outcome.get(name)
        if "failure" not in outcome and not (value is not None and np.isfinite(value)):
            return {
                "failure": f"the {name} is {value}",
                "bytes_per_weight": outcome["bytes_per_weight"],
            }
    return outcome


def _read(file: pathlib.Path) -> dict[str, Any]:
    """Reads an outcome from a folder.

    Raises:
        RunError: If the file is damaged.
    """
    cure = "Remove the file; the same command then trains the trial again."
    found = small_files.read(file, cure=cure, bytes_per_weight=float)
    if "failure" in found:
        return {**found, "failure": str(found["failure"])}
    kinds = dict.fromkeys((*_MEASURED, "seconds_per_epoch"), float)
    found = small_files.read(file, cure=cure, **kinds)
    flips = found.get("flips_per_epoch", [0.0])
    if not isinstance(flips, list) or not all(type(one) is float for one in flips):
        raise errors.RunError(
            f"cannot read {file}: 'flips_per_epoch' is not a list of numbers. {cure}"
        )
    return found
