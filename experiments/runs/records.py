"""Reads the files of a run's workdir, for reports.

Any of the files may be damaged, or written by another program. A file that is not JSON
is an error; a line or a number that makes no sense is left out, and `notes` say so.
"""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments import errors
from experiments.runs import identity, small_files, workdir
from experiments.runs.lines import EDGES

LARGEST = 1e100
"""Magnitude from which numbers are left out, since squares of larger ones overflow."""

ANSWERS = "answers.json"
"""The answers on the test split; see `experiments/training/answers.py`."""

_EPOCHS = 10**9
_BASE64 = re.compile(r"[A-Za-z0-9+/]+=*").fullmatch
_SIZES = ("one_bit_parameters", "real_parameters", "bytes", "float32_bytes")
_COUNTS = ("parameters", "bytes", "float32_bytes", "multiply_adds")

Points = tuple[list[int], list[float]]
"""Epochs and values."""


class Record(NamedTuple):
    """The contents of a run's workdir.

    Attributes:
        label: Name of the folder.
        config: Config of the run, as nested dicts.
        metrics: The good lines of `metrics.jsonl`.
        layers: The good lines of `layers.jsonl`; empty in full precision.
        sizes: `summary.json`; empty if there is none.
        answers: `answers.json`; empty if there is none.
        result: `result.json`; None while the run is not finished.
        notes: A sentence about each thing that was left out.
    """

    label: str
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    layers: list[dict[str, Any]]
    sizes: dict[str, Any]
    answers: dict[str, Any]
    result: dict[str, Any] | None
    notes: tuple[str, ...] = ()

    def curve(self, name: str, split: str = "train", scale: float = 1.0) -> Points:
        """Epochs and values of a metric."""
        return points(self.metrics, name, scale, split=split)

    def layer_curve(self, name: str, layer: str, scale: float = 1.0) -> Points:
        """Epochs and values of a metric of one layer."""
        return points(self.layers, name, scale, layer=layer)

    def histograms(self, layer: str) -> list[tuple[int, list[float]]]:
        """Epochs and histograms of the latents of a layer."""
        return [
            (line["epoch"], line["latents"])
            for line in self.layers
            if line["layer"] == layer and _is_histogram(line.get("latents"))
        ]

    @property
    def layer_names(self) -> list[str]:
        """Paths of the binary layers."""
        return list(dict.fromkeys(r["layer"] for r in self.layers))

    @property
    def milliseconds(self) -> Points:
        """Epochs, and the time of a step in each, in milliseconds."""
        epochs, speeds = self.curve("steps_per_second", "timing")
        found = [(e, 1000 / s) for e, s in zip(epochs, speeds, strict=True) if s > 1e-9]
        return [epoch for epoch, _ in found], [time for _, time in found]

    @property
    def fields(self) -> dict[str, Any]:
        """The config, with the options of its method, and the versions."""
        config = {k: v for k, v in self.config.items() if k not in _NOT_SHOWN}
        methods = config.pop("methods", None)
        name = str(config.get("method"))
        options = methods.get(name, {}) if isinstance(methods, Mapping) else {}
        fields = identity.flat({**config, "methods": {name: options}})
        versions = (self.result or {}).get("versions")
        shown = sorted(versions.items()) if isinstance(versions, Mapping) else []
        return dict(fields) | {f"version of {name}": value for name, value in shown}


_NOT_SHOWN = ("cache_dir", "data_dir")


def points(
    lines: Sequence[Mapping[str, Any]], name: str, scale: float = 1.0, **chosen: str
) -> Points:
    """Epochs and values of a name in lines of metrics, for a chart.

    Args:
        lines: Lines of `metrics.jsonl` or `layers.jsonl`.
        name: Name of the value.
        scale: Factor of the values.
        **chosen: Names and values that a line must also have.

    Returns:
        The values that are finite and below `LARGEST`, and their epochs.

    Example:
        >>> points([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": None}], "loss")
        ([1], [0.5])
    """
    found = [
        (line["epoch"], scale * line[name])
        for line in lines
        if is_number(line.get(name))
        and _is_epoch(line.get("epoch"))
        and all(line.get(key) == value for key, value in chosen.items())
    ]
    return [epoch for epoch, _ in found], [_flushed(value) for _, value in found]


def is_number(value: Any) -> bool:
    """Whether a value is a number that can be shown and computed with."""
    return type(value) in (int, float) and -LARGEST < value < LARGEST


