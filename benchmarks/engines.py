"""Trained networks in every engine that runs here: answers, bytes, time.

    python -m benchmarks.engines --out=docs/results/engines.md

The networks of `engine_networks.py` are trained once, in `--workdir`. Each of the
engines of `engine_list.py` then runs the test examples, and its predictions are counted
against those of JAX with the same weights. The engines of a network take turns in
random order when they are timed; a ratio is one of medians, with a 95 % interval by the
bootstrap.

Rows are kept in the workdir: `--networks` measures some networks again, and the page
has the others as they were; `--times` times them again, and takes over their answers.
Without the workdir all are trained and measured.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import random
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from benchmarks import engine_list, engine_networks
from benchmarks.engine import Built, UnfitError
from benchmarks.engine_networks import Case
from docs import browser
from experiments.runs import small_files

BATCHES = (1, 64)
EVALUATED = 100  # examples in a batch when answers are compared
ROUNDS = (4, 101)  # in which each engine runs once: at least, and at most


def times(
    engines: Mapping[str, Built], inputs: np.ndarray, seconds: float
) -> dict[str, np.ndarray]:
    """Seconds of each run of each engine, which take turns in random order."""
    found: dict[str, list[float]] = {name: [] for name in engines}
    for built in engines.values():
        built.seconds(inputs)  # compiles
    order = random.Random(0)
    start, rounds = time.perf_counter(), 0
    while rounds < ROUNDS[0] or (
        rounds < ROUNDS[1] and time.perf_counter() - start < seconds
    ):
        for name in order.sample(list(engines), len(engines)):
            found[name].append(engines[name].seconds(inputs))
        rounds += 1
    return {name: np.asarray(values) for name, values in found.items()}


def ratio(above: np.ndarray, below: np.ndarray, draws: int = 2000) -> str:
    """The ratio of the medians of times taken in turns, and its 95 % interval."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(above), (draws, len(above)))
    found = np.median(above[chosen], 1) / np.median(below[chosen], 1)
    low, high = np.quantile(found, [0.025, 0.975])
    return f"{np.median(above) / np.median(below):.2f} ({low:.2f} to {high:.2f})"


def outputs(built: Built, inputs: np.ndarray) -> np.ndarray:
    """Logits of all examples."""
    cuts = range(0, len(inputs), EVALUATED)
    return np.concatenate([built.run(inputs[i : i + EVALUATED]) for i in cuts])


