"""Start-up, and what grows with a network: each measured once, in a process of its own.

    python -m benchmarks.growth [--out=docs/results/growth.md] [--only=compile]

Seconds of the clock and the most memory that the process held, in MB. What is compared
with the number of layers or parameters should grow in proportion to it.
"""

import argparse
import json
import pathlib
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

DEPTHS = (4, 12, 24, 48)
STEPS = 20
SIDE = 10_000  # 100 M parameters are a square of this side


def start(what: str) -> dict[str, float]:
    """Seconds to import a module, in a process that does nothing else."""
    begin = time.perf_counter()
    __import__(what)
    return {"seconds": time.perf_counter() - begin}


def first_step() -> dict[str, float]:
    """Seconds of the quickstart until its first epoch is over, and of its other 19."""
    begin = time.perf_counter()
    from experiments import console
    from experiments.configs import quickstart
    from experiments.training import loop

    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        config = quickstart.get_config()
        config.tensorboard = False
        loop.train_and_evaluate(
            config.lock(),
            pathlib.Path(folder) / "run",
            console=console.create(file=open("/dev/null", "w")),  # noqa: SIM115
            on_metrics=lambda step, values: times.append(time.perf_counter() - begin),
        )
    return {"first epoch": times[0], "whole": time.perf_counter() - begin}


def compiled(depth: int, method: str, scan: str) -> dict[str, float]:
    """Seconds to trace and to compile a step of a decoder, and MB that it needs."""
    import jax
    import numpy as np

    from adaste_jax import methods, train
    from adaste_jax.nn import linen
    from experiments import models

    network = models.create("decoder", 256, depth=depth, width=256, heads=4, scan=scan)
    made = methods.METHODS[method](1000)
    tokens = np.zeros((16, 128), np.uint8)
    forward = linen.functional(network)

    def initial():
        params = network.init(jax.random.key(0), tokens, train=False)["params"]
        return train.TrainState.create(
            made.init(jax.random.key(1), params), made.tx, key=jax.random.key(2)
        )

    state = jax.eval_shape(initial)
    step = train.make_train_step(forward, made)
    labels = jax.ShapeDtypeStruct(tokens.shape, np.int32)
    begin = time.perf_counter()
    lowered = step.lower(state, tokens, labels)
    traced = time.perf_counter() - begin
    found = lowered.compile()
    memory = found.memory_analysis()
    return {
        "trace": traced,
        "compile": time.perf_counter() - begin - traced,
        "temporary MB": memory.temp_size_in_bytes / 2**20,
    }


def loader(resident: bool) -> dict[str, float]:
    """Milliseconds for a batch of 128 of CIFAR-10 without a step."""
    from experiments.configs import cifar10_vgg_small
    from experiments.training import problem

    config = cifar10_vgg_small.get_config()
    config.resident, config.batch_size = resident, 128
    feed = problem.Problem(config.lock()).feed
    batches = feed.batches(0)
    for _ in range(STEPS):
        next(batches)
    begin = time.perf_counter()
    for _ in range(10 * STEPS):
        next(batches)
    return {"milliseconds": (time.perf_counter() - begin) / STEPS * 100}


def files() -> dict[str, float]:
    """Seconds to save and restore 100 M parameters, and to write their one-bit file."""
    import jax
    import numpy as np

    from adaste_jax import export
    from experiments.runs import checkpoints

    kernel = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32)
    state = {"layer": {"kernel": jax.device_put(kernel)}}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        store = checkpoints.Checkpoints(pathlib.Path(folder) / "checkpoints")
        begin = time.perf_counter()
        store.save(1, {"state": state}, {})
        store.wait()
        found["save"] = time.perf_counter() - begin
        begin = time.perf_counter()
        store.restore({"state": state})
        found["restore"] = time.perf_counter() - begin
        store.close()
        begin = time.perf_counter()
        export.save(pathlib.Path(folder) / "network.safetensors", state)
        found["one-bit file"] = time.perf_counter() - begin
        begin = time.perf_counter()
        export.load(pathlib.Path(folder) / "network.safetensors")
        found["load it"] = time.perf_counter() - begin
    return found


PARTS: dict[str, tuple[Callable[..., dict[str, float]], tuple[Any, ...]]] = {
    "import adaste_jax": (start, ("adaste_jax",)),
    "import experiments.main": (start, ("experiments.main",)),
    "quickstart": (first_step, ()),
    **{
        f"compile: {depth} layers, {method}, {form}": (compiled, (depth, method, scan))
        for form, scan in (("unrolled", "off"), ("scanned", "on"))
        for method in ("full_precision", "adaste")
        for depth in DEPTHS
    },
    "loader: resident": (loader, (True,)),
    "loader: streamed": (loader, (False,)),
    "files: 100 M parameters": (files, ()),
}


def measured(name: str) -> dict[str, float]:
    """Runs a part in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.growth", f"--part={name}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    """The page, in Markdown."""
    lines = [
        "# Start-up and growth",
        "",
        "How long it takes until training begins, and what grows with the network:",
        "seconds of the clock, measured once, each part in a process of its own.",
        "",
        "    python -m benchmarks.growth --out=docs/results/growth.md",
        "",
        f"CPU, {platform.machine()}; Python {platform.python_version()}.",
        "The decoder of `compile` has a width of 256, in float32; steps report shares.",
        "",
        "| part | measured | most memory, MB |",
        "| --- | --- | --- |",
    ]
    for name, values in found.items():
        values = dict(values)
        memory = values.pop("memory")
        told = ", ".join(
            f"{key} {value:.3g}{'' if ' ' in key or key == 'milliseconds' else ' s'}"
            for key, value in values.items()
        )
        lines.append(f"| {name} | {told} | {memory:,.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures every part, and prints or writes the page."""
    parser = argparse.ArgumentParser(description="Start-up, and what grows.")
    parser.add_argument("--out", help="file to write; default: the screen")
    parser.add_argument("--only", default="", help="parts whose names begin so")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        function, given = PARTS[arguments.part]
        found = function(*given)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**found, "memory": memory}))
        return
    names = [name for name in PARTS if name.startswith(arguments.only)]
    rows = {}
    for name in names:
        rows[name] = measured(name)
        print(name, rows[name], file=sys.stderr)
    page = table(rows)
    if arguments.out:
        pathlib.Path(arguments.out).write_text(page, "utf-8")
    else:
        print(page)


if __name__ == "__main__":
    main()
