"""The page about runs, as one file of HTML."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments import errors
from experiments.report import charts, figures, tables
from experiments.runs import records
from experiments.runs.lines import EDGES

STYLE = pathlib.Path(__file__).with_name("report.css")
RIDGES = 9
"""Largest number of epochs whose histogram is drawn."""

Draw = Callable[[str], str]
"""From the name of a chart to its SVG."""

Figure = tuple[str, str, Draw | None]
"""Title, caption, and function that draws it; None if there is nothing to draw."""

_UNIT = "latent / root mean square of its layer"
# Title, what it shows, name in the files, factor, format of the last value.
_LEARNING = (
    ("Loss", "cross-entropy, nats", "loss", 1.0, "{:.4f}"),
    ("Accuracy", "%", "accuracy", 100.0, "{:.2f}"),
    ("Bits per byte", "of text", "bits_per_byte", 1.0, "{:.3f}"),
)
_BY_LAYER = (
    (
        "Flips",
        "% of weights whose sign changed since the last epoch",
        "flips_per_epoch",
        100,
    ),
    ("Saturated", "% of training weights at full magnitude", "saturated", 100),
    ("Scale of the latents", "root mean square", "rms", 1),
)
_ZERO_GRADIENT = ("Gradients of zero", "% of latents with zero gradient")
_SPEED = ("Time per step", "ms, without compilation and evaluation")
_LEARNING_NOTE = (
    "Training is measured with the training weights, which annealing keeps soft at "
    "first; validation and test with the deployed ones. The number after a name is "
    "its last value."
)
_WEIGHTS_NOTE = (
    "Flips that do not fall are latents that keep crossing zero. Saturated weights are "
    "those that annealing already holds at plus or minus the largest magnitude."
)
_WRONG_NOTE = (
    "Those of which the network was surest: the true class, below it the answer and "
    "its softmax. Look here for wrong labels first."
)
_REAL_NOTE = "Full precision: no weight of one bit."
_LATENTS_NOTE = (
    "Counts of the latents, in units of their root mean square. Weights are the signs, "
    "so only the zero matters: a valley there means that the signs are settled."
)


def page(runs: Sequence[records.Record]) -> str:
    """The page, as HTML.

    Args:
        runs: One run, or several to draw over each other.

    Raises:
        RunError: If there are more runs than line styles.
    """
    if len(runs) > len(figures.STYLES):
        raise errors.RunError(
            f"{len(runs)} runs are too many for one chart: give at most "
            f"{len(figures.STYLES)}."
        )
    body = _single(runs[0]) if len(runs) == 1 else _several(_distinct(runs))
    title = tables.text(", ".join(run.label for run in runs))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n"
        '<link rel="icon" href="data:,">\n'
        f"<style>\n{STYLE.read_text('utf-8')}</style>\n</head>\n<body>\n"
        f"{body}\n</body>\n</html>\n"
    )


def _distinct(runs: Sequence[records.Record]) -> list[records.Record]:
    """The same runs, numbered if their folders have the same name."""
    labels = [run.label for run in runs]
    return [
        run
        if labels.count(run.label) == 1
        else run._replace(label=f"{run.label} ({number})")
        for number, run in enumerate(runs, 1)
    ]


def _single(run: records.Record) -> str:
    splits = ["train", "validation", "test"]
    learning: list[Figure] = [
        (
            title,
            note,
            _lines(
                [(split, *run.curve(name, split, scale)) for split in splits],
                written.format,
            ),
        )
        for title, note, name, scale, written in _LEARNING
    ]
    weights: list[Figure] = []
    for title, note, name, scale in _BY_LAYER:
        curves = [
            (_short(layer), *run.layer_curve(name, layer, scale))
            for layer in run.layer_names
        ]
        parts = _chunks(curves, len(figures.STYLES))
        for number, part in enumerate(parts, 1):
            which = f" ({number} of {len(parts)})" if len(parts) > 1 else ""
            limits = (0, 102 if name == "saturated" else None)
            weights.append((title + which, note, _lines(part, limits=limits)))
    if run.layers:
        gradient = [("all layers", *run.curve("zero_gradient", scale=100))]
        weights.append((*_ZERO_GRADIENT, _lines(gradient, limits=(0, None))))
    histograms: list[Figure] = [
        (
            _short(layer),
            "rows: epochs, 0 is before training",
            functools.partial(
                charts.ridges,
                rows=_spread([(str(e), rows) for e, rows in run.histograms(layer)]),
                edges=EDGES,
                xlabel=_UNIT,
            ),
        )
        for layer in run.layer_names
        if run.histograms(layer)
    ]
    times = [(str(run.config.get("method", "?")), *run.milliseconds)]
    return "\n".join(
        [
            f"<h1>{tables.text(run.label)}</h1>",
            f"<p>{tables.text(tables.about(run))}</p>",
            tables.notes(run),
            tables.key_figures(run),
            _section("Learning", _LEARNING_NOTE, learning),
            _answers(run) if run.answers else "",
            _section("Weights", _WEIGHTS_NOTE if run.layers else _REAL_NOTE, weights),
            _section("Latents", _LATENTS_NOTE, histograms) if histograms else "",
            _section("Speed", "", [(*_SPEED, _lines(times, limits=(0, None)))]),
            "<h2>Sizes</h2>",
            tables.sizes(run),
            "<h2>Config and versions</h2>",
            tables.config(run),
        ]
    )


def _answers(run: records.Record) -> str:
    """Confusion matrix, accuracy of the classes, and pictures with wrong answers."""
    matrix: list[Figure] = []
    if "confusion" in run.answers:
        draw = functools.partial(
            charts.matrix,
            counts=np.array(run.answers["confusion"], float),
            labels=list(map(str, run.answers["class_names"])),
        )
        matrix.append(("Confusion", "rows: true class; % of its images", draw))
    pictures = tables.samples(run)
    return "\n".join(
        [
            _section("Answers on test", "", matrix),
            tables.classes(run) if matrix else "",
            f'<h3>Wrong answers</h3><p class="muted">{_WRONG_NOTE}</p>{pictures}'
            if pictures
            else "",
        ]
    )


def _several(runs: Sequence[records.Record]) -> str:
    def overlay(curves: Sequence[tuple[Any, ...]], *arguments: Any, **options: Any):
        """Draws all runs in one order, so that a run looks the same in all charts."""
        named = [(run.label, *c) for run, c in zip(runs, curves, strict=True)]
        return _lines(named, *arguments, **options)

    learning: list[Figure] = [
        (
            f"{title}, {split}",
            note,
            overlay([run.curve(name, split, scale) for run in runs], written.format),
        )
        for title, note, name, scale, written in _LEARNING
        for split in ("train", "validation")
    ]
    names = list(dict.fromkeys(name for run in runs for name in run.layer_names))
    weights: list[Figure] = []
    for title, note, name, scale in _BY_LAYER:
        limits = (0, 102 if name == "saturated" else None)
        if name != "rms":
            curves = [run.curve(name, scale=scale) for run in runs]
            part = overlay(curves, limits=limits)
            weights.append((f"{title}, all layers", note, part))
        for layer in names:
            curves = [run.layer_curve(name, layer, scale) for run in runs]
            part = overlay(curves, limits=limits)
            weights.append((f"{title}, {_short(layer)}", note, part))
    centres = ((EDGES[1:] + EDGES[:-1]) / 2).tolist()
    histograms: list[Figure] = []
    for layer in names:
        curves = []
        for run in runs:
            found = [counts for _, counts in run.histograms(layer)]
            total = sum(found[-1]) or 1 if found else 1
            shares = [100 * count / total for count in found[-1]] if found else []
            curves.append((centres if found else [], shares))
        part = overlay(curves, None, xlabel=_UNIT, markers=False, limits=(0, None))
        histograms.append((_short(layer), "latents in a bin, %", part))
    speed = overlay([run.milliseconds for run in runs], limits=(0, None))
    return "\n".join(
        [
            f"<h1>{len(runs)} runs</h1>",
            *(tables.notes(run) for run in runs),
            tables.ranking(runs),
            _section("Learning", _LEARNING_NOTE, learning),
            _section("Weights", _WEIGHTS_NOTE, weights) if names else "",
            _section("Latents at the end", _LATENTS_NOTE, histograms) if names else "",
            _section("Speed", "", [(*_SPEED, speed)]),
            "<h2>Sizes</h2>",
            *(tables.folded(run.label, tables.sizes(run)) for run in runs),
            "<h2>Config and versions</h2>",
            tables.differences(runs),
            *(tables.folded(run.label, tables.config(run)) for run in runs),
        ]
    )


def _lines(
    curves: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    written: Callable[[float], str] | None = tables.number,
    **options: Any,
) -> Draw | None:
    """Draws curves with their last values in the labels; skips curves without data."""
    found = [
        charts.Line(
            f"{_cut(label)}  {written(y[-1])}" if written else _cut(label), x, y, style
        )
        for style, (label, x, y) in enumerate(curves)
        if y
    ]
    return functools.partial(charts.lines, curves=found, **options) if found else None


def _short(layer: str) -> str:
    return layer.removesuffix("/kernel")


def _cut(label: str, most: int = 36) -> str:
    """A label cut to fit below a chart; its end, which says most, is kept."""
    return label if len(label) <= most else "…" + label[1 - most :]


def _spread(rows: Sequence[Any]) -> list[Any]:
    """At most `RIDGES` rows, evenly spread, including the first and the last."""
    if len(rows) <= RIDGES:
        return list(rows)
    last = len(rows) - 1
    return [rows[round(index * last / (RIDGES - 1))] for index in range(RIDGES)]


def _chunks(items: Sequence[Any], most: int) -> list[Sequence[Any]]:
    return [items[start : start + most] for start in range(0, len(items), most)]


def _section(title: str, note: str, figures: Sequence[Figure]) -> str:
    drawn = []
    for number, (caption, what, draw) in enumerate(figures):
        if draw is None:
            continue
        name = f"{title.split()[0].lower()}-{number}"
        drawn.append(
            f'<figure><figcaption id="{name}-title">{tables.text(caption)}'
            f"<span>{tables.text(what)}</span></figcaption>{draw(name)}</figure>"
        )
    return (
        f"<h2>{tables.text(title)}</h2>\n"
        + (f'<p class="muted">{tables.text(note)}</p>\n' if note else "")
        + (f'<div class="charts">{"".join(drawn)}</div>' if drawn else "")
    )
