"""What one-bit weights cost in a training step, against full precision.

    python -m benchmarks.train_step [--rounds=40] [--out=docs/results/overhead.md]

The steps of all methods are timed in turn, round by round, so that whatever else the
machine does falls on all of them; the ratio of medians is reported, with a 95 %
bootstrap interval.
"""

import functools
import pathlib
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from adaste_jax import estimators, optim, train
from adaste_jax.nn import linen
from experiments import models

_ROUNDS = flags.DEFINE_integer("rounds", 40, "Timed steps of each method.")
_OUT = flags.DEFINE_string("out", None, "Also write the table to this file.")

BATCH = 128
NETWORKS = {
    "MLP 784-2048-2048-2048-10": (
        ("mlp", {"features": (2048, 2048, 2048)}),
        (28, 28, 1),
    ),
    "VGG-small, quarter width": (
        ("vgg_small", {"width": 32, "dense": 256}),
        (32, 32, 3),
    ),
}


def recommended():
    """AdaSTE as the experiments train it."""
    mu = optax.exponential_decay(0.01, 1000, 1e4, end_value=100.0)
    estimator = functools.partial(
        estimators.adaste, rule="identity", unit="rms", rescale=True
    )
    return optim.adaste(1e-3, mu=mu), estimator, {"mu": mu}


def literal():
    """The paper's rule in the loss."""
    mu = optax.exponential_decay(0.01, 1000, 1e4, end_value=100.0)
    return optax.adam(1e-3), estimators.adaste, {"mu": mu}


METHODS = {
    "full precision": lambda: (optax.adam(1e-3), None, {}),
    "STE": lambda: (optax.adam(1e-3), estimators.ste_identity, {}),
    "AdaSTE, recommended": recommended,
    "AdaSTE, adaptive rule": literal,
}


def make(network, shape, method, shares):
    """A function that takes one step and waits for it."""
    name, options = network
    module = models.create(name, num_classes=10, **options)
    variables = dict(
        module.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False)
    )
    params = variables.pop("params")
    tx, estimator, hyperparameters = METHODS[method]()
    step = train.make_train_step(
        linen.functional(module),
        tx,
        estimator=estimator,
        hyperparameters=hyperparameters,
        shares=shares,
    )
    state = train.TrainState.create(
        params, tx, key=jax.random.key(1), model_state=variables
    )
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.normal(size=(BATCH, *shape)).astype(np.float32),
        "label": rng.integers(0, 10, BATCH).astype(np.int32),
    }
    holder = [state]

    def take():
        holder[0], report = step(holder[0], batch)
        jax.block_until_ready((holder[0], report))

    return take


def measure(steps, rounds):
    """Seconds of each step in each round, [rounds, steps]."""
    for take in steps:
        take()  # compiles
        take()
    seconds = np.empty((rounds, len(steps)))
    rng = np.random.default_rng(0)
    for row in seconds:
        for column in rng.permutation(len(steps)):
            begin = time.perf_counter()
            steps[column]()
            row[column] = time.perf_counter() - begin
    return seconds


def interval(seconds, column):
    """95 % bootstrap interval of the ratio of medians to the first column."""
    rng = np.random.default_rng(0)
    rows = rng.integers(len(seconds), size=(2000, len(seconds)))
    medians = np.median(seconds[rows], axis=1)
    return np.percentile(medians[:, column] / medians[:, 0], [2.5, 97.5])


def main(argv):
    """Prints the table, and writes it."""
    del argv
    device = jax.devices()[0]
    lines = [
        f"`python -m benchmarks.train_step --rounds={_ROUNDS.value}`, batch {BATCH}, "
        f"float32, {device.platform} ({device.device_kind}), {platform.machine()}, "
        f"jax {jax.__version__}.",
        "",
        "With shares: the step also reports the share of weights that flip, that are "
        "saturated, and whose gradient is zero.",
        "",
        "| network | method | ms a step (median) | ratio to full precision | 95 % |",
        "| --- | --- | --- | --- | --- |",
    ]
    for title, (network, shape) in NETWORKS.items():
        rows = [
            (method, shares)
            for method in METHODS
            for shares in ((False,) if method == "full precision" else (False, True))
        ]
        steps = [make(network, shape, *row) for row in rows]
        seconds = measure(steps, _ROUNDS.value)
        medians = np.median(seconds, axis=0)
        for column, (method, shares) in enumerate(rows):
            method += ", with shares" if shares else ""
            low, high = interval(seconds, column)
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
