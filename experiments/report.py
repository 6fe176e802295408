"""One page about a run, or several over each other: curves, layers, sizes, config.

    python -m experiments.report --workdir runs/a runs/b --out=report.html

A run writes `report.html` into its workdir when it ends. The page is one file: the
charts are SVG of matplotlib, so it needs neither a script nor a network, follows dark
mode, and can be read on a phone.
"""

import argparse
import functools
import html
import json
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import rich.console

from experiments import charts, errors, layers, workdir

STYLE = pathlib.Path(__file__).with_name("report.css")
RIDGES = 9
"""Epochs whose histogram is drawn, at most."""


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
        config = json.loads((folder / "config.json").read_text("utf-8"))
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


def page(runs: Sequence[Record]) -> str:
    """The page, as HTML.

    Args:
        runs: One, or several to draw over each other.

    Raises:
        RunError: If there are more than can be told apart.
    """
    if len(runs) > len(charts.STYLES):
        raise errors.RunError(
            f"{len(runs)} runs are too many to tell apart in a chart: give at most "
            f"{len(charts.STYLES)}."
        )
    body = _single(runs[0]) if len(runs) == 1 else _several(_distinct(runs))
    title = _text(", ".join(run.label for run in runs))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n"
        '<link rel="icon" href="data:,">\n'
        f"<style>\n{STYLE.read_text('utf-8')}</style>\n</head>\n<body>\n"
        f"{body}\n</body>\n</html>\n"
    )


def _distinct(runs: Sequence[Record]) -> list[Record]:
    """The same runs, numbered where folders have the same name."""
    labels = [run.label for run in runs]
    return [
        run
        if labels.count(run.label) == 1
        else run._replace(label=f"{run.label} ({number})")
        for number, run in enumerate(runs, 1)
    ]


Draw = Callable[[str], str]
"""From the name of a chart to its SVG."""

Figure = tuple[str, str, Draw | None]
"""Title, what it shows, and how it is drawn; None where there is nothing to draw."""


def _single(run: Record) -> str:
    splits = ["train", "validation", "test"]
    learning: list[Figure] = [
        (
            title,
            note,
            _lines(
                [(split, *run.curve(name, split, scale)) for split in splits], digits
            ),
        )
        for title, note, name, scale, digits in _LEARNING
    ]
    weights: list[Figure] = []
    for title, note, name, scale in _BY_LAYER:
        curves = [
            (_short(layer), *run.layer_curve(name, layer, scale))
            for layer in run.layer_names
        ]
        parts = _chunks(curves, len(charts.STYLES))
        for number, part in enumerate(parts, 1):
            which = f" ({number} of {len(parts)})" if len(parts) > 1 else ""
            limits = (0, 102 if name == "saturated" else None)
            weights.append((title + which, note, _lines(part, ".3g", limits=limits)))
    if run.layers:
        gradient = [("all layers", *run.curve("zero_gradient", scale=100))]
        weights.append((*_ZERO_GRADIENT, _lines(gradient, ".3g", limits=(0, None))))
    histograms: list[Figure] = [
        (
            _short(layer),
            "rows: epochs, 0 is before training",
            functools.partial(
                charts.ridges,
                rows=_spread(
                    [
                        (str(r["epoch"]), r["latents"])
                        for r in run.layers
                        if r["layer"] == layer
                    ]
                ),
                edges=layers.EDGES,
                xlabel=_UNIT,
            ),
        )
        for layer in run.layer_names
    ]
    times = [(run.config["method"], *_milliseconds(run))]
    return "\n".join(
        [
            f"<h1>{_text(run.label)}</h1>",
            f"<p>{_text(_about(run))}</p>",
            _key_figures(run),
            _section("Learning", _LEARNING_NOTE, learning),
            _section("Weights", _WEIGHTS_NOTE if run.layers else _REAL_NOTE, weights),
            _section("Latents", _LATENTS_NOTE, histograms) if histograms else "",
            _section("Speed", "", [(*_SPEED, _lines(times, ".3g", limits=(0, None)))]),
            "<h2>Sizes</h2>",
            _sizes(run),
            "<h2>Config and versions</h2>",
            _config(run),
        ]
    )


