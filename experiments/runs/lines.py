"""The line files of a workdir: metrics of each epoch, and of each binary layer."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from experiments.runs import small_files

METRICS = "metrics.jsonl"
"""A line for each epoch and split: numbers by name."""

LAYERS = "layers.jsonl"
"""A line for each epoch and binary layer; see `training/layers.py`."""

EDGES = np.linspace(-4, 4, 41)
"""Edges of the histograms in `layers.jsonl`, in units of the root mean square."""


def dumps(records: Iterable[Mapping[str, Any]]) -> str:
    """The text of records, one a line."""
    return "".join(small_files.dumps(record) + "\n" for record in records)


def read(file: pathlib.Path) -> small_files.Lines:
    """The lines of `metrics.jsonl` or `layers.jsonl`.

    Raises:
        RunError: If the file cannot be read.
    """
    return small_files.read_lines(file, step=int)


def until(records: Iterable[Mapping[str, Any]], step: int) -> list[Mapping[str, Any]]:
    """The records up to a step, without those of the test, which comes last."""
    return [
        record
        for record in records
        if record["step"] <= step and record.get("split") != "test"
    ]


def put_aside(file: pathlib.Path, bad: Mapping[int, str]) -> str:
    """Moves lines that cannot be read to a separate file, and says so.

    Args:
        file: The file with the lines.
        bad: The lines by their numbers.

    Raises:
        OSError: If the lines cannot be written.
    """
    aside = file.with_name(f"damaged_{file.name}")
    with open(aside, "a", encoding="utf-8", errors="replace") as out:
        out.writelines(f"{line}\n" for line in bad.values())
    numbers = ", ".join(map(str, list(bad)[:10]))
    return (
        f"{len(bad)} lines of {file.name} cannot be read (lines {numbers}) and were "
        f"moved to {aside.name}; the others are kept."
    )
