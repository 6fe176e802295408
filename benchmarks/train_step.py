"""What one-bit weights cost in a training step, against full precision.

    python -m benchmarks.train_step [--rounds=40] [--out=docs/results/overhead.md]

The steps of all methods are timed in turn, round by round, so that whatever else the
machine does falls on all of them; the ratio of medians is reported, with a 95 %
bootstrap interval.
"""

import pathlib
import platform
import time

import jax
import numpy as np
from absl import app, flags

from benchmarks import steps

_ROUNDS = flags.DEFINE_integer("rounds", 40, "Timed steps of each method.")
_OUT = flags.DEFINE_string("out", None, "Also write the table to this file.")

NETWORKS = ("mlp", "vgg_small")
METHODS = tuple(name for name in steps.METHODS if name != steps.TWO_PASSES)


def measure(takes, rounds):
    """Seconds of each step in each round, [rounds, steps]."""
    for take in takes:
        take()  # compiles
        take()
    seconds = np.empty((rounds, len(takes)))
    rng = np.random.default_rng(0)
    for row in seconds:
        for column in rng.permutation(len(takes)):
            begin = time.perf_counter()
            takes[column]()
            row[column] = time.perf_counter() - begin
    return seconds


def main(argv):
    """Prints the table, and writes it."""
    del argv
    device = jax.devices()[0]
    (batch,) = {steps.NETWORKS[network].shape[0] for network in NETWORKS}
    lines = [
        f"`python -m benchmarks.train_step --rounds={_ROUNDS.value}`, batch {batch}, "
        f"float32, {device.platform} ({device.device_kind}), {platform.machine()}, "
        f"jax {jax.__version__}.",
        "",
        "With shares: the step also reports the share of weights that flip, that are "
        "saturated, and whose gradient is zero.",
        "",
        "| network | method | ms a step (median) | ratio to full precision | 95 % |",
        "| --- | --- | --- | --- | --- |",
    ]
    for network in NETWORKS:
        title = steps.NETWORKS[network].title
        rows = [
            (method, shares)
            for method in METHODS
            for shares in ((False,) if method == "full precision" else (False, True))
        ]
        seconds = measure(
            [steps.make(network, method, shares=shares) for method, shares in rows],
            _ROUNDS.value,
        )
        medians = np.median(seconds, axis=0)
        for column, (method, shares) in enumerate(rows):
            method += ", with shares" if shares else ""
            _, low, high = steps.ratio(seconds, column, 0)
            lines.append(
                f"| {title} | {method} | {1e3 * medians[column]:.1f} | "
                f"{medians[column] / medians[0]:.3f} | {low:.3f} to {high:.3f} |"
            )
            print(lines[-1], flush=True)
    table = "\n".join(lines) + "\n"
    print(table)
    if _OUT.value:
        path = pathlib.Path(_OUT.value)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# Cost of one-bit weights in a training step\n\n{table}")


if __name__ == "__main__":
    app.run(main)
