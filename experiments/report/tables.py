"""The texts and tables of a report, as HTML."""

import html
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import console as consoles
from experiments.runs.records import Record, is_number

FOLDED = 30
"""Largest number of classes that are listed at once."""


def about(run: Record) -> str:
    """A line about what was trained."""
    known = {
        name: _value(run.config.get(name, "?"))
        for name in ("method", "dataset", "model", "seed", "num_epochs")
    }
    line = f"{known['method']} on {known['dataset']}, network {known['model']}, "
    line += f"seed {known['seed']}"
    if run.result is None:
        line += f"; under way: epoch {run.metrics[-1]['epoch']}"
        line += f" of {known['num_epochs']}"
    return line


def notes(run: Record) -> str:
    """Notes about what could not be shown of the run."""
    return "".join(f"<p>{text(note)}</p>" for note in run.notes)


def key_figures(run: Record) -> str:
    """The most important numbers of a run."""
    result = run.result or {}
    figures = []
    if result:
        figures += [
            ("test accuracy", _shown(result, "test_accuracy", "{:.2f} %", 100)),
            ("test loss", _shown(result, "test_loss", "{:.4f}")),
            ("epochs", _shown(result, "epochs", "{:,}")),
        ]
    if "test_bits_per_byte" in result:
        bits = _shown(result, "test_bits_per_byte", "{:.3f}")
        figures.append(("test bits per byte", bits))
    if run.milliseconds[1]:
        figures.append(("time per step", f"{_typical_milliseconds(run)} ms"))
    if run.sizes:
        figures += [
            ("weights of one bit", f"{run.sizes['one_bit_parameters']:,}"),
            ("real parameters", f"{run.sizes['real_parameters']:,}"),
            ("bytes, deployed", f"{run.sizes['bytes']:,}"),
            ("bytes in float32", f"{run.sizes['float32_bytes']:,}"),
        ]
    if result:
        number_of, kind = (result.get(name) for name in ("num_devices", "device"))
        devices = " × ".join("?" if d is None else str(d) for d in (number_of, kind))
        figures.append(("devices", devices))
    return _definitions("figures", figures)


def ranking(runs: Sequence[Record]) -> str:
    """The most important numbers of several runs, one line each."""
    head = ["run", "test accuracy, %", "test loss", "epochs", "ms per step"]
    head += ["weights of one bit", "bytes", "method", "seed"]
    rows = []
    for run in runs:
        result = run.result or {}
        rows.append(
            [
                run.label,
                _shown(result, "test_accuracy", "{:.2f}", 100)
                if result
                else "under way",
                _shown(result, "test_loss", "{:.4f}") if result else "",
                f"{run.metrics[-1]['epoch']:,}",
                _typical_milliseconds(run),
                f"{run.sizes['one_bit_parameters']:,}" if run.sizes else "",
                f"{run.sizes['bytes']:,}" if run.sizes else "",
                _value(run.config.get("method", "?")),
                _value(run.config.get("seed", "?")),
            ]
        )
    return _table(head, rows, words=1)


def _typical_milliseconds(run: Record) -> str:
    """The median time of a step over epochs, or None."""
    times = run.milliseconds[1]
    return number(statistics.median(times)) if times else ""


def sizes(run: Record) -> str:
    """`summary.json` as a table."""
    if not run.sizes:
        return "<p>The run has no summary.json.</p>"
    head = ["parameter", "shape", "bits", "parameters", "bytes", "float32 bytes"]
    head.append("multiply-adds")
    names = ("parameters", "bytes", "float32_bytes", "multiply_adds")
    rows = [
        [
            row["path"],
            " × ".join(map(str, row["shape"])),
            "1" if row["one_bit"] else _bits(row),
            *(f"{row[name]:,}" for name in names),
        ]
        for row in run.sizes["rows"]
    ]
    totals = []
    for one_bit, label in ((True, "one bit"), (False, "real")):
        chosen = [row for row in run.sizes["rows"] if row["one_bit"] is one_bit]
        sums = [sum(row[name] for row in chosen) for name in names]
        if not one_bit:
            sums[-1] += run.sizes["activation_multiply_adds"]
        totals.append([label, "", "", *sums])
    both = (a + b for a, b in zip(totals[0][3:], totals[1][3:], strict=True))
    totals.append(["total", "", "", *both])
    totals = [[f"{c:,}" if isinstance(c, int) else c for c in row] for row in totals]
    remarks = "".join(f"<p>{text(note)}</p>" for note in run.sizes["notes"])
    return _table(head, rows, totals, words=2) + remarks