def _several(runs: Sequence[Record]) -> str:
    def overlay(curves: Sequence[tuple[Any, ...]], digits: str = ".3g", **options: Any):
        """Of all runs, in one order, so that a run has one look in all charts."""
        named = [(run.label, *c) for run, c in zip(runs, curves, strict=True)]
        return _lines(named, digits, **options)

    learning: list[Figure] = [
        (
            f"{title}, {split}",
            note,
            overlay([run.curve(name, split, scale) for run in runs], digits),
        )
        for title, note, name, scale, digits in _LEARNING
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
    centres = ((layers.EDGES[1:] + layers.EDGES[:-1]) / 2).tolist()
    histograms: list[Figure] = []
    for layer in names:
        curves = []
        for run in runs:
            found = [r["latents"] for r in run.layers if r["layer"] == layer]
            total = sum(found[-1]) or 1 if found else 1
            shares = [100 * count / total for count in found[-1]] if found else []
            curves.append((centres if found else [], shares))
        part = overlay(curves, "", xlabel=_UNIT, markers=False, limits=(0, None))
        histograms.append((_short(layer), "latents in a bin, %", part))
    speed = overlay([_milliseconds(run) for run in runs], limits=(0, None))
    return "\n".join(
        [
            f"<h1>{len(runs)} runs</h1>",
            _ranking(runs),
            _section("Learning", _LEARNING_NOTE, learning),
            _section("Weights", _WEIGHTS_NOTE, weights) if names else "",
            _section("Latents at the end", _LATENTS_NOTE, histograms) if names else "",
            _section("Speed", "", [(*_SPEED, speed)]),
            "<h2>Sizes</h2>",
            *(_folded(run.label, _sizes(run)) for run in runs),
            "<h2>Config and versions</h2>",
            _differences(runs),
            *(_folded(run.label, _config(run)) for run in runs),
        ]
    )


_UNIT = "latent / root mean square of its layer"
_LEARNING = (
    ("Loss", "cross-entropy, nats", "loss", 1.0, ".4f"),
    ("Accuracy", "%", "accuracy", 100.0, ".2f"),
)
_BY_LAYER = (
    ("Flips", "% of weights of another sign than an epoch ago", "flips_per_epoch", 100),
    ("Saturated", "% of training weights at full magnitude", "saturated", 100),
    ("Scale of the latents", "root mean square", "rms", 1),
)
_ZERO_GRADIENT = ("Gradients of zero", "% of latents that the rule holds")
_SPEED = ("Time per step", "ms, without compilation and evaluation")
_LEARNING_NOTE = (
    "Training is measured with the training weights, which annealing keeps soft at "
    "first; validation and test with the deployed ones."
)
_WEIGHTS_NOTE = (
    "Flips that do not fall are weights that chatter about zero. Saturated weights are "
    "those that annealing already holds at plus or minus the largest magnitude."
)
_REAL_NOTE = "Full precision: no weight of one bit."
_LATENTS_NOTE = (
    "Counts of the latents, in units of their root mean square. Weights are the signs, "
    "so only the zero matters: a valley there means signs that are settled."
)


def _lines(
    curves: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    digits: str,
    **options: Any,
) -> Draw | None:
    """Draws curves whose labels end in their last value; those without data are out."""
    found = [
        charts.Line(
            f"{_cut(label)}  {y[-1]:{digits}}" if digits else _cut(label), x, y, style
        )
        for style, (label, x, y) in enumerate(curves)
        if len(y)
    ]
    return functools.partial(charts.lines, curves=found, **options) if found else None


def _milliseconds(run: Record) -> tuple[list[int], list[float]]:
    epochs, speeds = run.curve("steps_per_second", "timing")
    return epochs, [1000 / speed for speed in speeds]


def _short(layer: str) -> str:
    return layer.removesuffix("/kernel")


def _cut(label: str, most: int = 36) -> str:
    """A label that fits below a chart: its end says more than its beginning."""
    return label if len(label) <= most else "…" + label[1 - most :]


def _spread(rows: Sequence[Any]) -> list[Any]:
    """At most `RIDGES` of the rows, evenly, with the first and the last."""
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
            f'<figure><figcaption id="{name}-title">{_text(caption)}'
            f"<span>{_text(what)}</span></figcaption>{draw(name)}</figure>"
        )
    return (
        f"<h2>{_text(title)}</h2>\n"
        + (f'<p class="muted">{_text(note)}</p>\n' if note else "")
        + (f'<div class="charts">{"".join(drawn)}</div>' if drawn else "")
    )