def measure(
    case: Case,
    names: Sequence[str],
    batches: Sequence[int],
    seconds: float,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The rows of a network in each table, and why engines are missing.

    Args:
        case: The network.
        names: The engines.
        batches: Batch sizes that are timed.
        seconds: How long each of them is timed.
        before: Rows of this network, of which all but the times are taken over.
    """
    rows: dict[str, Any] = {"answers": [], "times": [], "missing": {}}
    engines: dict[str, Built] = {}
    for name in names:
        if before is not None and not engine_list.ENGINES[name].timed:
            continue
        try:
            engines[name] = engine_list.ENGINES[name].build(case)
        except UnfitError as error:
            rows["missing"][f"{name}: {error}."] = case.name
    first = next(iter(engine_list.ENGINES))
    if before is None:
        _compare(case, engines, rows)
    else:
        rows = {**before, "times": []}
    timed = {name: b for name, b in engines.items() if engine_list.ENGINES[name].timed}
    for batch in batches:
        taken = times(
            timed, np.resize(case.inputs, (batch, *case.inputs.shape[1:])), seconds
        )
        for name, values in taken.items():
            beside = engine_list.ENGINES[name].beside
            rows["times"].append(
                [
                    *(case.name, str(batch), name, f"{1e3 * np.median(values):.3g}"),
                    ratio(taken[first], values) if name != first else "",
                    ratio(taken[beside], values) if beside in taken else "",
                ]
            )
            print(*rows["times"][-1], file=sys.stderr)
    return rows


def _compare(case: Case, engines: Mapping[str, Built], rows: dict[str, Any]) -> None:
    """Adds the rows of a network in the tables of networks and answers."""
    first = next(iter(engine_list.ENGINES))
    exact = outputs(engines[first], case.inputs)
    accuracy = ""
    if case.labels is not None:
        accuracy = f"{100 * float((exact.argmax(-1) == case.labels).mean()):.1f} %"
    rows["network"] = [
        *(case.name, case.trained, f"{case.count:,}", accuracy),
        f"{exact.std():.3g}",
    ]
    best = np.sort(exact, -1)
    apart = best[..., -1] - best[..., -2]
    for name, built in engines.items():
        most = engine_list.ENGINES[name].most or len(exact)
        found = exact if name == first else outputs(built, case.inputs[:most])
        wanted = exact[: len(found)]
        equal = found.argmax(-1) == wanted.argmax(-1)
        gap = apart[: len(found)][~equal].max(initial=0)
        size = [f"{built.size:,}", f"{8 * built.size / case.count:.3f}"]
        rows["answers"].append(
            [
                *(case.name, name, f"{equal.sum():,} of {equal.size:,}"),
                "" if equal.all() else f"{gap:.1g}",
                f"{np.abs(found - wanted).max():.1g}",
                *(size if built.size else ["", ""]),
            ]
        )
        print(*rows["answers"][-1], file=sys.stderr)


def write_report(found: Sequence[Mapping[str, Any]], command: str) -> str:
    """The page, in Markdown."""
    packages = ("adaste_jax", "jax", "numpy", "onnx", "onnxruntime", "qonnx", "hls4ml")
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in packages
        if importlib.util.find_spec(name)
    )
    named, again = "--networks" in command, "--times" in command
    missing: dict[str, list[str]] = {}
    for rows in found:
        for reason, name in rows["missing"].items():
            missing.setdefault(reason, []).append(name)
    lines = [
        "# One-bit networks in other engines",
        "",
        "The networks of `experiments/models`, trained shortly on real data, in every",
        "engine that runs here. [How they come there](../export.md), and",
        "[what the files hold](../engines.md).",
        "",
        *_conclusion(found),
        "",
        f"    {command}",
        "",
        *(["Networks that it does not name were measured before it.", ""] * named),
        *(["Answers are those of the same command without `--times`.", ""] * again),
        f"CPU, {os.cpu_count()} cores, {platform.machine()}, {platform.system()};",
        f"Python {platform.python_version()},",
        f"{versions}, onnxruntime-web {browser.VERSION}. The load of the",
        f"machine was {os.getloadavg()[0]:.1f} at the end; above the number of cores,",
        "other programs ran too, and times are only a rough guide.",
        "",
        "## Networks",
        "",
        "Parameters with the statistics of norms; test accuracy of JAX with the",
        "weights that are shipped; the standard deviation of the logits. The",
        "trainings are short: they are there so that the logits are not those of",
        "random weights.",
        "",
        *_table(
            ("network", "trained on", "numbers", "accuracy", "spread"),
            [rows["network"] for rows in found],
        ),
        "",
        "## Answers and bytes",
        "",
        "Predictions equal to those of JAX with float32 weights, on test examples;",
        "where some are not, how far apart the two best logits of JAX were there, at",
        "most; the largest difference of a logit; bytes of the file, and bits for each",
        "parameter and statistic. What is stored in float32 has 32. `fast` rounds the",
        "inputs of large dense layers to int8; hls4ml computes in fixed point. The row",
        "of float64 says how much of a difference is rounding in JAX itself: in a deep",
        "network that was hardly trained, inputs differ less from layer to layer, and",
        "its batch norms scale rounding up with them.",
        "",
        *_table(
            ("network", "engine", "equal", "apart", "difference", "bytes", "bits each"),
            _all(found, "answers"),
        ),
        "",
        "## Time",
        "",
        "Medians in milliseconds, and ratios of medians with a 95 % interval by the",
        "bootstrap: above 1 the engine is faster than JAX with float32 weights, or",
        "than itself with float32 weights. The engines of a network took turns, in",
        "random order. onnxruntime-web runs in node, with one thread; the threads of",
        "ONNX Runtime do not spin, but where it is said: there the second of two calls",
        "is timed.",
        "",
        *_table(
            ("network", "batch", "engine", "ms", "JAX / this", "float32 / this"),
            _all(found, "times"),
        ),
    ]
    if missing:
        lines += ["", "## What was not run", ""]
        lines += [
            f"- {why} Networks: {'; '.join(names)}." for why, names in missing.items()
        ]
    return "\n".join(lines) + "\n"


def _conclusion(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether answers are equal, and what a program costs one example at a time."""
    first, *others = engine_list.ENGINES
    inexact = {name for name in others if not engine_list.ENGINES[name].floats}
    counts = [
        row[2].replace(",", "").split(" of ")
        for row in _all(found, "answers")
        if row[1] not in (first, *inexact)
    ]
    lines = []
    if counts:
        equal = sum(same == every for same, every in counts)
        same, every = (sum(map(int, column)) for column in zip(*counts, strict=True))
        lines = [
            f"**{equal} of {len(counts)} pairs of a network and an engine that",
            "computes in floating point give the predictions of JAX for each of",
            f"their test examples** ({same:,} of {every:,} predictions are equal).",
        ]
    gains = [
        float(row[4].split()[0])
        for row in _all(found, "times")
        if row[1:3] == ["1", "JAX, program"]
    ]
    if gains:
        lines += [
            "A program with packed weights is, one example at a time,",
            f"{min(gains):.2f} to {max(gains):.2f} times as fast as JAX with float32",
            "weights.",
        ]
    return lines


def _all(found: Sequence[Mapping[str, Any]], key: str) -> list[list[str]]:
    return [row for rows in found for row in rows[key]]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return [lines[0], "|---|" + "---:|" * (len(header) - 1), *lines[1:]]


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, and prints or writes the page."""
    networks, engines = engine_networks.NETWORKS, engine_list.ENGINES
    parser = argparse.ArgumentParser(description="Trained networks in every engine.")
    parser.add_argument("--out", help="file to write; default: the screen")
    parser.add_argument("--workdir", default="runs/engines", help="of the trainings")
    parser.add_argument("--networks", nargs="+", choices=networks, default=networks)
    parser.add_argument("--engines", nargs="+", choices=engines, default=engines)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--num_test", type=int, help="test examples; 0 is all")
    parser.add_argument("--seconds", type=float, default=8, help="for a batch size")
    parser.add_argument("--times", action="store_true", help="only times are new")
    argv = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(argv)
    logging.set_verbosity(logging.ERROR)
    first = next(iter(engines))
    names = [name for name in engines if name == first or name in arguments.engines]
    command = shlex.join(["python", "-m", "benchmarks.engines", *argv])
    folder = pathlib.Path(arguments.workdir).absolute()
    kept = folder / "rows.json"
    rows = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    for name in arguments.networks:
        case = engine_networks.load(name, folder, arguments.num_test)
        before = rows.get(name) if arguments.times else None
        rows[name] = measure(case, names, arguments.batches, arguments.seconds, before)
        small_files.write(kept, json.dumps(rows))
        page = write_report([rows[name] for name in networks if name in rows], command)
        if arguments.out:  # after each network, so that nothing is lost
            out = pathlib.Path(arguments.out)
            out.parent.mkdir(parents=True, exist_ok=True)
            small_files.write(out, page)
    if not arguments.out:
        print(page)


if __name__ == "__main__":
    main()