def classes(run: Record) -> str:
    """The accuracy of every class on test, the lowest first, and what it is taken for.

    More than `FOLDED` classes are shown after a click.
    """
    names, rows = run.answers["class_names"], run.answers["confusion"]
    found = []
    for number, counts in enumerate(rows):
        total, right = sum(counts), counts[number]
        wrong = [(n, -other) for other, n in enumerate(counts) if other != number and n]
        most = max(wrong, default=None)
        taken = f"{names[-most[1]]} ({most[0]:,})" if most else ""
        share = right / total if total else None
        found.append((2.0 if share is None else share, number, total, taken))
    cells = [
        [
            names[number],
            taken,
            "no images" if share > 1 else f"{100 * share:.1f}",
            f"{total:,}",
        ]
        for share, number, total, taken in sorted(found)
    ]
    head = ["class", "taken for", "right, %", "images"]
    table = _table(head, cells, words=2)
    return table if len(names) <= FOLDED else folded(f"{len(names)} classes", table)


def samples(run: Record) -> str:
    """Pictures with wrong answers, as data inside the page."""
    items = []
    for one in run.answers["samples"]:
        if not one["png"]:
            continue
        truth, answer = text(one["truth"]), text(one["answer"])
        items.append(
            f'<li><svg viewBox="0 0 96 96" role="img" '
            f'aria-label="{truth}, answered {answer}"><image width="96" height="96" '
            f'href="data:image/png;base64,{one["png"]}"/></svg><strong>{truth}</strong>'
            f"<span>{answer}, {100 * one['confidence']:.0f}&nbsp;%</span></li>"
        )
    return f'<ul class="samples">{"".join(items)}</ul>' if items else ""


def config(run: Record) -> str:
    """Fields of the config, and versions."""
    fields = [(name, _value(value)) for name, value in run.fields.items()]
    return _definitions("fields", fields)


def differences(runs: Sequence[Record]) -> str:
    """The config fields in which runs differ."""
    fields = [run.fields for run in runs]
    names = list(dict.fromkeys(name for found in fields for name in found))
    rows = [
        [name, *(_value(found[name]) if name in found else "" for found in fields)]
        for name in names
        if any(found.get(name) != fields[0].get(name) for found in fields)
    ]
    head = ["what differs", *(run.label for run in runs)]
    return _table(head, rows, words=len(head))


def folded(title: str, content: str) -> str:
    """Content that is shown after a click."""
    return f"<details><summary>{text(title)}</summary>{content}</details>"


def number(value: float) -> str:
    """Three digits, or all before the point.

    Example:
        >>> number(0.012345), number(12345.6)
        ('0.0123', '12,346')
    """
    return f"{value:,.0f}" if 999.5 <= abs(value) < 1e12 else f"{value:.3g}"


def text(value: Any) -> str:
    """Any value as HTML that shows it unchanged; undecodable bytes become escapes."""
    return html.escape(consoles.shown(str(value), "utf-8"))


def _shown(found: Mapping[str, Any], name: str, form: str, scale: float = 1) -> str:
    """A number of a file as text, or a dash if the file has none."""
    value: Any = found.get(name)
    return form.format(scale * value) if is_number(value) else "–"


def _bits(row: Mapping[str, Any]) -> str:
    """Bits of a real parameter as deployed."""
    size = row["parameters"]
    return f"{8 * row['bytes'] / size:g}" if size else "–"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _definitions(kind: str, pairs: Sequence[tuple[str, str]]) -> str:
    """A list of names and values."""
    cells = [f"<div><dt>{text(a)}</dt><dd>{text(b)}</dd></div>" for a, b in pairs]
    return f'<dl class="{kind}">{"".join(cells)}</dl>'


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
        return f"<tr>{''.join(f'<{tag}{k}>{text(c)}</{tag}>' for c, k in found)}</tr>"

    return (
        f'<div class="wide"><table><thead>{line(head, "th")}</thead>'
        f"<tbody>{''.join(line(row, 'td') for row in rows)}</tbody>"
        f"<tfoot>{''.join(line(row, 'td') for row in totals)}</tfoot></table></div>"
    )
