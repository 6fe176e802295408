"""Makes all figures: colours, line styles, axes, and PNG and SVG output.

Matplotlib is imported when something is drawn, not before.

Matplotlib writes SVG as a separate file, with black text, ids that repeat from chart to
chart and links to namespaces. `svg` makes it part of a page: colours become variables
of the style sheet, so that it follows dark mode, and the fonts are those of the page.
"""

import io
import os
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np

# Okabe and Ito's palette, in an order in which neighbours differ in lightness too; the
# style sheet has a shade of each for light and for dark pages.
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
"""Line styles that can be distinguished even without colours."""

_PAGE: Any = {
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


def panels(
    rows: int, columns: int, size: tuple[float, float], **options: Any
) -> tuple[Any, Any]:
    """A figure with a grid of axes, for a PNG.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        size: Width and height in inches.
        **options: Options of `matplotlib.figure.Figure.subplots`.

    Returns:
        The figure, and its axes.
    """
    figure = blank(size, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def blank(size: tuple[float, float], **options: Any) -> Any:
    """A figure without axes, of this width and height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, **options)


def save(figure: Any, path: str | os.PathLike[str], *, dpi: int = 120) -> None:
    """Writes a PNG file; axes of epochs get whole numbers."""
    for axis in figure.axes:
        if axis.get_xlabel() == "epoch":
            whole_numbers(axis)
    figure.savefig(path, dpi=dpi)


def whole_numbers(axis: Any, most: Any = "auto") -> None:
    """Puts only whole numbers on an axis, in at most `most` intervals."""
    from matplotlib import ticker

    axis.xaxis.set_major_locator(ticker.MaxNLocator(most, integer=True))


def cross(axis: Any) -> None:
    """Draws thin lines through the origin."""
    axis.axhline(0, color="grey", linewidth=0.5)
    axis.axvline(0, color="grey", linewidth=0.5)


def shades(count: int) -> Any:
    """Colours from the start of training to its end, all dark enough for white paper.

    Dark pages show pictures inverted, so none may be light.
    """
    import matplotlib

    return matplotlib.colormaps["plasma"](np.linspace(0, 0.68, count))


def page_style() -> Any:
    """A context in which figures are drawn for a page."""
    import matplotlib

    return matplotlib.rc_context(_PAGE)


def plain(label: str) -> str:
    """A label that Matplotlib shows unchanged, and that is valid in XML.

    Matplotlib would read formulas between dollars, and skip labels that begin with "_".
    """
    shown = "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in label
    )
    shown = shown.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def svg(figure: Any, name: str) -> str:
    """The figure as an `svg` element of a page.

    Args:
        figure: A figure that was drawn in `page_style`.
        name: Name of the chart, unique on the page; its ids begin with it.
    """
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
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
    """A name without its namespace, which HTML does not need."""
    return tag.rpartition("}")[2]