def _about(run: Record) -> str:
    config = run.config
    text = f"{config['method']} on {config['dataset']}, network {config['model']}, "
    text += f"seed {config['seed']}"
    if run.result is None:
        text += f"; under way: epoch {run.metrics[-1]['epoch']}"
        text += f" of {config['num_epochs']}"
    return text


def _key_figures(run: Record) -> str:
    _, times = _milliseconds(run)
    result = run.result or {}
    figures = []
    if result:
        figures += [
            ("test accuracy", f"{100 * result['test_accuracy']:.2f} %"),
            ("test loss", f"{result['test_loss']:.4f}"),
            ("epochs", f"{result['epochs']:,}"),
        ]
    if times:
        figures.append(("time per step", f"{sorted(times)[len(times) // 2]:.3g} ms"))
    if run.sizes:
        figures += [
            ("weights of one bit", f"{run.sizes['one_bit_parameters']:,}"),
            ("real parameters", f"{run.sizes['real_parameters']:,}"),
            ("bytes, deployed", f"{run.sizes['bytes']:,}"),
            ("bytes in float32", f"{run.sizes['float32_bytes']:,}"),
        ]
    if result:
        devices = f"{result['num_devices']} × {result['device']}"
        figures.append(("devices", devices))
    cells = [f"<div><dt>{_text(a)}</dt><dd>{_text(b)}</dd></div>" for a, b in figures]
    return f'<dl class="figures">{"".join(cells)}</dl>'


def _ranking(runs: Sequence[Record]) -> str:
    head = ["run", "test accuracy, %", "test loss", "epochs", "ms per step"]
    head += ["weights of one bit", "bytes", "method", "seed"]
    rows = []
    for run in runs:
        result, (_, times) = run.result or {}, _milliseconds(run)
        rows.append(
            [
                run.label,
                f"{100 * result['test_accuracy']:.2f}" if result else "under way",
                f"{result['test_loss']:.4f}" if result else "",
                f"{run.metrics[-1]['epoch']:,}",
                f"{sorted(times)[len(times) // 2]:.3g}" if times else "",
                f"{run.sizes['one_bit_parameters']:,}" if run.sizes else "",
                f"{run.sizes['bytes']:,}" if run.sizes else "",
                run.config["method"],
                run.config["seed"],
            ]
        )
    return _table(head, rows, words=1)


