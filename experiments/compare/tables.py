"""The table of a comparison: statistics over seeds, as Markdown, JSON and PNG."""

import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.console
from scipy import stats  # type: ignore[import-untyped]

from experiments import console as consoles
from experiments.report import figures

Outcomes = Mapping[int, Mapping[str, Any]]
"""Outcomes of the trials of one method, by seed."""


def row(
    method: str,
    outcomes: Outcomes,
    *,
    learning_rate: float,
    options: Mapping[str, Any],
    at_edge: bool,
    bytes_per_weight: float,
) -> dict[str, Any]:
    """Statistics of one method.

    Args:
        method: Name of the method.
        outcomes: Outcome of each seed, at least one; see `trials.Trainer.train`.
        learning_rate: The chosen learning rate.
        options: The chosen options, if they differ from the config.
        at_edge: Whether the learning rate is the smallest or largest that was tried.
        bytes_per_weight: Bytes that training keeps for a weight.

    Returns:
        A row, as JSON. With a failed seed it has `failure` and no accuracy.
    """
    found: dict[str, Any] = {
        "method": method,
        "learning_rate": learning_rate,
        "options": dict(options),
        "at_edge": at_edge,
        "bytes_per_weight": bytes_per_weight,
    }
    for seed, outcome in outcomes.items():
        if "failure" in outcome:
            return {**found, "failure": f"seed {seed}: {outcome['failure']}"}
    accuracies = {seed: outcome["accuracy"] for seed, outcome in outcomes.items()}
    values = np.array(list(accuracies.values()))
    found["accuracies"] = {str(seed): value for seed, value in accuracies.items()}
    found["mean"] = float(values.mean())
    found["std"] = float(values.std(ddof=1)) if len(values) > 1 else None
    seconds = [outcome["seconds_per_epoch"] for outcome in outcomes.values()]
    found["seconds_per_epoch"] = min(seconds)
    curves = [outcome.get("flips_per_epoch", ()) for outcome in outcomes.values()]
    if all(curves):
        first, last = (np.mean([curve[at] for curve in curves]) for at in (0, -1))
        found["flips_first"], found["flips_last"] = float(first), float(last)
    return found


def compare_rows(
    rows: Sequence[dict[str, Any]], *, baseline: str = "ste"
) -> list[dict[str, Any]]:
    """Compares rows with the baseline; sorts them by accuracy, failures last.

    Args:
        rows: Rows of `row`.
        baseline: The method that the others are compared with, seed by seed.

    Returns:
        Rows with `difference` and `interval`, half the width of its 95 % confidence
        interval by Student's t; and `relative_time`, to full precision.
    """
    by_method = {row["method"]: row for row in rows}
    base = by_method.get(baseline, {})
    full = by_method.get("full_precision", {}).get("seconds_per_epoch")
    done = []
    for one in rows:
        one = dict(one)
        if "mean" in one and full:
            one["relative_time"] = one["seconds_per_epoch"] / full
        if "mean" in one and "mean" in base and one["method"] != baseline:
            seeds = one["accuracies"], base["accuracies"]
            if seeds[0].keys() & seeds[1].keys():
                one["difference"], one["interval"] = paired(*seeds)
        done.append(one)
    return sorted(done, key=lambda one: -one.get("mean", -1.0))


def paired(
    first: Mapping[str, float], second: Mapping[str, float]
) -> tuple[float, float | None]:
    """Mean difference over common seeds, and half the width of its 95 % interval.

    There must be a common seed; with only one the interval is None.

    Example:
        >>> paired({"1": 0.5, "2": 0.75}, {"1": 0.25, "2": 0.5})
        (0.25, 0.0)
    """
    seeds = sorted(first.keys() & second.keys())
    gaps = np.array([first[seed] - second[seed] for seed in seeds])
    if len(gaps) < 2:
        return float(gaps.mean()), None
    error = gaps.std(ddof=1) / math.sqrt(len(gaps))
    return float(gaps.mean()), float(stats.t.ppf(0.975, len(gaps) - 1) * error)


