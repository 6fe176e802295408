"""The small files of a run: JSON that is written as a whole, and checked when read.

A kill, a full disk or an edit may damage any of them. A file that cannot be used is an
error that names it and says what to do. A line that cannot be used is reported and left
out; later lines are used. NaN and infinity, which are not JSON, are written as null.
"""

import json
import math
import os
import pathlib
import reprlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from adaste_jax import export
from experiments import errors

_LARGEST = 2**63


class Lines(NamedTuple):
    """The contents of a line file.

    Attributes:
        records: The objects of the good lines.
        bad: The other lines unchanged, by their number from 1. A last line that a kill
            has cut short is not included.
    """

    records: list[dict[str, Any]]
    bad: dict[int, str]


def write(path: str | os.PathLike[str], text: str) -> None:
    """Replaces a file as a whole, or leaves it unchanged.

    Undecodable bytes of file names are written as escapes.

    Raises:
        OSError: If the file cannot be written.
    """
    export.write_file(path, text.encode("utf-8", "backslashreplace"))


def dumps(value: Any, *, indent: int | None = None) -> str:
    """JSON of a value; numbers that are not finite become null.

    Keys keep their order, except with `indent`, which is for files that people read.
    """
    return json.dumps(
        _finite(value), indent=indent, sort_keys=indent is not None, allow_nan=False
    )


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a value as JSON that people can read; see `write` and `dumps`."""
    write(path, dumps(value, indent=2) + "\n")


def read(path: str | os.PathLike[str], *, cure: str, **needed: type) -> dict[str, Any]:
    """The JSON object of a file.

    Args:
        path: The file.
        cure: A sentence that says what to do if the file is damaged.
        **needed: Names that the object must have, and the type of each.

    Returns:
        The object; numbers beyond the range of JSON readers are None.

    Raises:
        RunError: If the file cannot be read, is not a JSON object, or a name is missing
            or has a wrong type.
    """
    path = pathlib.Path(path)
    try:
        if not path.is_file():
            raise FileNotFoundError("there is no such file")
        found = _loads(path.read_text("utf-8"))
        _check(found, needed)
    except (OSError, ValueError, RecursionError) as error:
        broken = isinstance(error, json.JSONDecodeError | UnicodeDecodeError)
        reason = f"it is not JSON ({error})" if broken else str(error)
        raise errors.RunError(f"cannot read {path}: {reason}. {cure}") from error
    return found


def read_lines(path: str | os.PathLike[str], **needed: type) -> Lines:
    """The JSON objects of a file, one per line; empty if there is no file.

    Args:
        path: The file.
        **needed: Names that every object must have, and the type of each.

    Raises:
        RunError: If the file cannot be read.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return Lines([], {})
    try:
        if not path.is_file():
            raise OSError("it is not a regular file")
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise errors.RunError(f"cannot read {path}: {error}.") from error
    records, bad = [], {}
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        try:
            found = _loads(line)
            _check(found, needed)
            records.append(found)
        except (ValueError, RecursionError):
            if line.strip() and number < len(lines):  # the last has no end: cut short
                bad[number] = line
    return Lines(records, bad)


def _loads(text: str) -> Any:
    """JSON whose numbers are all finite, or None."""

    def number(text: str) -> float | None:
        value = float(text)
        return value if math.isfinite(value) else None

    def whole(text: str) -> int | None:
        value = int(text) if len(text) < 25 else _LARGEST
        return value if abs(value) < _LARGEST else None

    return json.loads(
        text, parse_float=number, parse_int=whole, parse_constant=lambda name: None
    )


def _check(found: Any, needed: Mapping[str, type]) -> None:
    """Checks that a value is an object with these names.

    Raises:
        ValueError: If it is not. The message says what was expected and what was found.
    """
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON object, found {reprlib.repr(found)}")
    for name, kind in needed.items():
        value = found.get(name)
        if isinstance(value, bool) or not isinstance(value, kind):
            raise ValueError(
                f"expected {name!r} to be of type {kind.__name__}, found "
                f"{reprlib.repr(value) if name in found else 'nothing'}"
            )


def _finite(value: Any) -> Any:
    """The value with floats that are not finite replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
