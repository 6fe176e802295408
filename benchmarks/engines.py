"""Networks in ONNX Runtime against JAX: size of the file, time to load, latency.

    python -m benchmarks.engines --out=docs/results/engines.md

The programs of a row take turns in one process, in random order. A ratio is a ratio of
medians, with a 95 % bootstrap interval.
"""

import argparse
import functools
import importlib.metadata
import os
import pathlib
import platform
import random
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import onnxruntime

import adaste_jax
from adaste_jax import export
from experiments import models

NETWORKS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "MLP, 3 x 4096": ("mlp", (28, 28), {"features": (4096, 4096, 4096)}),
    "ResNet-18": ("resnet18", (32, 32, 3), {}),
    "ViT": ("vit", (28, 28, 1), {}),
}
BATCHES = (1, 16)
FORMS = {"ONNX": False, "ONNX, fast": True}
COLUMNS = ("network", "batch", "JAX ms", "ONNX ms", "JAX / ONNX", "fast ms")


def build(name: str) -> tuple[Any, Any, Any, tuple[int, ...]]:
    """A network with one-bit weights, its statistics, and the shape of an input."""
    model, shape, options = NETWORKS[name]
    module = models.create(model, 10, **options)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(8, *shape)).astype(np.float32)

    @jax.jit
    def start(key: jax.Array) -> tuple[Any, Any]:
        variables = dict(module.init(key, inputs, train=False))
        weights = adaste_jax.deploy(variables.pop("params"))
        _, state = module.apply(
            {"params": weights, **variables},
            inputs,
            train=True,
            mutable=list(variables),
        )
        return weights, state

    weights, state = start(jax.random.key(0))
    return module, weights, state, shape


def times(
    contestants: Mapping[str, Callable[[], Any]], repeats: int
) -> dict[str, np.ndarray]:
    """Seconds of each call of each program; the programs take turns in random order."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values():
        for _ in range(3):
            run()
    order = random.Random(0)
    for _ in range(repeats):
        for name in order.sample(list(contestants), len(contestants)):
            start = time.perf_counter()
            contestants[name]()
            found[name].append(time.perf_counter() - start)
    return {name: np.asarray(values) for name, values in found.items()}


def ratio(above: np.ndarray, below: np.ndarray, draws: int = 2000) -> str:
    """The ratio of the medians of times taken in turns, and its 95 % interval."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(above), (draws, len(above)))
    found = np.median(above[chosen], 1) / np.median(below[chosen], 1)
    low, high = np.quantile(found, [0.025, 0.975])
    return f"{np.median(above) / np.median(below):.2f} ({low:.2f} to {high:.2f})"


def measure(
    name: str, batches: Sequence[int], repeats: int
) -> tuple[list[list[str]], list[list[str]]]:
    """The rows of a network in both tables."""
    module, weights, state, shape = build(name)
    sessions, sizes = {}, []
    count = sum(leaf.size for leaf in jax.tree.leaves(weights))
    network = jax.jit(functools.partial(module.apply, train=False))
    variables = {"params": weights, **state}
    rng = np.random.default_rng(1)
    probes = rng.normal(size=(256, *shape)).astype(np.float32)
    exact = np.concatenate([network(variables, x) for x in np.split(probes, 8)])
    for form, fast in FORMS.items():
        start = time.perf_counter()
        data = export.to_onnx(module, weights, state, input_shape=shape, fast=fast)
        written = time.perf_counter() - start
        loads = []
        for _ in range(5):
            start = time.perf_counter()
            sessions[form] = onnxruntime.InferenceSession(
                data, providers=["CPUExecutionProvider"]
            )
            loads.append(time.perf_counter() - start)
        found = np.concatenate(
            [sessions[form].run(None, {"input": x})[0] for x in np.split(probes, 8)]
        )
        error = np.sqrt(np.mean((found - exact) ** 2)) / exact.std()
        other = int((found.argmax(-1) != exact.argmax(-1)).sum())
        sizes.append(
            [
                *(name, form, f"{count:,}", f"{len(data):,}"),
                *(f"{8 * len(data) / count:.3f}", f"{written:.1f}"),
                *(f"{np.median(loads):.2f}", f"{error:.1g}"),
                f"{other} of {len(probes)}",
            ]
        )
    rows = []
    for batch in batches:
        x = rng.normal(size=(batch, *shape)).astype(np.float32)
        on_device = jax.device_put(x)
        contestants: dict[str, Callable[[], Any]] = {
            "JAX": lambda x=on_device: np.asarray(network(variables, x)),
            **{
                form: functools.partial(session.run, None, {"input": x})
                for form, session in sessions.items()
            },
        }
        taken = times(contestants, repeats)
        cells = [f"{1e3 * np.median(taken['JAX']):.3g}"]
        for form in FORMS:
            cells.append(f"{1e3 * np.median(taken[form]):.3g}")
            cells.append(ratio(taken["JAX"], taken[form]))
        rows.append([name, str(batch), *cells])
    return sizes, rows


def write_report(
    sizes: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], command: str
) -> str:
    """The page, in Markdown."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("adaste_jax", "jax", "jaxlib", "numpy", "onnx", "onnxruntime")
    )
    lines = [
        "# Networks in ONNX Runtime",
        "",
        "One-bit networks of `experiments/models` with random weights, written by",
        "`export.to_onnx`, against `jax.jit` of the same network with its weights in",
        "float32. [What the files hold](../engines.md).",
        "",
        f"    {command}",
        "",
        f"CPU, {os.cpu_count()} cores, {platform.machine()}, {platform.system()};",
        f"Python {platform.python_version()}, {versions}. The machine was shared with",
        "other programs, so single figures may be off; the contestants of a row took",
        "turns, in random order.",
        "",
        "## Latency",
        "",
        "Medians in milliseconds, and ratios of medians with a 95 % interval by the",
        "bootstrap; above 1 where ONNX Runtime is faster. `fast` rounds the inputs of",
        "large dense layers to int8.",
        "",
        *_table((*COLUMNS, "JAX / fast"), rows),
        "",
        "## Files",
        "",
        "Seconds to write the model and to load it, which unpacks its weights; the",
        "error is the root mean square over logits, in standard deviations of the",
        "logits, on 256 random inputs; `changed` counts other predictions there. The",
        "weights are random, so the logits of the classes lie close together.",
        "",
        *_table(
            (
                *("network", "form", "parameters", "bytes", "bits each"),
                *("write s", "load s", "error", "changed"),
            ),
            sizes,
        ),
    ]
    return "\n".join(lines) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return [lines[0], "|---|" + "---:|" * (len(header) - 1), *lines[1:]]


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, and prints or writes the page."""
    parser = argparse.ArgumentParser(description="ONNX Runtime against JAX.")
    parser.add_argument("--out", help="file to write; default: the screen")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--repeats", type=int, default=31)
    argv = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(argv)
    sizes, rows = [], []
    for name in arguments.networks:
        found = measure(name, arguments.batches, arguments.repeats)
        sizes += found[0]
        rows += found[1]
    command = shlex.join(["python", "-m", "benchmarks.engines", *argv])
    page = write_report(sizes, rows, command)
    if arguments.out:
        path = pathlib.Path(arguments.out)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, "utf-8")
    else:
        print(page)


if __name__ == "__main__":
    main()