def read(
    path: str | os.PathLike[str], *, result: Mapping[str, Any] | None = None
) -> Record:
    """Reads a workdir; the run may still be training.

    Args:
        path: The workdir.
        result: Result that replaces that of `result.json`.

    Raises:
        RunError: If it is not a workdir, a file in it is damaged, or it has no metrics
            yet.
    """
    folder = pathlib.Path(path).expanduser().absolute()
    if not (folder / workdir.CONFIG).exists():
        raise errors.RunError(
            f"{folder} is not the workdir of a run (it has no {workdir.CONFIG}): give "
            "the --workdir of experiments.main."
        )
    cure = "Give the --workdir of experiments.main, or remove the file."
    config = small_files.read(folder / workdir.CONFIG, cure=cure)
    found = {
        name: small_files.read(folder / f"{name}.json", cure=cure)
        for name in ("summary", "result", "answers")
        if (folder / f"{name}.json").exists()
    }
    metrics = small_files.read_lines(folder / workdir.METRICS, epoch=int, split=str)
    layers = small_files.read_lines(folder / workdir.LAYERS, epoch=int, layer=str)
    if not metrics.records:
        raise errors.RunError(
            f"the run in {folder} has no metrics yet: wait for the end of its first "
            "epoch."
        )
    notes = _bad_lines(workdir.METRICS, metrics.bad)
    notes += _bad_lines(workdir.LAYERS, layers.bad)
    sizes = found.get("summary", {})
    if sizes and not _is_summary(sizes):
        sizes, notes = {}, [*notes, "summary.json is damaged and is left out."]
    answers = found.get("answers", {})
    if answers and not _is_answers(answers):
        answers, notes = {}, [*notes, f"{ANSWERS} is damaged and is left out."]
    return Record(
        label=folder.name,
        config=config,
        metrics=metrics.records,
        layers=layers.records,
        sizes=sizes,
        answers=answers,
        result=dict(result) if result is not None else found.get("result"),
        notes=(*notes, *_odd_values([*metrics.records, *layers.records])),
    )


def _bad_lines(file: str, bad: Mapping[int, str]) -> list[str]:
    if not bad:
        return []
    numbers = ", ".join(map(str, list(bad)[:5])) + (", ..." if len(bad) > 5 else "")
    return [f"{len(bad)} lines of {file} cannot be read and are left out: {numbers}."]


def _odd_values(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """The notes about numbers that no chart can show."""
    odd = sum(
        not (is_number(value) or isinstance(value, str) or key == "latents")
        for line in lines
        for key, value in line.items()
    )
    lost = sum(not _is_epoch(line["epoch"]) for line in lines)
    notes = [f"{odd} values are not finite numbers and are left out."] if odd else []
    return notes + (
        [f"{lost} lines of impossible epochs are left out."] if lost else []
    )


def _is_epoch(value: Any) -> bool:
    return type(value) is int and 0 <= value < _EPOCHS


def _flushed(value: float) -> float:
    """Tiny numbers become 0, since a chart cannot divide by them."""
    return value if abs(value) > 1 / LARGEST else 0.0


def _is_histogram(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == len(EDGES) - 1
        and all(is_number(count) and count >= 0 for count in value)
    )


def _is_summary(found: Mapping[str, Any]) -> bool:
    """Whether a value has the contents for the tables of sizes."""

    def counts(names: Sequence[str], where: Any) -> bool:
        return isinstance(where, Mapping) and all(
            type(where.get(name)) is int and where[name] >= 0 for name in names
        )

    rows = found.get("rows")
    return (
        counts((*_SIZES, "activation_multiply_adds"), found)
        and isinstance(found.get("notes"), list)
        and isinstance(rows, list)
        and all(
            counts(_COUNTS, row)
            and isinstance(row.get("path"), str)
            and isinstance(row.get("shape"), list)
            and isinstance(row.get("one_bit"), bool)
            for row in rows
        )
    )


def _is_answers(found: Mapping[str, Any]) -> bool:
    """Whether a value has the contents for a matrix and pictures of wrong answers."""
    samples = found.get("samples")
    if not isinstance(samples, list) or not all(map(_is_sample, samples)):
        return False
    if "confusion" not in found:
        return True
    names, rows = found.get("class_names"), found["confusion"]
    if not isinstance(names, list) or not isinstance(rows, list):
        return False
    return 0 < len(names) == len(rows) and all(
        isinstance(row, list)
        and len(row) == len(rows)
        and all(type(count) is int and 0 <= count < LARGEST for count in row)
        for row in rows
    )


def _is_sample(found: Any) -> bool:
    if not isinstance(found, Mapping) or not is_number(found.get("confidence")):
        return False
    names = (found.get("truth"), found.get("answer"))
    picture = found.get("png")
    return all(isinstance(name, str) for name in names) and (
        picture is None or (isinstance(picture, str) and bool(_BASE64(picture)))
    )
