"""Steps a second against PyTorch, on the same machine in the same run.

    pip install torch==2.13.0
    python -m benchmarks.speed [--rounds=15] [--networks=mlp,vgg_small] [--cores=1,2] \
        [--dtypes=float32] [--rows=0,2,3] [--native] [--out=TABLE.md]

Each framework has its own process for each number of cores, which waits until it is
told to take a step, so that their threads do not disturb each other. PyTorch is there
twice, eager and with `torch.compile`, with a fused Adam in both. In a round all rows
take a step, in random order. The ratio is that of the medians over rounds, with a 95 %
bootstrap interval. Our rows keep the memory of a step for the next one, as the programs
do; with ADASTE_KEEP_MEMORY=0 they do not. `--native` lets them use
the package adaste-jax-cpu.
"""

import importlib.util
import multiprocessing
import os
import pathlib
import platform
import resource
import time

import jax
import numpy as np
from absl import app, flags

from benchmarks import steps
from experiments import _allocator

_ROUNDS = flags.DEFINE_integer("rounds", 15, "Timed steps of each row.")
_NETWORKS = flags.DEFINE_list("networks", list(steps.NETWORKS), "Which.")
_DTYPES = flags.DEFINE_list("dtypes", ["float32", "bfloat16"], "Of the activations.")
_ROWS = flags.DEFINE_list("rows", ["0", "1", "2", "3", "4"], "Numbers in METHODS.")
_CORES = flags.DEFINE_list("cores", ["2"], "Numbers of cores, one table each.")
_NATIVE = flags.DEFINE_bool("native", False, "Our rows with adaste-jax-cpu.")
_OUT = flags.DEFINE_string("out", None, "Also write the table to this file.")

SHARES = "AdaSTE, recommended, with shares"
METHODS = ("full precision", "STE", "AdaSTE, recommended", SHARES, steps.TWO_PASSES)
HEADER = (
    "network, batch",
    "activations",
    "method",
    "ms",
    "PyTorch, ms",
    "torch.compile, ms",
    "ratio to PyTorch (95 %)",
    "ratio to torch.compile (95 %)",
    "ratio to full precision (95 %)",
    "page faults a step",
    "memory, MB",
    "first step, s",
)
NATIVE = "ADASTE_NATIVE"
OURS, EAGER, COMPILED = "adaste_jax", "PyTorch", "torch.compile"


def make(framework, network, method, dtype):
    """A function that takes a step of a row."""
    plain = method.removesuffix(", with shares")
    if framework == OURS:
        return steps.make(network, plain, dtype=dtype, shares=method != plain)
    from benchmarks import torch_networks  # here, since PyTorch may be missing

    return torch_networks.make(
        network, plain, dtype=dtype, compiled=framework == COMPILED
    )


def versions(framework):
    """Name and version of the framework, and its device."""
    if framework == OURS:
        device = jax.devices()[0]
        text = f"jax {jax.__version__} on {device.platform} ({device.device_kind})"
        if os.environ[NATIVE] == "1":
            import adaste_jax_cpu  # optional

            text += f" with adaste-jax-cpu {adaste_jax_cpu.__version__}"
        return text
    import torch

    return f"PyTorch {torch.__version__}"


def memory(name):
    """Megabytes: `VmRSS` as it is, `VmHWM` at most since `forget_peak`."""
    status = pathlib.Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1e3


def forget_peak():
    """Starts `VmHWM` anew."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def serve(connection, framework, cores):
    """Takes steps when told to: the program of a process.

    For each it sends seconds, page faults, and the megabytes that its row has added.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    if framework == OURS:
        _allocator.keep_memory()
    else:
        import torch

        torch.set_num_threads(cores)
    connection.send(versions(framework))
    taken, added = {}, {}
    while (row := connection.recv()) is not None:
        begin = time.perf_counter()
        before = memory("VmRSS")
        if new := row not in taken:
            if taken and next(iter(taken))[0] != row[0]:
                taken.clear()  # another network: make room
            forget_peak()
            taken[row] = make(framework, *row)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        taken[row]()
        seconds = time.perf_counter() - begin
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        if new:
            added[row] = memory("VmHWM") - before
        connection.send((seconds, faults, added[row]))


