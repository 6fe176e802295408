"""Times products with packed and with dense matrices on the default device.

    python -m benchmarks.packed_matmul --out=docs/results/packed_matmul.md

All forms of a row take turns in one process; a row has medians and their ratios. The
memory bandwidth is measured in the same run.
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
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from adaste_jax import export

SIZES = (1024, 2048, 4096, 8192)
BATCHES = (1, 16, 256)
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
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("adaste_jax", "jax", "jaxlib", "numpy")
    )
    device = jax.devices()[0]
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
        f"{device.platform} ({device.device_kind}), {os.cpu_count()} cores,",
        f"{platform.machine()}, {platform.system()};",
        f"Python {platform.python_version()}, {versions}.",
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


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    header = ("size", "batch", *columns)
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return [lines[0], "|" + "---:|" * len(header), *lines[1:]]


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, and prints or writes the page."""
    parser = argparse.ArgumentParser(
        description="Products with packed matrices against dense ones."
    )
    parser.add_argument("--out", help="file to write; default: the screen")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--repeats", type=int, default=21)
    argv = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(argv)
    rows = {
        (size, batch): measure(size, batch, arguments.repeats)
        for size in arguments.sizes
        for batch in arguments.batches
    }
    command = shlex.join(["python", "-m", "benchmarks.packed_matmul", *argv])
    page = write_report(rows, bandwidth(arguments.repeats), command)
    if arguments.out:
        path = pathlib.Path(arguments.out)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, "utf-8")
    else:
        print(page)


if __name__ == "__main__":
    main()
