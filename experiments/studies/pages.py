"""The page of a study: conclusion first, then tables, pictures, and what is missing."""

import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from experiments.compare import tables
from experiments.report import figures
from experiments.runs import small_files
from experiments.studies.study import FLOAT, Book, Part, Task, tasks

Values = Mapping[str, float]
"""What was measured, by seed."""


class Gap(NamedTuple):
    """A paired difference; more is better.

    Attributes:
        mean: Mean over seeds, in points of accuracy, or in bits per byte.
        half: Half the width of its 95 % interval; None with one seed.
        seeds: Number of seeds.
        quantile: The quantile of Student's t in the interval.
    """

    mean: float
    half: float | None
    seeds: int
    quantile: float | None

    @property
    def sure(self) -> bool:
        """Whether the interval excludes 0."""
        return self.half is not None and abs(self.mean) > self.half


class Texts(NamedTuple):
    """What the page of a study says besides its numbers.

    Attributes:
        title: Its heading.
        conclusion: Its first sentences.
        about: What was trained, and the limits.
        command: The command that trains and writes it.
    """

    title: str
    conclusion: str
    about: str
    command: str


def values(book: Book, part: Part, row: str) -> Values:
    """Accuracies in %, or bits per byte, by seed; without those that failed.

    There are none of a row that the part does not have.
    """
    scale = 100.0 if part.measure == "accuracy" else 1.0
    found = book.tested(part, row) if row in part.rows else {}
    return {
        str(seed): scale * line[part.measure]
        for seed, line in sorted(found.items())
        if part.measure in line
    }


def gap(book: Book, part: Part, row: str, base: str) -> Gap | None:
    """How much better a row is than another; None without a common seed."""
    first, second = values(book, part, row), values(book, part, base)
    return of_values(first, second, part.measure)


def of_values(first: Values, second: Values, measure: str) -> Gap | None:
    """See `gap`; of what was measured."""
    seeds = len(first.keys() & second.keys())
    if not seeds:
        return None
    mean, half = tables.paired(first, second)
    quantile = float(stats.t.ppf(0.975, seeds - 1)) if seeds > 1 else None
    return Gap(mean if measure == "accuracy" else -mean, half, seeds, quantile)


def said(found: Gap, digits: int = 2) -> str:
    """A difference as text: +1.20 ± 0.50."""
    half = "" if found.half is None else f" ± {found.half:.{digits}f}"
    return f"{found.mean:+.{digits}f}{half}"


def table(book: Book, part: Part, bases: Sequence[str]) -> str:
    """The table of a part, in Markdown.

    Args:
        book: What is known.
        part: The part.
        bases: Rows that the others are compared with.
    """
    accuracy = part.measure == "accuracy"
    unit, digits = ("points", 2) if accuracy else ("bits", 3)
    what = "test accuracy, %" if accuracy else "bits per byte"
    head = ["row", "learning rate, option", "seeds", what]
    head += [f"better than {base}, {unit}" for base in bases] + ["t"]
    lines = [head, ["---"] * len(head)]
    order = sorted(part.rows, key=lambda row: _order(book, part, row))
    for row in order:
        found, choice = values(book, part, row), book.chosen(part, row)
        if failure := book.failure(part, row):
            lines.append([row, "", "", f"failed: {failure}", *[""] * len(bases), ""])
        if choice is None or not book.tested(part, row):
            continue
        if not found:
            lines.append([row, _setting(choice), "0", "failed", *[""] * len(bases), ""])
            continue
        numbers = np.array(list(found.values()))
        spread = f" ± {numbers.std(ddof=1):.{digits}f}" if len(numbers) > 1 else ""
        gaps = [gap(book, part, row, one) if row != one else None for one in bases]
        quantiles = {f"{one.quantile:.2f}" for one in gaps if one and one.quantile}
        lines.append(
            [
                row,
                _setting(choice),
                str(len(numbers)),
                f"{numbers.mean():.{digits}f}{spread}",
                *("" if one is None else said(one, digits) for one in gaps),
                ", ".join(sorted(quantiles)),
            ]
        )
    return "".join(f"| {' | '.join(map(tables.cell, line))} |\n" for line in lines)


def _order(book: Book, part: Part, row: str) -> float:
    found = list(values(book, part, row).values())
    mean = sum(found) / len(found) if found else 0.0
    return -mean if part.measure == "accuracy" else mean


