"""Steps a second against PyTorch, on the same machine in the same run.

    pip install torch==2.13.0
    python -m benchmarks.speed [--rounds=15] [--networks=mlp,vgg_small,resnet18] \
        [--out=TABLE.md]

Each framework has its own process, which waits until it is told to take a step, so that
their threads do not disturb each other. In a round all rows take a step, in random
order. The ratio is that of the medians over rounds, with a 95 % bootstrap interval.
"""

import multiprocessing
import os
import pathlib
import platform
import time

import jax
import numpy as np
from absl import app, flags

from benchmarks import steps

_ROUNDS = flags.DEFINE_integer("rounds", 15, "Timed steps of each row.")
_NETWORKS = flags.DEFINE_list("networks", ["mlp", "vgg_small", "resnet18"], "Which.")
_OUT = flags.DEFINE_string("out", None, "Also write the table to this file.")

METHODS = ("full precision", "STE", "AdaSTE, recommended", steps.TWO_PASSES)
DTYPES = ("float32", "bfloat16")


def maker(framework):
    """The module that makes the steps of a framework."""
    if framework == "PyTorch":
        from benchmarks import torch_networks  # here, since PyTorch may be missing

        return torch_networks.make
    return steps.make


def versions(framework):
    """Name and version of the framework, and its device."""
    if framework == "PyTorch":
        import torch

        return f"PyTorch {torch.__version__} ({torch.get_num_threads()} threads)"
    device = jax.devices()[0]
    return f"jax {jax.__version__} on {device.platform} ({device.device_kind})"


def serve(connection, framework):
    """The program of a process: takes steps when told to."""
    connection.send(versions(framework))
    make = maker(framework)
    taken = {}
    while (row := connection.recv()) is not None:
        begin = time.perf_counter()
        if row not in taken:
            if taken and next(iter(taken))[0] != row[0]:
                taken.clear()  # another network: make room
            network, method, dtype = row
            taken[row] = make(network, method, dtype=dtype)
        taken[row]()
        connection.send(time.perf_counter() - begin)


def measure(workers, network, rounds):
    """Seconds of the first call, by row, and of each step, [rounds, rows]."""
    rows = [
        (framework, (network, method, dtype))
        for dtype in DTYPES
        for method in METHODS
        for framework in workers
    ]

    def take(framework, row):
        workers[framework].send(row)
        return workers[framework].recv()

    first = {}
    for framework, row in rows:
        first[framework, row] = take(framework, row)
        print(f"{framework}, {row}: first step {first[framework, row]:.1f} s")
        take(framework, row)
    seconds = np.empty((rounds, len(rows)))
    rng = np.random.default_rng(0)
    for line in seconds:
        for column in rng.permutation(len(rows)):
            line[column] = take(*rows[column])
    return rows, first, seconds


def text(seconds, column, base):
    """The ratio of two columns, for a cell."""
    return "{:.2f} ({:.2f} to {:.2f})".format(*steps.ratio(seconds, column, base))


def main(argv):
    """Prints the table, and writes it."""
    del argv
    context = multiprocessing.get_context("spawn")
    workers, names = {}, []
    for framework in ("adaste_jax", "PyTorch"):
        ours, theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, framework), daemon=True).start()
        workers[framework] = ours
        names.append(ours.recv())
    lines = [
        f"`python -m benchmarks.speed --rounds={_ROUNDS.value} "
        f"--networks={','.join(_NETWORKS.value)}`, {'; '.join(names)}; "
        f"{os.cpu_count()} cores, {platform.machine()}.",
        "",
        "| network, batch | activations | method | ms | images/s | PyTorch, ms | ratio "
        "to PyTorch (95 %) | ratio to full precision (95 %) | first step, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for network in _NETWORKS.value:
        rows, first, seconds = measure(workers, network, _ROUNDS.value)
        title, _, (batch, *_) = steps.NETWORKS[network]
        for column, (framework, row) in enumerate(rows):
            if framework == "PyTorch":
                continue
            _, method, dtype = row
            full = rows.index((framework, (network, "full precision", dtype)))
            theirs = rows.index(("PyTorch", row))
            time_of_step, time_of_theirs = np.median(seconds[:, [column, theirs]], 0)
            cells = [
                f"{title}, {batch}",
                dtype,
                method,
                f"{1e3 * time_of_step:.1f}",
                f"{batch / time_of_step:.0f}",
                f"{1e3 * time_of_theirs:.1f}",
                text(seconds, column, theirs),
                text(seconds, column, full),
                f"{first[framework, row]:.1f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    for connection in workers.values():
        connection.send(None)
    table = "\n".join(lines) + "\n"
    print(table)
    if _OUT.value:
        pathlib.Path(_OUT.value).write_text(table)


if __name__ == "__main__":
    app.run(main)
