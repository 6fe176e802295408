"""Charts as SVG inside a page: no script, text that stays text, colours of the page.

Drawn by matplotlib. What it writes is a file of its own, with black text, ids that
repeat from chart to chart and links to namespaces. `_inline` makes it part of a page:
colours become variables of its style sheet, so that it follows dark mode, and the
fonts are those of the page.
"""

import io
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib import figure, ticker

# Okabe and Ito's palette, in an order in which neighbours differ in lightness too; the
# style sheet has a shade of each for light and for dark pages. The foreground is last.
COLOURS = {
    "blue": "#0072b2",
    "vermillion": "#d55e00",
    "green": "#009e73",
    "purple": "#cc79a7",
    "orange": "#e69f00",
    "sky": "#56b4e9",
    "ink": "#000001",
    "grid": "#000002",
    "paper": "#000003",
}
STYLES = tuple(
    {"color": COLOURS[name], "linestyle": line, "marker": marker}
    for name, line, marker in (
        ("blue", "-", "o"),
        ("vermillion", "--", "s"),
        ("green", "-.", "^"),
        ("purple", ":", "D"),
        ("orange", (0, (5, 1)), "v"),
        ("sky", (0, (3, 1, 1, 1)), "P"),
        ("ink", "-", "X"),
    )
)

_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "chart",  # ids are hashes; without it they change every time
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.edgecolor": COLOURS["ink"],
    "xtick.color": COLOURS["ink"],
    "ytick.color": COLOURS["ink"],
    "grid.color": COLOURS["grid"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-3, 5),  # beyond, a power of ten stands above the axis
}

# In units of the view box, which on a phone of 360 pixels are about a pixel each.
WIDTH = 330
HEIGHT = 200
ROW = 17  # of a legend
RIDGE = 20
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 18, 36


class Line(NamedTuple):
    """One curve of a chart.

    Attributes:
        label: For the legend.
        x: Epochs.
        y: Values, as many.
        style: Index into `STYLES`, so that a name has one look in all charts.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: int


@matplotlib.rc_context(_SETTINGS)
def lines(
    name: str,
    curves: Sequence[Line],
    *,
    xlabel: str = "epoch",
    limits: tuple[float | None, float | None] = (None, None),
    markers: bool = True,
) -> str:
    """Curves, with a legend below that gives their last values.

    Args:
        name: Of the chart; unique on the page.
        curves: At most `len(STYLES)`.
        xlabel: Of the horizontal axis.
        limits: Of the vertical axis; None follows the data.
        markers: Whether some of the points have markers.

    Returns:
        An `svg` element.
    """
    canvas, axes = _axes(HEIGHT, ROW * len(curves))
    for curve in curves:
        style = dict(STYLES[curve.style])
        if not markers:
            style["marker"] = ""
        axes.plot(
            curve.x,
            curve.y,
            **style,
            label=_plain(curve.label),
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
        axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    axes.grid(axis="y")
    canvas.legend(
        loc="lower left",
        bbox_to_anchor=(0, 0),
        frameon=False,
        handlelength=3.2,
        borderaxespad=0,
        borderpad=0.3,
        labelspacing=(ROW - 11) / 11,
    )
    return _inline(canvas, name)


@matplotlib.rc_context(_SETTINGS)
def ridges(
    name: str, rows: Sequence[tuple[str, Sequence[int]]], edges: np.ndarray, xlabel: str
) -> str:
    """Histograms one below the other, each to its own height, the last at the bottom.

    Args:
        name: Of the chart; unique on the page.
        rows: Label and counts of each.
        edges: Of the bins.
        xlabel: Of the horizontal axis.

    Returns:
        An `svg` element.
    """
    canvas, axes = _axes(BOTTOM + TOP + RIDGE * (len(rows) + 0.3), 0)
    positions = -np.arange(len(rows), dtype=float)
    for position, (_, counts) in zip(positions, rows, strict=True):
        share = np.asarray(counts, float)
        top = position + 1.2 * share / max(share.max(), 1.0)
        axes.stairs(top, edges, baseline=position, fill=True, color=COLOURS["paper"])
        axes.stairs(
            top, edges, baseline=position, fill=True, color=COLOURS["blue"], alpha=0.35
        )
        axes.stairs(top, edges, baseline=None, color=COLOURS["blue"], linewidth=1)
    axes.set(xlabel=xlabel, ylim=(positions[-1] - 0.05, 1.25), xlim=edges[[0, -1]])
    axes.set_yticks(positions, [label for label, _ in rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=COLOURS["ink"], linewidth=0.8, linestyle=":", zorder=10)
    return _inline(canvas, name)


def _plain(label: str) -> str:
    """A label that matplotlib shows as it is, and that XML can hold.

    It would read formulas between dollars, and leave out what begins with "_".
    """
    shown = "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in label
    )
    shown = shown.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def _axes(height: float, legend: float) -> tuple[figure.Figure, Any]:
    """Axes of a height, above a legend of another."""
    height += legend
    canvas = figure.Figure(figsize=(WIDTH / 72, height / 72))
    axes = canvas.add_axes(
        (
            LEFT / WIDTH,
            (BOTTOM + legend) / height,
            (WIDTH - LEFT - RIGHT) / WIDTH,
            (height - legend - BOTTOM - TOP) / height,
        )
    )
    return canvas, axes


def _inline(canvas: figure.Figure, name: str) -> str:
    """The figure as an element of a page."""
    file = io.BytesIO()
    canvas.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r"#([\w.]+)", text))
    for element in root.iter():
        element.tag = _local(element.tag)
        attributes = dict(_attributes(element, name, used))
        element.attrib.clear()
        element.attrib.update(attributes)
    for size in ("width", "height"):
        del root.attrib[size]
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title")
    return ElementTree.tostring(root, encoding="unicode").replace("\n", " ")


def _attributes(
    element: ElementTree.Element, name: str, used: set[str]
) -> Iterator[tuple[str, str]]:
    for key, value in element.attrib.items():
        key = _local(key)
        if key == "id":
            if value in used:
                yield "id", f"{name}-{value}"
        elif key in ("href", "clip-path"):
            yield key, value.replace("#", f"#{name}-")
        elif key == "style":
            yield "style", _style(value)
        elif not (key == "version" or (key == "transform" and "rotate(-0" in value)):
            yield key, value


def _style(text: str) -> str:
    text = re.sub(r"font-family:[^;]*; *", "", text)
    for colour, value in COLOURS.items():
        text = text.replace(value, f"var(--{colour})")
    return text.strip()


def _local(tag: str) -> str:
    """A name without its namespace, which HTML knows by itself."""
    return tag.rpartition("}")[2]