def _setting(choice: Any) -> str:
    edge = " (edge)" if choice.at_edge else ""
    options = [f", {name} {value}" for name, value in choice.setting.options]
    return f"{choice.setting.learning_rate:.3g}{edge}" + "".join(options)


def missing(book: Book) -> list[str]:
    """What is not trained yet: a line for each part."""
    found: dict[str, dict[str, int]] = {}
    for part, row, seeds in tasks(book.study):
        number = len(book.missing(Task(part, row, seeds)))
        if number:
            rows = found.setdefault(part.name, {})
            rows[row] = rows.get(row, 0) + number
    return [
        f"{part}: " + ", ".join(f"{row} ({count})" for row, count in rows.items())
        for part, rows in found.items()
    ]


def write(book: Book, folder: pathlib.Path, texts: Texts, body: Sequence[str]) -> None:
    """Writes the page NAME.md.

    Args:
        book: What is known.
        folder: Where to.
        texts: What it says.
        body: Its further parts: tables, links of pictures.
    """
    parts = [
        f"# {texts.title}",
        f"**{texts.conclusion}**",
        texts.about,
        texts.command,
        *body,
        "±: standard deviation over seeds; in the differences, 95 % interval by "
        "Student's t over paired seeds, with its quantile in the last column. (edge): "
        "the smallest or largest learning rate that was tried. Every training is a "
        f"line of [{book.lines.path.name}]({book.lines.path.name}).",
    ]
    left = missing(book)
    if left:
        listed = "\n".join(f"- {line}" for line in left)
        parts.append(
            "## Still missing\n\nTrainings, by row: the command above goes on with "
            f"them.\n\n{listed}"
        )
    machine = [one for one in book.lines.records if "versions" in one]
    if machine:
        versions = ", ".join(f"{n} {v}" for n, v in machine[0]["versions"].items())
        parts.append(f"One core, {machine[0]['device']}; {versions}.")
    text = "\n\n".join(map(_wrapped, parts)) + "\n"
    small_files.write(folder / f"{book.study.name}.md", text)


def _wrapped(paragraph: str) -> str:
    """A paragraph in lines of 95 letters; others than plain text are left as is."""
    if "\n" in paragraph or paragraph.startswith(("#", "|", "!", " ", "-")):
        return paragraph
    return textwrap.fill(paragraph, 95, break_long_words=False, break_on_hyphens=False)


def draw_seeds(book: Book, part: Part, path: pathlib.Path, base: str) -> bool:
    """Draws the accuracy of every seed; returns whether there was anything to draw."""
    rows = []
    for row in part.rows:
        choice, found = book.chosen(part, row), book.tested(part, row)
        if choice is None or not found:
            continue
        rows.append(
            tables.row(
                row,
                found,
                learning_rate=choice.setting.learning_rate,
                options=dict(choice.setting.options),
                at_edge=choice.at_edge,
                bytes_per_weight=0.0,
            )
        )
    rows = tables.compare_rows(rows, baseline=base)
    if not any("mean" in row for row in rows):
        return False
    tables.draw(path, rows, baseline=base)
    return True


class Panel(NamedTuple):
    """A panel with a curve for each row.

    Attributes:
        title: Its title.
        xlabel: What the numbers below mean.
        ylabel: What is measured.
        curves: For each row, places and values by seed there.
        reference: Values of the float network.
    """

    title: str
    xlabel: str
    ylabel: str
    curves: Mapping[str, Mapping[float, Values]]
    reference: Values


def draw_curves(path: pathlib.Path, panels: Sequence[Panel]) -> bool:
    """Draws means over places; returns whether there was anything to draw."""
    if not any(any(curve.values()) for one in panels for curve in one.curves.values()):
        return False
    columns = min(2, len(panels))
    count = -(-len(panels) // columns)
    size = (5.2 * columns, 3.8 * count)
    figure, axes = figures.panels(count, columns, size, squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        for style, (row, curve) in zip(
            figures.STYLES * 3, panel.curves.items(), strict=False
        ):
            found = {x: list(one.values()) for x, one in curve.items() if one}
            means = [sum(one) / len(one) for one in found.values()]
            if found:
                axis.plot(list(found), means, label=row, markersize=4, **style)
        if panel.reference:
            mean = sum(panel.reference.values()) / len(panel.reference)
            axis.axhline(mean, color="grey", linewidth=0.8, label=FLOAT)
        axis.set(title=panel.title, xlabel=panel.xlabel, ylabel=panel.ylabel)
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize=7)
    figures.save(figure, path)
    return True
