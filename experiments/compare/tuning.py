"""Learning rates that validation chose, beside the default: as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import rich.console

from experiments import console as consoles
from experiments.compare import search, tables

CLOSE = 0.01
"""Accuracy that a learning rate may lose to the best one and still counts as good."""

_HEAD = (
    "method",
    "default",
    "chosen",
    "times the default",
    "validation, %: default → chosen",
    "within a point of the best",
)


def row(
    method: str,
    choice: search.Choice,
    *,
    default: float,
    tried: Mapping[float, float],
) -> dict[str, Any]:
    """What the search found for one method.

    Args:
        method: Name of the method.
        choice: The result of the search.
        default: Learning rate of the config.
        tried: Validation accuracy by learning rate; those that failed are absent.

    Returns:
        A row, as JSON. `good` are the smallest and the largest learning rate whose
        accuracy is at most `CLOSE` below the best.
    """
    best = max(tried.values())
    good = [rate for rate, accuracy in tried.items() if accuracy >= best - CLOSE]
    return {
        "method": method,
        "default": default,
        "learning_rate": choice.setting.learning_rate,
        "at_edge": choice.at_edge,
        "tried": {f"{rate:.6g}": tried[rate] for rate in sorted(tried)},
        "accuracy": tried[choice.setting.learning_rate],
        "default_accuracy": tried.get(default),
        "good": [min(good), max(good)],
    }


def parts(found: Mapping[str, Any]) -> list[str]:
    """The parts of the line that says the result of a row."""
    if "failure" in found:
        return [f"{found['method']}  failed: {found['failure']}"]
    cells = _cells(found)
    return [
        cells[0],
        f"learning rate {cells[2]}",
        f"{cells[3]} times the default",
        f"validation {cells[4]} %",
    ]


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table, in Markdown."""
    lines = [_HEAD, ["---"] * len(_HEAD), *map(_cells, rows)]
    return "".join(f"| {' | '.join(map(tables.cell, line))} |\n" for line in lines)


def show(console: rich.console.Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the table: on a terminal with as many columns as fit, else as Markdown."""
    if not console.is_terminal:
        consoles.say(console, markdown(rows))
        return
    head = ("method", "default", "chosen", "times", "validation, %", "good")
    table = [
        _cells({**one, "failure": ""} if "failure" in one else one) for one in rows
    ]
    tables.fitting(console, [head, *table])


def _cells(one: Mapping[str, Any]) -> list[str]:
    if "failure" in one:
        return [one["method"], f"failed: {one['failure']}".rstrip(": "), "", "", "", ""]
    edge = " (edge)" if one["at_edge"] else ""
    before = one["default_accuracy"]
    least, most = one["good"]
    return [
        one["method"],
        f"{one['default']:.3g}",
        f"{one['learning_rate']:.3g}{edge}",
        f"{one['learning_rate'] / one['default']:.3g}",
        f"{'failed' if before is None else f'{100 * before:.1f}'} → "
        f"{100 * one['accuracy']:.1f}",
        f"{least:.3g}" if least == most else f"{least:.3g} to {most:.3g}",
    ]