def _sizes(run: Record) -> str:
    sizes = run.sizes
    if not sizes:
        return "<p>The run has left no summary.json.</p>"
    head = ["parameter", "shape", "bits", "parameters", "bytes", "float32 bytes"]
    head.append("multiply-adds")
    names = ("parameters", "bytes", "float32_bytes", "multiply_adds")
    rows = [
        [
            row["path"],
            " × ".join(map(str, row["shape"])),
            "1" if row["one_bit"] else f"{8 * row['bytes'] / row['parameters']:g}",
            *(f"{row[name]:,}" for name in names),
        ]
        for row in sizes["rows"]
    ]
    totals = []
    for one_bit, label in ((True, "one bit"), (False, "real")):
        chosen = [row for row in sizes["rows"] if row["one_bit"] is one_bit]
        sums = [sum(row[name] for row in chosen) for name in names]
        if not one_bit:
            sums[-1] += sizes["activation_multiply_adds"]
        totals.append([label, "", "", *sums])
    both = (a + b for a, b in zip(totals[0][3:], totals[1][3:], strict=True))
    totals.append(["total", "", "", *both])
    totals = [[f"{c:,}" if isinstance(c, int) else c for c in row] for row in totals]
    notes = "".join(f"<p>{_text(note)}</p>" for note in sizes["notes"])
    return _table(head, rows, totals, words=2) + notes


def _config(run: Record) -> str:
    cells = [
        f"<div><dt>{_text(name)}</dt><dd>{_text(_value(value))}</dd></div>"
        for name, value in _fields(run).items()
    ]
    return f'<dl class="fields">{"".join(cells)}</dl>'


def _differences(runs: Sequence[Record]) -> str:
    fields = [_fields(run) for run in runs]
    names = list(dict.fromkeys(name for found in fields for name in found))
    rows = [
        [name, *(_value(found[name]) if name in found else "" for found in fields)]
        for name in names
        if any(found.get(name) != fields[0].get(name) for found in fields)
    ]
    head = ["what differs", *(run.label for run in runs)]
    return _table(head, rows, words=len(head))


def _fields(run: Record) -> dict[str, Any]:
    """The config, with the options of the method that was used, and the versions."""
    config = dict(run.config)
    for name in workdir.FREE_FIELDS:
        config.pop(name, None)
    methods = config.pop("methods", {})
    options = {config["method"]: methods.get(config["method"], {})}
    fields = workdir.flat({**config, "methods": options})
    versions = sorted((run.result or {}).get("versions", {}).items())
    return dict(fields) | {f"version of {name}": value for name, value in versions}


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{_text(title)}</summary>{content}</details>"


def _table(
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    totals: Sequence[Sequence[Any]] = (),
    *,
    words: int,
) -> str:
    """A table whose first `words` columns are words, and the others numbers."""

    def line(cells: Sequence[Any], tag: str) -> str:
        kinds = ["" if n < words else ' class="number"' for n in range(len(cells))]
        found = zip(cells, kinds, strict=True)
        return f"<tr>{''.join(f'<{tag}{k}>{_text(c)}</{tag}>' for c, k in found)}</tr>"

    return (
        f'<div class="wide"><table><thead>{line(head, "th")}</thead>'
        f"<tbody>{''.join(line(row, 'td') for row in rows)}</tbody>"
        f"<tfoot>{''.join(line(row, 'td') for row in totals)}</tfoot></table></div>"
    )


def _text(value: Any) -> str:
    return html.escape(str(value))


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report",
        description="Draws a run, or several over each other, on one page.",
    )
    parser.add_argument(
        "--workdir", required=True, nargs="+", help="folders of runs; or A,B,C"
    )
    parser.add_argument(
        "--out", help="file to write; default: report.html in the one workdir"
    )
    arguments = parser.parse_args(argv)
    folders = [
        folder
        for given in arguments.workdir
        for folder in ([given] if os.path.exists(given) else given.split(","))
        if folder
    ]
    console = rich.console.Console()
    try:
        if arguments.out is None and len(folders) > 1:
            raise errors.RunError("say where the page of several runs goes: --out.")
        out = pathlib.Path(arguments.out or pathlib.Path(folders[0]) / "report.html")
        text = page([read(folder) for folder in folders])
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            workdir.write_atomically(out, text)
        except OSError as error:
            raise errors.RunError(f"cannot write {out}: {error}.") from error
    except errors.RunError as error:
        console.print(f"[bold red]error:[/] {error}", soft_wrap=True, highlight=False)
        sys.exit(1)
    console.print(f"wrote {out}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