def measure(workers, network, rounds):
    """First calls, by column, and of each step [rounds, columns, 3]."""
    columns = [
        (worker, (network, METHODS[int(number)], dtype))
        for dtype in _DTYPES.value
        for number in _ROWS.value
        for worker in workers
        if worker[0] == OURS or METHODS[int(number)] != SHARES
    ]

    def take(worker, row):
        workers[worker].send(row)
        return workers[worker].recv()

    first = []
    for worker, row in columns:
        first.append(take(worker, row))
        print(f"{worker}, {row}: first step {first[-1][0]:.1f} s", flush=True)
        take(worker, row)
    found = np.empty((rounds, len(columns), 3))
    rng = np.random.default_rng(0)
    for line in found:
        for column in rng.permutation(len(columns)):
            line[column] = take(*columns[column])
    return columns, first, found


def lines_of(network, cores, columns, first, found):
    """Rows of the table of a network."""
    title, _, (batch, *_), *_ = steps.NETWORKS[network]
    seconds, faults = found[..., 0], found[..., 1]

    def ratio(column, framework, row):
        base = columns.index(((framework, cores), row))
        return "{:.2f} ({:.2f} to {:.2f})".format(*steps.ratio(seconds, column, base))

    for column, ((framework, count), row) in enumerate(columns):
        if count != cores or framework != OURS:
            continue
        _, method, dtype = row
        same = (network, method.removesuffix(", with shares"), dtype)
        median = lambda name, row=same: (
            1e3 * np.median(seconds[:, columns.index(((name, cores), row))])
        )
        full = (network, METHODS[0], dtype)
        cells = [
            f"{title}, {batch}",
            dtype,
            method,
            f"{1e3 * np.median(seconds[:, column]):.1f}",
            f"{median(EAGER):.1f}",
            f"{median(COMPILED):.1f}",
            ratio(column, EAGER, same),
            ratio(column, COMPILED, same),
            ratio(column, OURS, full) if (((OURS, cores), full) in columns) else "",
            f"{np.median(faults[:, column]):.0f}",
            f"{first[column][2]:.0f}",
            f"{first[column][0]:.1f}",
        ]
        yield f"| {' | '.join(cells)} |"


def main(argv):
    """Prints the tables, and writes them."""
    del argv
    os.environ[NATIVE] = str(int(_NATIVE.value))
    if _NATIVE.value and importlib.util.find_spec("adaste_jax_cpu") is None:
        raise app.UsageError("--native needs the package in native/: see its README.")
    context = multiprocessing.get_context("spawn")
    workers, names = {}, {}
    for cores in map(int, _CORES.value):
        for framework in (OURS, EAGER, COMPILED):
            ours, theirs = context.Pipe()
            context.Process(
                target=serve, args=(theirs, framework, cores), daemon=True
            ).start()
            workers[framework, cores] = ours
            names[ours.recv()] = None
    tables = {cores: [] for cores in map(int, _CORES.value)}
    for network in _NETWORKS.value:
        found = measure(workers, network, _ROUNDS.value)
        for cores, lines in tables.items():
            for line in lines_of(network, cores, *found):
                lines.append(line)
                print(line, flush=True)
    for connection in workers.values():
        connection.send(None)
    text = [
        f"`python -m benchmarks.speed --rounds={_ROUNDS.value} "
        f"--networks={','.join(_NETWORKS.value)} --cores={','.join(_CORES.value)}`, "
        f"{'; '.join(names)}; {os.cpu_count()} cores, {platform.machine()}.",
        "",
    ]
    for cores, lines in tables.items():
        text += [
            f"On {cores} core{'s' if cores > 1 else ''}:",
            "",
            f"| {' | '.join(HEADER)} |",
            f"| {' | '.join(['---'] * len(HEADER))} |",
            *lines,
            "",
        ]
    table = "\n".join(text)
    print(table)
    if _OUT.value:
        pathlib.Path(_OUT.value).write_text(table)


if __name__ == "__main__":
    app.run(main)
