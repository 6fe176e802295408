"""Times products with packed and with dense matrices on the default device.

    python -m benchmarks.packed_matmul --out=docs/results/packed_matmul.md
    python -m benchmarks.packed_matmul --programs --out=docs/results/programs.md

The second takes whole networks: the program of `export.to_stablehlo` against the same
network with its weights in float32. It builds them by `benchmarks.engines`.
All contestants of a row take turns in one process; a row holds medians and their
ratios. The memory bandwidth is measured in the same run.
"""

import argparse
import functools
import importlib.metadata
import os
import pathlib
import platform
import random
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from adaste_jax import export

SIZES = (1024, 2048, 4096, 8192)
BATCHES = (1, 16, 256)
NETWORKS = ("MLP, 3 x 4096", "ResNet-18")
PROGRAM_BATCHES = (1, 64)
FORMS: tuple[Literal["lookup", "planes", "unpack"], ...]
FORMS = ("lookup", "planes", "unpack")
LOOKUP_ROWS = 16  # beyond, a table lookup is not worth the wait


def medians(
    contestants: Mapping[str, Callable[[], jax.Array]], repeats: int
) -> dict[str, float]:
    """Median seconds of each form, after one warm-up each.

    They take turns, in a new order each time, since the previous program affects the
    caches and the free memory.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values():
        jax.block_until_ready(run())
    order = random.Random(0)
    for _ in range(repeats):
        for name in order.sample(list(contestants), len(contestants)):
            start = time.perf_counter()
            jax.block_until_ready(contestants[name]())
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def bandwidth(repeats: int, megabytes: int = 512) -> float:
    """Bytes per second when an array is read and written in place."""
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    array = jnp.zeros(megabytes * 2**20 // 4, jnp.float32)
    size = array.nbytes

    def run() -> jax.Array:
        nonlocal array
        array = add(array)
        return array

    return 2 * size / medians({"add": run}, repeats)["add"]


def measure(size: int, batch: int, repeats: int) -> dict[str, float]:
    """Median seconds for a square matrix: dense, and packed in each form."""
    rng = np.random.default_rng(0)
    kernel = np.where(rng.random((size, size), np.float32) < 0.5, -1, 1)
    dense = jnp.asarray(kernel, jnp.float32)
    half = dense.astype(jnp.bfloat16)
    packed = export.pack(dense, axis=0)
    x = jnp.asarray(rng.normal(size=(batch, size)), jnp.float32)
    x_half = x.astype(jnp.bfloat16)
    dot = jax.jit(jnp.dot)
    contestants: dict[str, Callable[[], jax.Array]] = {
        "float32": lambda: dot(x, dense),
        "bfloat16": lambda: dot(x_half, half),
        "packed": functools.partial(jax.jit(export.packed_matmul), x, packed),
    }
    for form in FORMS:
        if form != "lookup" or batch <= LOOKUP_ROWS:
            product = jax.jit(functools.partial(export.packed_matmul, form=form))
            contestants[form] = functools.partial(product, x, packed)
    exact = dot(x, dense)
    for name in ("packed", *FORMS):
        if name in contestants:
            np.testing.assert_allclose(contestants[name](), exact, atol=0.05)
    return medians(contestants, repeats)


def program_rows(name: str, batches: Sequence[int], repeats: int) -> list[list[str]]:
    """Rows of a network: its program and `jax.jit` with float32 weights, in turns."""
    from benchmarks import engines  # which needs ONNX Runtime

    module, weights, state, shape = engines.build(name)

    def forward(weights: Any, state: Any, inputs: jax.Array) -> Any:
        return module.apply({"params": weights, **state}, inputs, train=False)

    data = export.to_stablehlo(
        forward, weights, state, input_shape=shape, deploy=lambda weights: weights
    )
    program = jax.jit(jax.export.deserialize(bytearray(data)).call)
    dense = jax.jit(forward)
    count = sum(leaf.size for leaf in jax.tree.leaves(weights))
    rows = []
    for batch in batches:
        rng = np.random.default_rng(batch)
        x = jnp.asarray(rng.normal(size=(batch, *shape)), jnp.float32)
        changed = program(x).argmax(-1) != dense(weights, state, x).argmax(-1)
        taken = engines.times(
            {
                "program": lambda x=x: jax.block_until_ready(program(x)),
                "dense": lambda x=x: jax.block_until_ready(dense(weights, state, x)),
            },
            repeats,
        )
        rows.append(
            [name, f"{batch}", f"{8 * len(data) / count:.3f}"]
            + [f"{1e3 * np.median(taken[key]):.3g}" for key in ("dense", "program")]
            + [engines.ratio(taken["program"], taken["dense"]), f"{changed.sum()}"]
        )
    return rows


def bytes_moved(size: int, batch: int) -> dict[str, int]:
    """The smallest possible traffic: the matrix, inputs and outputs, each once."""
    ends = 2 * batch * size
    return {
        "float32": 4 * size * size + 4 * ends,
        "bfloat16": 2 * size * size + 2 * ends,
        "packed": size * size // 8 + 4 * ends,
    }


def write_report(
    rows: Mapping[tuple[int, int], Mapping[str, float]],
    bytes_per_second: float,
    command: str,
) -> str:
    """The page, in Markdown."""
    times, memory = [], []
    for (size, batch), found in rows.items():
        dense = ("float32", "bfloat16")
        times.append(
            [f"{size}", f"{batch}"]
            + [f"{1e3 * found[name]:.3g}" for name in (*dense, "packed")]
            + [f"{found[name] / found['packed']:.2f}" for name in dense]
            + [f"{1e3 * found[form]:.3g}" if form in found else "" for form in FORMS]
        )
        cells = [f"{size}", f"{batch}"]
        for name, moved in bytes_moved(size, batch).items():
            share = moved / found[name] / bytes_per_second
            cells += [f"{moved / 1e6:.2f}", f"{100 * share:.0f} %"]
        memory.append(cells)
    ratios = ("float32 / packed", "bfloat16 / packed")
    megabytes = ("float32 MB", "share", "bfloat16 MB", "share", "packed MB", "share")
    lines = [
        "# Products with packed matrices",
        "",
        "Time of x W for square matrices W of +1 and -1, by `export.packed_matmul`,",
        "against `jnp.dot` in float32 and bfloat16. Medians of calls that took turns",
        "in one process, in random order; ratios are of medians, above 1 where packed",
        "is faster.",
        "",
        f"    {command}",
        "",
        *_setting(),
        "Memory bandwidth, measured in the same run by adding 1 to 512 MiB in place:",
        f"{bytes_per_second / 1e9:.1f} GB/s, read and written. The machine was shared",
        "with other programs, so single figures may be off.",
        "",
        "## Milliseconds",
        "",
        "`packed` is the form that is chosen by default.",
        "",
        *_table(("float32", "bfloat16", "packed", *ratios, *FORMS), times),
        "",
        "## Memory",
        "",
        "The least that has to move (matrix, inputs, outputs, each once), and the",
        "share of the bandwidth that this makes of the time. What lies in a cache may",
        "exceed 100 %.",
        "",
        *_table(megabytes, memory),
    ]
    for name in ("float32", "bfloat16"):
        slower = [
            f"{size} at batch {batch}"
            for (size, batch), found in rows.items()
            if found["packed"] > found[name]
        ]
        lines += ["", f"Slower than {name}: {', '.join(slower) or 'nowhere'}."]
    return "\n".join(lines) + "\n"


def write_programs(rows: Sequence[Sequence[str]], command: str) -> str:
    """The page of `--programs`, in Markdown."""
    columns = ("bits each", "float32 ms", "program ms", "program / float32", "changed")
    lines = [
        "# Programs with packed weights",
        "",
        "The program of `export.to_stablehlo` against `jax.jit` of the same network",
        "with its weights in float32. Medians of calls that took turns in one process,",
        "in random order; ratios of medians with a 95 % interval by the bootstrap,",
        "below 1 where the program is faster. `changed` counts other predictions in",
        "the batch. Weights are random.",
        "",
        f"    {command}",
        "",
        *_setting(),
        "The machine was shared with other programs, so single figures may be off.",
        "",
        *_table(columns, rows, first="network"),
    ]
    return "\n".join(lines) + "\n"


def _setting() -> list[str]:
    """Device and versions."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("adaste_jax", "jax", "jaxlib", "numpy")
    )
    device = jax.devices()[0]
    return [
        f"{device.platform} ({device.device_kind}), {os.cpu_count()} cores,",
        f"{platform.machine()}, {platform.system()};",
        f"Python {platform.python_version()}, {versions}.",
    ]


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], first: str = "size"
) -> list[str]:
    header = (first, "batch", *columns)
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return [lines[0], "|" + "---:|" * len(header), *lines[1:]]


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, and prints or writes the page."""
    parser = argparse.ArgumentParser(
        description="Products with packed matrices against dense ones."
    )
    parser.add_argument("--out", help="file to write; default: the screen")
    parser.add_argument("--programs", action="store_true", help="whole networks")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--batches", type=int, nargs="+", help="rows in a product")
    parser.add_argument("--repeats", type=int, default=21)
    argv = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(argv)
    command = shlex.join(["python", "-m", "benchmarks.packed_matmul", *argv])
    repeats = arguments.repeats
    if arguments.programs:
        batches = arguments.batches or PROGRAM_BATCHES
        names = arguments.networks
        found = [row for n in names for row in program_rows(n, batches, repeats)]
        page = write_programs(found, command)
    else:
        rows = {
            (size, batch): measure(size, batch, repeats)
            for size in arguments.sizes
            for batch in arguments.batches or BATCHES
        }
        page = write_report(rows, bandwidth(repeats), command)
    if arguments.out:
        path = pathlib.Path(arguments.out)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, "utf-8")
    else:
        print(page)


if __name__ == "__main__":
    main()
