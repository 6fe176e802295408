"""What a run leaves behind: config, metrics, result; safe against a kill."""

import json
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

from experiments import errors

# Where data lies does not change what is computed from it.
FREE_FIELDS = ("cache_dir", "data_dir")


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Replaces a file as a whole, or leaves it as it was."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise


class Workdir:
    """A folder that belongs to one config.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: str | os.PathLike[str], config: Mapping[str, Any]):
        """Makes the folder, or checks that what stands there is of this config.

        Raises:
            RunError: If it belongs to another config, or cannot be written.
        """
        self.path = pathlib.Path(path).expanduser().absolute()
        text = json.dumps(config, indent=2, sort_keys=True, default=str) + "\n"
        wanted = json.loads(text)
        file = self.path / "config.json"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if file.exists():
                _check_same(json.loads(file.read_text("utf-8")), wanted, self.path)
            elif any(self.path.iterdir()):
                raise errors.RunError(
                    f"{self.path} holds files but no config.json, so it is not a "
                    "workdir of this program. Choose another --workdir."
                )
            else:
                write_atomically(file, text)
        except OSError as error:
            raise errors.RunError(
                f"cannot use {self.path} as a workdir: {error}. Choose another "
                "--workdir."
            ) from error
        except json.JSONDecodeError as error:
            raise errors.RunError(
                f"{file} is not JSON ({error}), so the config that this workdir "
                "belongs to is unknown. Choose another --workdir."
            ) from error

    @property
    def metrics_file(self) -> pathlib.Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds a line to `metrics.jsonl`."""
        with open(self.metrics_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """All lines of `metrics.jsonl`; a last line cut short by a kill is left out."""
        if not self.metrics_file.exists():
            return []
        records = []
        for line in self.metrics_file.read_text("utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return records

    def rewind(self, step: int) -> None:
        """Drops the metrics after `step`, which a resumed run will write again."""
        kept = [record for record in self.records() if record["step"] <= step]
        lines = [json.dumps(record) + "\n" for record in kept]
        write_atomically(self.metrics_file, "".join(lines))

    def result(self) -> dict[str, Any] | None:
        """What a finished run has measured, or None."""
        file = self.path / "result.json"
        return json.loads(file.read_text("utf-8")) if file.exists() else None

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes `result.json`, which says that the run is done."""
        text = json.dumps(result, indent=2, sort_keys=True) + "\n"
        write_atomically(self.path / "result.json", text)


def _check_same(
    found: Mapping[str, Any], wanted: Mapping[str, Any], path: pathlib.Path
) -> None:
    found, wanted = dict(_flat(found)), dict(_flat(wanted))
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


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((prefix + name, value))
    return pairs
