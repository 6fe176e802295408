"""Reads documents from files of text.

A document is a `.txt` file, a line of a `.jsonl` file (a text, or an object with
`text`), or a row of a `.parquet` or `.arrow` file (its column `text`, as the libraries
of Hugging Face write it).
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

from experiments import errors

SUFFIXES = (".arrow", ".jsonl", ".parquet", ".txt")
"""Endings of files with text, in lower case."""

_ROWS = 256


def of(path: str) -> Iterator[bytes]:
    """The documents of a file that are not empty, as bytes in UTF-8.

    Args:
        path: A file with one of the endings in `SUFFIXES`.

    Raises:
        RunError: If the file cannot be read, or holds something else.
    """
    read = {".txt": _whole, ".jsonl": _lines}.get(pathlib.Path(path).suffix.lower())
    try:
        for document in (read or _rows)(path):
            stripped = document.strip("\n")
            if stripped:
                yield stripped.encode()
    except errors.RunError:
        raise
    except UnicodeError as error:
        raise errors.RunError(
            f"cannot read {path}: it is not text in UTF-8 ({error}). Convert it, or "
            "take it away."
        ) from error
    except (OSError, ValueError) as error:
        raise errors.RunError(f"cannot read {path}: {error}") from error


def _whole(path: str) -> Iterator[str]:
    yield pathlib.Path(path).read_bytes().decode("utf-8-sig").replace("\r\n", "\n")


def _lines(path: str) -> Iterator[str]:
    with open(path, encoding="utf-8-sig") as opened:
        for number, line in enumerate(opened, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except json.JSONDecodeError as error:
                raise errors.RunError(
                    f"line {number} of {path} is not JSON: {error}"
                ) from error
            document = found.get("text") if isinstance(found, dict) else found
            if not isinstance(document, str):
                raise errors.RunError(
                    f"line {number} of {path} must be a text, or an object with a text "
                    'under "text".'
                )
            yield document


def _rows(path: str) -> Iterator[str]:
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise errors.RunError(f"{path} needs pyarrow: pip install pyarrow") from error
    if path.lower().endswith(".arrow"):
        with pyarrow.memory_map(path) as opened:
            try:
                batches = pyarrow.ipc.open_stream(opened)
            except pyarrow.ArrowInvalid:
                opened = pyarrow.ipc.open_file(opened)
                batches = (
                    opened.get_batch(i) for i in range(opened.num_record_batches)
                )
            yield from _column(batches, path)
        return
    with pyarrow.parquet.ParquetFile(path) as file:
        columns = ["text"] if "text" in file.schema_arrow.names else None
        batches = file.iter_batches(batch_size=_ROWS, columns=columns)
        yield from _column(batches, path)


def _column(batches: Any, path: str) -> Iterator[str]:
    for batch in batches:
        names = batch.schema.names
        if "text" not in names:
            raise errors.RunError(
                f"{path} has no column 'text'; it has {', '.join(names)}."
            )
        for document in batch.column("text").to_pylist():
            if not isinstance(document, str | None):
                raise errors.RunError(f"the column 'text' of {path} holds no text.")
            yield document or ""
