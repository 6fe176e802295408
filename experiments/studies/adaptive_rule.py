r"""Does AdaSTE's adaptive rule help, and where in the update?

    python -m experiments.studies.adaptive_rule --workdir=runs/adaptive_rule \
        --config=experiments/configs/fashion_mnist_mlp.py --config.validation=0.1 \
        --seeds=3

Every row of `VARIANTS` is one way to put the slope of AdaSTE into an update, or to
leave it out; all else is as in `experiments.compare`, which writes the same table. What
was found: docs/results/adaptive_rule.md.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from absl import app

from adaste_jax import estimators, optim
from experiments import command_line, methods
from experiments.compare import command, entry

VARIANTS: dict[str, dict[str, Any]] = {
    # Adam, weights in units of the layer (the recommended forward map).
    "ste": {"forward": "sign"},
    "forward only": {},
    "slope before Adam": {"place": "before"},
    "slope before Adam, RMS kept": {"place": "before", "keep_rms": True},
    "slope before Adam, away 1": {"place": "before", "cap": 1.2, "away": 1.0},
    "slope after Adam, cap 0.5": {"place": "after"},
    "slope after Adam, cap 1.2": {"place": "after", "cap": 1.2},
    "slope after Adam, cap 1.2, away 1": {"place": "after", "cap": 1.2, "away": 1.0},
    "slope after Adam, cap 2, away 1": {"place": "after", "cap": 2.0, "away": 1.0},
    "slope after Adam 0.99, cap 1.2, away 1": {
        "place": "after",
        "average": 0.99,
        "cap": 1.2,
        "away": 1.0,
    },
    "Adam 0.99, forward only": {"average": 0.99},
    "noise threshold 0.1, forward only": {"noise": 0.1},
    # A plain average and the paper's forward map, in its own units.
    "average 0.9, STE": {"adam": False, "forward": "sign"},
    "average 0.99, STE": {"adam": False, "average": 0.99, "forward": "sign"},
    "average 0.999, STE": {"adam": False, "average": 0.999, "forward": "sign"},
    "average 0.99, slope, cap 2": {
        "adam": False,
        "average": 0.99,
        "place": "after",
        "cap": 2.0,
        "forward": "literal",
    },
    "average 0.99, slope, cap 2, sign": {
        "adam": False,
        "average": 0.99,
        "place": "after",
        "cap": 2.0,
        "forward": "sign",
    },
    "average 0.99, slope, cap 2, sign, mu 0.01": {
        "adam": False,
        "average": 0.99,
        "place": "after",
        "cap": 2.0,
        "forward": "sign",
        "mu_end": 0.01,
    },
    "average 0.99, slope, cap 2, sign, away 0.3": {
        "adam": False,
        "average": 0.99,
        "place": "after",
        "cap": 2.0,
        "away": 0.3,
        "forward": "sign",
    },
    "average 0.99, slope, cap 2, sign, away 1": {
        "adam": False,
        "average": 0.99,
        "place": "after",
        "cap": 2.0,
        "away": 1.0,
        "forward": "sign",
    },
    "average 0.9, slope, cap 2, sign, away 1": {
        "adam": False,
        "average": 0.9,
        "place": "after",
        "cap": 2.0,
        "away": 1.0,
        "forward": "sign",
    },
    "average 0.999, slope, cap 2, sign, away 0": {
        "adam": False,
        "average": 0.999,
        "place": "after",
        "cap": 2.0,
        "away": 0.0,
        "forward": "sign",
    },
}


DEFAULTS: dict[str, Any] = {
    "learning_rate": 3e-3,
    "forward": "annealed",  # "sign"; "literal": the paper's, in absolute units
    "place": "none",  # of the slope: "before" or "after" the average
    "average": 0.9,
    "adam": True,  # divides the average by Adam's second moment
    "cap": 0.5,
    "away": -1.0,  # slope away from zero; below 0 it is the rule's
    "noise": 0.0,  # holds latents whose average is below so many standard deviations
    "keep_rms": False,  # scales the latents of a layer to a constant RMS
    **methods.ANNEALING,
}


def enter() -> None:
    """Enters the method of this study, which is not one of the experiments."""
    methods.enter("adaptive_rule", **DEFAULTS)(_adaptive_rule)


def _adaptive_rule(options: Any, length: methods.Length) -> methods.Method:
    mu, soft_steps = methods.annealing(options, length)
    annealed = options.forward == "annealed"
    slope = optim.scale_by_adaste(
        mu,
        alpha=options.alpha,
        cap=options.cap,
        away=None if options.away < 0 else options.away,
        unit="rms" if annealed else None,
    )
    average = (
        optax.scale_by_adam(b1=options.average)
        if options.adam
        else optax.ema(options.average, debias=True)
    )
    parts = {"none": [average], "before": [slope, average], "after": [average, slope]}
    chain = parts[options.place]
    if options.noise:
        chain.append(hold_in_noise(options.noise, average=options.average))
    chain.append(optax.scale_by_learning_rate(methods.cosine(options, length)))
    if options.keep_rms:
        chain.append(keep_rms())
    estimator = estimators.ste_identity
    hyperparameters = {}
    if options.forward != "sign":
        estimator = functools.partial(
            estimators.adaste,
            alpha=options.alpha,
            rule="identity",
            unit="rms" if annealed else None,
            rescale=annealed,
        )
        hyperparameters = {"mu": mu}
    return methods.Method(
        tx=optax.chain(*chain),
        estimator=estimator,
        hyperparameters=hyperparameters,
        soft_steps=0 if options.forward == "sign" else soft_steps,
    )


class HoldInNoiseState(NamedTuple):
    """Averages of the updates and of their squares, and the step count."""

    step: jax.Array
    first: Any
    second: Any


def hold_in_noise(threshold: float, *, average: float) -> optax.GradientTransformation:
    """Sets updates to 0 where their average is less than their noise.

    With m and v the averages of u and u^2 (v over ten times as many steps), u is kept
    where |m| > threshold sqrt(v).

    Args:
        threshold: In standard deviations.
        average: Coefficient of m.

    Returns:
        A transformation.
    """
    slow = 1 - (1 - average) / 10

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return HoldInNoiseState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(updates, state, params=None):
        del params
        step = optax.safe_increment(state.step)
        first = jax.tree.map(
            lambda m, u: average * m + (1 - average) * u, state.first, updates
        )
        second = jax.tree.map(
            lambda v, u: slow * v + (1 - slow) * jnp.square(u), state.second, updates
        )
        scale_first, scale_second = 1 - average**step, 1 - slow**step
        updates = jax.tree.map(
            lambda u, m, v: jnp.where(
                jnp.abs(m) / scale_first > threshold * jnp.sqrt(v / scale_second), u, 0
            ),
            updates,
            first,
            second,
        )
        return updates, HoldInNoiseState(step, first, second)

    return optax.GradientTransformation(init, update)


def keep_rms() -> optax.GradientTransformation:
    """Scales the latents of each layer back to the RMS they had before the step."""

    def update(updates, state, params):
        def scaled(update, latent):
            moved = latent + update
            square = lambda x: jnp.mean(jnp.square(x))
            return moved * jnp.sqrt(square(latent) / square(moved)) - latent

        return jax.tree.map(scaled, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def main(argv: list[str]) -> None:
    """Trains every variant, and prints the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    variants = {}
    for name, options in VARIANTS.items():
        rate = {} if options.get("adam", True) else {"learning_rate": 30.0}
        variants[name] = entry.Variant("adaptive_rule", {**rate, **options})
    command.from_flags(variants)


if __name__ == "__main__":
    enter()  # before the config is read
    command_line.run(main)
