r"""Does AdaSTE's adaptive rule help, and where in the update?

    python -m experiments.studies.adaptive_rule --workdir=runs/adaptive_rule \
        --config=experiments/configs/fashion_mnist_mlp.py --config.validation=0.1 \
        --seeds=3

Every row of `VARIANTS` is one way to put the slope of AdaSTE into an update, or to
leave it out; `experiments.compare` does the rest and writes the table. The results are
in docs/results/adaptive_rule.md.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from absl import app

from adaste_jax import estimators, optim
from adaste_jax import methods as library
from experiments import command_line, methods
from experiments.compare import command, entry

_STE: dict[str, Any] = {"adam": False, "forward": "sign"}
_SLOPE: dict[str, Any] = _STE | {"average": 0.99, "place": "after", "cap": 2.0}

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
    "slope after Adam 0.99, cap 1.2, away 1": (
        {"place": "after", "average": 0.99, "cap": 1.2, "away": 1.0}
    ),
    "Adam 0.99, forward only": {"average": 0.99},
    "noise threshold 0.1, forward only": {"noise": 0.1},
    # A plain average and the paper's forward map, in its own units.
    "average 0.9, STE": _STE,
    "average 0.99, STE": _STE | {"average": 0.99},
    "average 0.999, STE": _STE | {"average": 0.999},
    "average 0.99, slope, cap 2": _SLOPE | {"forward": "literal"},
    "average 0.99, slope, cap 2, sign": _SLOPE,
    "average 0.99, slope, cap 2, sign, mu 0.01": _SLOPE | {"mu_end": 0.01},
    "average 0.99, slope, cap 2, sign, away 0.3": _SLOPE | {"away": 0.3},
    "average 0.99, slope, cap 2, sign, away 1": _SLOPE | {"away": 1.0},
    "average 0.9, slope, cap 2, sign, away 1": _SLOPE | {"average": 0.9, "away": 1.0},
    "average 0.999, slope, cap 2, sign, away 0": _SLOPE
    | {"average": 0.999, "away": 0.0},
}


def enter() -> None:
    """Registers the method of this study, which is not part of the library."""
    methods.METHODS["adaptive_rule"] = adaptive_rule


def adaptive_rule(
    steps: int,
    *,
    learning_rate: float = 3e-3,
    forward: str = "annealed",
    place: str = "none",
    average: float = 0.9,
    adam: bool = True,
    cap: float = 0.5,
    away: float = -1.0,
    noise: float = 0.0,
    keep_rms: bool = False,
    alpha: float = 0.01,
    mu_init: float = 0.01,
    mu_end: float = 100.0,
    anneal_fraction: float = 0.8,
    **run: Any,
) -> library.Method:
    """A method with AdaSTE's slope in one place of the update, or in none.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        forward: Forward map: `"annealed"` in units of the layer, `"literal"` as in the
            paper, in absolute units, or `"sign"`.
        place: Place of the slope: `"before"` or `"after"` the average, or `"none"`.
        average: Coefficient of the average of the gradient.
        adam: Whether the average is divided by Adam's second moment.
        cap: Largest slope toward zero.
        away: Slope away from zero; below 0 it is that of the rule.
        noise: Latents whose average is below this many standard deviations are held.
        keep_rms: Whether the latents of a layer are scaled to a constant RMS.
        alpha: Margin of AdaSTE.
        mu_init: mu in step 0.
        mu_end: mu at the end of annealing.
        anneal_fraction: Share of the run in which mu grows.
        **run: Keywords of every method.
    """
    annealed = forward == "annealed"
    base = library.adaste(
        steps,
        learning_rate=learning_rate,
        alpha=alpha,
        mu_init=mu_init,
        mu_end=mu_end,
        anneal_fraction=anneal_fraction,
        **run,
    )
    mu = lambda step: base.values(step)["mu"]
    slope = optim.scale_by_adaste(
        mu,
        alpha=alpha,
        cap=cap,
        away=None if away < 0 else away,
        unit="rms" if annealed else None,
    )
    mean = optax.scale_by_adam(b1=average) if adam else optax.ema(average, debias=True)
    chain = {"none": [mean], "before": [slope, mean], "after": [mean, slope]}[place]
    if noise:
        chain.append(hold_in_noise(noise, average=average))
    schedule = optax.cosine_decay_schedule(learning_rate, steps)
    chain.append(optax.scale_by_learning_rate(schedule))
    if keep_rms:
        chain.append(constant_rms())
    real = run.get("real_learning_rate", 1e-3)
    tx = optax.partition(
        {
            "latent": optax.chain(*chain),
            "real": optax.adam(optax.cosine_decay_schedule(real, steps)),
        },
        functools.partial(optim.labels, rules={"latent": base.where}),
        mask_compatible_extra_args=True,
    )
    if forward == "sign":
        return library.ste(steps, **run)._replace(tx=tx)
    literal = functools.partial(estimators.adaste_paper, rule="identity")
    estimator = estimators.adaste if annealed else literal
    return library.from_estimator(
        functools.partial(estimator, alpha=alpha),
        tx,
        where=base.where,
        schedules={"mu": mu},
        binary_from=base.binary_from,
    )


class HoldInNoiseState(NamedTuple):
    """Averages of the updates and of their squares, and the step count."""

    step: jax.Array
    first: Any
    second: Any


def hold_in_noise(threshold: float, *, average: float) -> optax.GradientTransformation:
    """Sets updates to 0 where their average is smaller than their noise.

    With m and v the averages of u and u^2 (v over ten times as many steps), u is kept
    where |m| > threshold sqrt(v).

    Args:
        threshold: Threshold in standard deviations.
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


def constant_rms() -> optax.GradientTransformation:
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
    command_line.run(main, __doc__)
