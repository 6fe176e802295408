"""Curves and histograms of a run, as PNG files."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.report import figures
from experiments.report.figures import COLOURS
from experiments.runs.records import points

_SPLITS = {"train": "blue", "validation": "vermillion", "test": "green"}
_MARKED = {"marker": "o", "markersize": 3}
_SIZE = (10.0, 4.0)


def draw_all(
    folder: pathlib.Path,
    records: Sequence[Mapping[str, Any]],
    latents: Mapping[str, np.ndarray],
) -> None:
    """Draws `curves.png`, `flips.png` and `latents.png`, each if there are data.

    Args:
        folder: Folder for the PNG files; it is created.
        records: The lines of `metrics.jsonl`.
        latents: Latent kernels by path.
    """
    folder.mkdir(exist_ok=True)
    _curves(folder / "curves.png", records)
    if points(records, "flips_per_epoch")[0]:
        _flips(folder / "flips.png", records)
    if latents:
        _latents(folder / "latents.png", latents)


def _curves(path: pathlib.Path, records: Sequence[Mapping[str, Any]]) -> None:
    figure, (left, right) = figures.panels(1, 2, _SIZE)
    for split, colour in _SPLITS.items():
        losses = points(records, "loss", split=split)
        accuracies = points(records, "accuracy", 100, split=split)
        for axis, found in ((left, losses), (right, accuracies)):
            if found[0]:
                axis.plot(*found, color=COLOURS[colour], label=split, **_MARKED)
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)", title="Loss")
    right.set(xlabel="epoch", ylabel="accuracy (%)", title="Accuracy")
    if right.lines:
        right.legend(title="training: soft weights,\nothers: deployed weights")
    figures.save(figure, path)


def _flips(path: pathlib.Path, records: Sequence[Mapping[str, Any]]) -> None:
    figure, (left, right) = figures.panels(1, 2, _SIZE)
    flips = points(records, "flips_per_epoch", 100)
    left.plot(*flips, color=COLOURS["blue"], **_MARKED)
    left.set(
        xlabel="epoch",
        ylabel="weights of another sign (%)",
        title="Flips from one epoch to the next",
        ylim=(0, None),
    )
    for name, colour in (("saturated", "blue"), ("zero_gradient", "vermillion")):
        share = points(records, name, 100)
        label = name.replace("_", " ")
        right.plot(*share, color=COLOURS[colour], label=label, **_MARKED)
    right.set(xlabel="epoch", ylabel="weights (%)", title="Saturation", ylim=(0, 101))
    right.legend()
    figures.save(figure, path)


def _latents(path: pathlib.Path, latents: Mapping[str, np.ndarray]) -> None:
    columns = min(4, len(latents))
    rows = -(-len(latents) // columns)
    size = (3 * columns, 2.2 * rows)
    figure, axes = figures.panels(rows, columns, size, squeeze=False)
    for axis in axes.flat:
        axis.set_visible(False)
    for axis, (name, kernel) in zip(axes.flat, latents.items(), strict=False):
        values = np.asarray(kernel, np.float64).ravel()
        values = values[np.isfinite(values)]
        scale = (np.sqrt(np.mean(values**2)) if values.size else 0.0) or 1.0
        axis.set_visible(True)
        axis.hist(values / scale, bins=np.linspace(-4, 4, 81), color=COLOURS["blue"])
        axis.set_title(name, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.set_yticks([])
    figure.supxlabel("latent / root mean square of its layer")
    figure.supylabel("latents")
    figures.save(figure, path)