def markdown(rows: Sequence[Mapping[str, Any]], *, baseline: str = "ste") -> str:
    """The table of `compare_rows`, in Markdown."""
    lines = [
        "| method | learning rate, option | test accuracy, % | difference to "
        f"{baseline}, points | flips per epoch, first → last | time per epoch "
        "| bytes per weight |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        start = f"| {one['method']} | "
        if "failure" in one:
            lines.append(f"{start}failed: {cell(one['failure'])} | | | | | |")
            continue
        lines.append(start + " | ".join([_setting(one), *_measured(one)]) + " |")
    return "\n".join(lines) + "\n"


def show(
    console: rich.console.Console,
    rows: Sequence[Mapping[str, Any]],
    *,
    baseline: str = "ste",
) -> None:
    """Prints the table: on a terminal with as many columns as fit, else as Markdown."""
    if not console.is_terminal:
        consoles.say(console, markdown(rows, baseline=baseline))
        return
    head = ["method", "test, %", f"to {baseline}", "rate, option", "flips", "time"]
    table = [head]
    for one in rows:
        cells = ["failed", "", "", "", ""]
        if "failure" not in one:
            mean, gap, flips, time, _ = _measured(one)
            cells = [mean, gap, _setting(one), flips, time]
        table.append([one["method"], *cells])
    used = [any(column[1:]) for column in zip(*table, strict=True)]
    fitting(console, [list(itertools.compress(cells, used)) for cells in table])


def fitting(console: rich.console.Console, table: Sequence[Sequence[str]]) -> None:
    """Prints a table, its head first, with as many columns as fit; two at least."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    ends = np.cumsum([width + 2 for width in widths]) - 2
    fits = max(2, int(np.sum(ends <= console.width)))
    shown = [cells[:fits] for cells in table]
    consoles.table(console, shown[0], shown[1:])


def _measured(one: Mapping[str, Any]) -> list[str]:
    """Accuracy, difference, flips, time and bytes of a row that did not fail."""
    found = [_points(one["mean"], one["std"]), "", "", ""]
    if "difference" in one:
        found[1] = _points(one["difference"], one["interval"], "+")
    if "flips_first" in one:
        found[2] = f"{one['flips_first']:.3f} → {one['flips_last']:.4f}"
    if "relative_time" in one:
        found[3] = f"{one['relative_time']:.2f}"
    return [*found, f"{one['bytes_per_weight']:.0f}"]


def cell(text: str) -> str:
    """Text that does not end a cell or a line of a table."""
    return " ".join(text.replace("|", "\\|").split())


def _setting(one: Mapping[str, Any]) -> str:
    edge = " (edge)" if one["at_edge"] else ""
    options = [f", {name} {value}" for name, value in one["options"].items()]
    return f"{one['learning_rate']:.3g}{edge}" + "".join(options)


def _points(value: float, spread: float | None, sign: str = "") -> str:
    """A share in percent, with its spread if there is one."""
    text = f"{100 * value:{sign}.2f}"
    return text if spread is None else f"{text} ± {100 * spread:.2f}"


def draw(
    path: pathlib.Path, rows: Sequence[Mapping[str, Any]], *, baseline: str = "ste"
) -> None:
    """Draws the accuracy of every seed, and the difference to the baseline.

    Args:
        path: The PNG file to write.
        rows: Rows of `compare_rows`; failures are left out.
        baseline: The method that the others are compared with.
    """
    shown = [one for one in reversed(rows) if "mean" in one]
    size = (10, 1.2 + 0.28 * len(shown))
    figure, (left, right) = figures.panels(1, 2, size, sharey=True)
    blue, sky = figures.COLOURS["blue"], figures.COLOURS["sky"]
    for at, one in enumerate(shown):
        values = 100 * np.array(list(one["accuracies"].values()))
        left.plot(values, [at] * len(values), "o", color=sky, markersize=3)
        left.plot(100 * one["mean"], at, "|", color="black", markersize=12)
        if "difference" in one:
            gap, half = 100 * one["difference"], 100 * (one["interval"] or 0.0)
            right.errorbar(
                gap, at, xerr=half, fmt="o", color=blue, markersize=4, capsize=3
            )
    left.set(xlabel="test accuracy (%): seeds, mean", ylim=(-0.6, len(shown) - 0.4))
    left.set_yticks(range(len(shown)), [one["method"] for one in shown])
    right.axvline(0, color="grey", linewidth=0.8)
    right.set(xlabel=f"difference to {baseline} (points), 95 % interval")
    for axis in (left, right):
        axis.grid(axis="x", alpha=0.3)
    figures.save(figure, path)
