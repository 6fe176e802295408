"""What a run has left in its workdir, read to be shown."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments import errors, workdir


class Record(NamedTuple):
    """What a workdir says of its run.

    Attributes:
        label: Name of the folder.
        config: As nested dicts.
        metrics: The lines of `metrics.jsonl`.
        layers: The lines of `layers.jsonl`; empty in full precision.
        sizes: `summary.json`; empty where there is none.
        result: `result.json`; None while the run is not finished.
    """

    label: str
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    layers: list[dict[str, Any]]
    sizes: dict[str, Any]
    result: dict[str, Any] | None

    def curve(
        self, name: str, split: str = "train", scale: float = 1.0
    ) -> tuple[list[int], list[float]]:
        """Epochs and values of a metric."""
        found = [r for r in self.metrics if r["split"] == split and name in r]
        return [r["epoch"] for r in found], [scale * r[name] for r in found]

    def layer_curve(
        self, name: str, layer: str, scale: float = 1.0
    ) -> tuple[list[int], list[float]]:
        """Likewise, of one layer."""
        found = [r for r in self.layers if r["layer"] == layer and name in r]
        return [r["epoch"] for r in found], [scale * r[name] for r in found]

    @property
    def layer_names(self) -> list[str]:
        """Paths of the binary layers."""
        return list(dict.fromkeys(r["layer"] for r in self.layers))

    @property
    def milliseconds(self) -> tuple[list[int], list[float]]:
        """Epochs, and what a step took in them."""
        epochs, speeds = self.curve("steps_per_second", "timing")
        return epochs, [1000 / speed for speed in speeds]

    @property
    def fields(self) -> dict[str, Any]:
        """The config, with options of the method that was used, and the versions."""
        config = dict(self.config)
        for name in workdir.FREE_FIELDS:
            config.pop(name, None)
        methods = config.pop("methods", {})
        options = {config["method"]: methods.get(config["method"], {})}
        fields = workdir.flat({**config, "methods": options})
        versions = sorted((self.result or {}).get("versions", {}).items())
        return dict(fields) | {f"version of {name}": value for name, value in versions}


def read(
    path: str | os.PathLike[str], *, result: Mapping[str, Any] | None = None
) -> Record:
    """Reads a workdir; the run may still be under way.

    Args:
        path: The workdir.
        result: In place of `result.json`.

    Raises:
        RunError: If it is not a workdir, or nothing is in it yet.
    """
    folder = pathlib.Path(path).expanduser().absolute()
    try:
        config = json.loads((folder / workdir.CONFIG).read_text("utf-8"))
        found = {
            name: json.loads((folder / f"{name}.json").read_text("utf-8"))
            for name in ("summary", "result")
            if (folder / f"{name}.json").exists()
        }
    except (OSError, ValueError) as error:
        raise errors.RunError(
            f"{folder} is not the workdir of a run ({error}): give the --workdir of "
            "experiments.main."
        ) from error
    metrics = workdir.read_lines(folder / workdir.METRICS)
    if not metrics:
        raise errors.RunError(
            f"the run in {folder} has no metrics yet: wait for the end of its first "
            "epoch."
        )
    return Record(
        label=folder.name,
        config=config,
        metrics=metrics,
        layers=workdir.read_lines(folder / workdir.LAYERS),
        sizes=found.get("summary", {}),
        result=dict(result) if result is not None else found.get("result"),
    )
