"""Charts as SVG inside a page: no scripts, real text, the colours of the page."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.report import figures
from experiments.report.figures import COLOURS, STYLES

# In units of the view box, which on a phone of 360 pixels are about a pixel each.
WIDTH = 330
HEIGHT = 200
ROW = 17  # of a legend
RIDGE = 20
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 18, 36
WRITTEN, NAMED = 12, 20
"""Largest numbers of classes with shares in their cells, and with names."""


class Line(NamedTuple):
    """One curve of a chart.

    Attributes:
        label: Label in the legend.
        x: Epochs.
        y: Values, one for each epoch.
        style: Index into `STYLES`, so that a name looks the same in all charts.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: int


def lines(
    name: str,
    curves: Sequence[Line],
    *,
    xlabel: str = "epoch",
    limits: tuple[float | None, float | None] = (None, None),
    markers: bool = True,
) -> str:
    """Draws curves, with a legend below that has their last values.

    Args:
        name: Name of the chart, unique on the page.
        curves: The curves, at most as many as `STYLES`.
        xlabel: Label of the horizontal axis.
        limits: Limits of the vertical axis; None follows the data.
        markers: Whether some of the points have markers.

    Returns:
        An `svg` element.
    """
    with figures.page_style():
        figure, axes = _axes(HEIGHT, ROW * len(curves))
        for curve in curves:
            axes.plot(
                curve.x,
                curve.y,
                **(STYLES[curve.style] | ({} if markers else {"marker": ""})),
                label=figures.plain(curve.label),
                linewidth=1.6,
                markersize=4 if len(curve.x) > 1 else 8,
                markevery=max(1, math.ceil(len(curve.x) / 8)),
            )
        axes.set_xlabel(xlabel)
        axes.set_ylim(*limits)
        if limits[0] == 0 and not any(map(max, (curve.y for curve in curves))):
            axes.set_ylim(0, 1)
        if xlabel == "epoch":
            axes.set_xlim(0, 1.03 * max(1, *(max(curve.x) for curve in curves)))
            figures.whole_numbers(axes, 6)
        axes.grid(axis="y")
        figure.legend(
            loc="lower left",
            bbox_to_anchor=(0, 0),
            frameon=False,
            handlelength=3.2,
            borderaxespad=0,
            borderpad=0.3,
            labelspacing=(ROW - 11) / 11,
        )
        return figures.svg(figure, name)


def ridges(
    name: str, rows: Sequence[tuple[str, Sequence[int]]], edges: np.ndarray, xlabel: str
) -> str:
    """Draws histograms below each other, each to its own height, the last lowest.

    Args:
        name: Name of the chart, unique on the page.
        rows: Label and counts of each histogram.
        edges: Edges of the bins.
        xlabel: Label of the horizontal axis.

    Returns:
        An `svg` element.
    """
    blue = COLOURS["blue"]
    with figures.page_style():
        figure, axes = _axes(BOTTOM + TOP + RIDGE * (len(rows) + 0.3), 0)
        positions = -np.arange(len(rows), dtype=float)
        for at, (_, counts) in zip(positions, rows, strict=True):
            share = np.asarray(counts, float)
            top = at + 1.2 * share / max(share.max(), 1.0)
            axes.stairs(top, edges, baseline=at, fill=True, color=COLOURS["paper"])
            axes.stairs(top, edges, baseline=at, fill=True, color=blue, alpha=0.35)
            axes.stairs(top, edges, baseline=None, color=blue, linewidth=1)
        axes.set(xlabel=xlabel, ylim=(positions[-1] - 0.05, 1.25), xlim=edges[[0, -1]])
        axes.set_yticks(positions, [label for label, _ in rows])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.axvline(0, color=COLOURS["ink"], linewidth=0.8, linestyle=":", zorder=10)
        return figures.svg(figure, name)


def matrix(name: str, counts: np.ndarray, labels: Sequence[str]) -> str:
    """Draws a confusion matrix: the share of each answer in its row.

    Args:
        name: Name of the chart, unique on the page.
        counts: Number of images by true class (rows) and answer (columns).
        labels: Names of the classes. Few are written at the axes, with the shares in
            percent in the cells; of more than `NAMED` classes the numbers are.

    Returns:
        An `svg` element.
    """
    size = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    named = size <= NAMED
    with figures.page_style():
        side = WIDTH - LEFT - RIGHT
        figure, axes = _axes(side + TOP + BOTTOM, LEFT if named else 0)
        cells = np.zeros((size, size, 4))
        cells[..., :3] = np.array([43, 140, 196]) / 255  # reads on light and dark
        cells[..., 3] = 0.7 * shares**0.5
        axes.imshow(cells, interpolation="none", aspect="auto")
        axes.set(xlabel="answer", ylabel=None if named else "true class")
        if named:
            texts = [figures.plain(_short(label)) for label in labels]
            upright = max(map(len, texts)) <= 2
            axes.set_xticks(range(size), texts, rotation=0 if upright else 90)
            axes.set_yticks(range(size), texts)
            axes.tick_params(length=0, labelsize=10)
        else:
            figures.whole_numbers(axes, 6)
        for row, column in np.argwhere(counts) if size <= WRITTEN else ():
            share = 100 * shares[row, column]
            label = f"{share:.0f}" if share >= 0.5 else "·"
            axes.text(column, row, label, ha="center", va="center")
        return figures.svg(figure, name)


def _short(label: str, most: int = 8) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def _axes(height: float, legend: float) -> tuple[Any, Any]:
    """Axes and a legend below them, with the given heights."""
    height += legend
    figure = figures.blank((WIDTH / 72, height / 72))
    return figure, figure.add_axes(_place(height, legend + BOTTOM))


def _place(height: float, below: float) -> tuple[float, float, float, float]:
    """The rectangle of axes in a figure of that height, with that much below them."""
    return (
        LEFT / WIDTH,
        below / height,
        (WIDTH - LEFT - RIGHT) / WIDTH,
        (height - below - TOP) / height,
    )
