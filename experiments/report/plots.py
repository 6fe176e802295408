"""Curves and histograms of a run, as PNG."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib import ticker

from experiments.report import charts
from experiments.runs.records import points

COLOURS = {
    "train": charts.COLOURS["blue"],
    "validation": charts.COLOURS["vermillion"],
    "test": charts.COLOURS["green"],
}


def draw_all(
    folder: pathlib.Path,
    records: Sequence[Mapping[str, Any]],
    latents: Mapping[str, np.ndarray],
) -> None:
    """Draws `curves.png`, `flips.png` and `latents.png`, each where there is data.

    Args:
        folder: Where the pictures go; it is made.
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
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for split, colour in COLOURS.items():
        losses = points(records, "loss", split=split)
        accuracies = points(records, "accuracy", 100, split=split)
        style = {"color": colour, "label": split, "marker": "o", "markersize": 3}
        for axis, found in ((left, losses), (right, accuracies)):
            if found[0]:
                axis.plot(*found, **style)
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)", title="Loss")
    right.set(xlabel="epoch", ylabel="accuracy (%)", title="Accuracy")
    if right.lines:
        right.legend(title="training: soft weights,\nothers: deployed weights")
    _finish(figure, path)


def _flips(path: pathlib.Path, records: Sequence[Mapping[str, Any]]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    flips = points(records, "flips_per_epoch", 100)
    left.plot(*flips, color="#0072B2", marker="o", markersize=3)
    left.set(
        xlabel="epoch",
        ylabel="weights of another sign (%)",
        title="Flips from one epoch to the next",
        ylim=(0, None),
    )
    for name, colour in (("saturated", "#0072B2"), ("zero_gradient", "#D55E00")):
        label = name.replace("_", " ")
        share = points(records, name, 100)
        right.plot(*share, color=colour, label=label, marker="o", markersize=3)
    right.set(xlabel="epoch", ylabel="weights (%)", title="Saturation", ylim=(0, 101))
    right.legend()
    _finish(figure, path)


def _latents(path: pathlib.Path, latents: Mapping[str, np.ndarray]) -> None:
    columns = min(4, len(latents))
    rows = -(-len(latents) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(3 * columns, 2.2 * rows),
        layout="constrained",
        squeeze=False,
    )
    for axis in axes.flat:
        axis.set_visible(False)
    for axis, (name, kernel) in zip(axes.flat, latents.items(), strict=False):
        values = np.asarray(kernel, np.float64).ravel()
        values = values[np.isfinite(values)]
        scale = (np.sqrt(np.mean(values**2)) if values.size else 0.0) or 1.0
        axis.set_visible(True)
        axis.hist(values / scale, bins=np.linspace(-4, 4, 81), color="#0072B2")
        axis.set_title(name, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.set_yticks([])
    figure.supxlabel("latent / root mean square of its layer")
    figure.supylabel("latents")
    _finish(figure, path)


def _finish(figure: Any, path: pathlib.Path) -> None:
    for axis in figure.axes:
        if axis.get_xlabel() == "epoch":
            axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    figure.savefig(path, dpi=120)
    plt.close(figure)
