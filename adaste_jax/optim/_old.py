"""Names that `adaste_jax.optim` had in 0.1; they are removed in 0.3."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from adaste_jax.estimators import _adaste_rule
from adaste_jax.optim import _adaste, _base
from adaste_jax.optim._schedules import per_epoch


def adaste(
    learning_rate: optax.ScalarOrSchedule,
    *,
    mu: optax.ScalarOrSchedule,
    alpha: ArrayLike = 0.01,
    rule: _adaste_rule.Rule = "identity",
    cap: ArrayLike = 1.2,
    b1: float = 0.9,
    b2: float = 0.999,
) -> optax.GradientTransformation:
    """Adam, and a slope in units of the layer, which by default is 1."""
    return optax.chain(
        optax.scale_by_adam(b1=b1, b2=b2),
        _adaste.scale_by_adaste(mu, alpha=alpha, rule=rule, cap=cap, unit="rms"),
        optax.scale_by_learning_rate(learning_rate),
    )


def anneal(
    init_value: float, rate: float, max_value: float, steps_per_epoch: int
) -> optax.Schedule:
    """min(init_value rate^(e + 1), max_value) in epoch e (from 0)."""
    _check("anneal", 0 < init_value <= max_value, "0 < init_value <= max_value")
    _check("anneal", rate >= 1, "rate >= 1")
    schedule = optax.exponential_decay(init_value * rate, 1, rate, end_value=max_value)
    return per_epoch(schedule, steps_per_epoch)


def grow(rate: float, interval: int) -> optax.Schedule:
    """min(rate^(i + 1), 1e35) in interval i (from 0)."""
    return anneal(1.0, rate, 1e35, interval)


def cosine_per_epoch(
    init_value: float,
    num_epochs: int,
    steps_per_epoch: int,
    *,
    end_value: float = 1e-16,
    lead: int = 1,
) -> optax.Schedule:
    """A cosine of (e + lead) / num_epochs, from `init_value` to `end_value`."""
    _check("cosine_per_epoch", num_epochs >= 1, "num_epochs >= 1")
    _check("cosine_per_epoch", lead >= 0, "lead >= 0")

    def schedule(epoch: Any) -> Any:
        epoch = jnp.minimum(epoch + lead, num_epochs)
        cosine = (1 + jnp.cos(jnp.pi * epoch / num_epochs)) / 2
        return end_value + (init_value - end_value) * cosine

    return per_epoch(schedule, steps_per_epoch)


def reste_exponent(
    num_epochs: int,
    steps_per_epoch: int,
    *,
    end_value: float = 3.0,
    form: str = "cosine",
) -> optax.Schedule:
    """From 1 to `end_value` on a cosine, or linearly, once per epoch."""
    _check("reste_exponent", num_epochs >= 1, "num_epochs >= 1")
    _check("reste_exponent", end_value >= 1, "end_value >= 1")
    if form not in ("cosine", "linear"):
        raise ValueError(f"`form` must be 'cosine' or 'linear', got {form!r}.")

    def schedule(epoch: Any) -> Any:
        x = jnp.minimum(epoch, num_epochs) / num_epochs
        rise = x if form == "linear" else 1 - jnp.cos(jnp.pi * x / 2)
        return 1 + (end_value - 1) * rise

    return per_epoch(schedule, steps_per_epoch)


def ede_sharpness(
    num_epochs: int,
    steps_per_epoch: int,
    *,
    init_value: float = 0.1,
    end_value: float = 10.0,
) -> optax.Schedule:
    """init_value (end_value / init_value)^(e / num_epochs) in epoch e (from 0)."""
    _check("ede_sharpness", num_epochs >= 1, "num_epochs >= 1")
    _check("ede_sharpness", min(init_value, end_value) > 0, "positive values")

    def schedule(epoch: Any) -> Any:
        x = jnp.minimum(epoch, num_epochs) / num_epochs
        return init_value * (end_value / init_value) ** x

    return per_epoch(schedule, steps_per_epoch)


def proxquant_strength(
    learning_rate: float, steps_per_epoch: int, *, rate: float = 1e-4
) -> optax.Schedule:
    """`learning_rate` times `rate` times the epoch (from 0)."""
    return per_epoch(lambda epoch: learning_rate * rate * epoch, steps_per_epoch)


def _check(name: str, holds: bool, needs: str) -> None:
    if not holds:
        raise ValueError(f"{name} needs {needs}.")


class MirrorDescentRecipe(NamedTuple):
    """Published hyperparameters of one method, data set and network."""

    learning_rate: float
    decay: float
    beta_rate: float
    beta_interval: int


# fmt: off
_RECIPES = {  # rows: md_tanh_s, md_softmax_s, md_tanh, md_softmax, pmf
    ("cifar10", "resnet18"): (
        (1e-3, 0.3, 1.02, 200), (1e-3, 0.3, 1.02, 200), (1e-3, 0.3, 1.01, 100),
        (1e-3, 0.2, 1.02, 200), (1e-3, 0.3, 1.1, 1000)),
    ("cifar10", "vgg16"): (
        (1e-3, 0.2, 1.2, 2000), (1e-3, 0.3, 1.2, 2000), (1e-3, 0.3, 1.1, 1000),
        (1e-2, 0.2, 1.05, 500), (1e-3, 0.5, 1.05, 500)),
    ("cifar100", "resnet18"): (
        (1e-3, 0.2, 1.2, 500), (1e-3, 0.2, 1.1, 200), (1e-3, 0.3, 1.05, 500),
        (1e-3, 0.2, 1.05, 500), (1e-3, 0.3, 1.01, 100)),
    ("cifar100", "vgg16"): (
        (1e-3, 0.5, 1.05, 500), (1e-4, 0.2, 1.2, 500), (1e-3, 0.3, 1.05, 500),
        (1e-4, 0.3, 1.01, 100), (1e-4, 0.5, 1.02, 200)),
    ("tinyimagenet", "resnet18"): (
        (1e-3, 0.1, 1.2, 500), (1e-3, 0.1, 1.02, 100), (1e-3, 0.5, 1.2, 2000),
        (1e-3, 0.2, 1.02, 200), (1e-3, 0.5, 1.01, 100)),
}
# fmt: on
_METHODS = ("md_tanh_s", "md_softmax_s", "md_tanh", "md_softmax", "pmf")
_BY_METHOD = {
    (method, *task): MirrorDescentRecipe(*row)
    for task, rows in _RECIPES.items()
    for method, row in zip(_METHODS, rows, strict=True)
}

_EXPONENTIAL = "optim.per_epoch(optax.exponential_decay({}), {})"
_RECIPE = "the numbers themselves; docs/methods/md_tanh_s.md has the table"

NAMES: dict[str, tuple[Any, str]] = {
    "MIRROR_DESCENT_RECIPES": (_BY_METHOD, _RECIPE),
    "MirrorDescentRecipe": (MirrorDescentRecipe, _RECIPE),
    "ScaleByAdasteState": (_base.StepState, "optim.StepState"),
    "adaste": (
        adaste,
        "optax.adam(learning_rate), which it is; with a slope, optax.chain("
        "optax.scale_by_adam(), optim.scale_by_adaste(mu, rule=rule, cap=1.2, "
        'unit="rms"), optax.scale_by_learning_rate(learning_rate))',
    ),
    "anneal": (
        anneal,
        _EXPONENTIAL.format(
            "init_value * rate, 1, rate, end_value=max_value", "steps_per_epoch"
        ),
    ),
    "cosine_per_epoch": (
        cosine_per_epoch,
        "optim.per_epoch(schedule, steps_per_epoch), with schedule(epoch) = "
        "optax.cosine_decay_schedule(init_value, num_epochs)(epoch + lead)",
    ),
    "ede_sharpness": (
        ede_sharpness,
        _EXPONENTIAL.format(
            "init_value, num_epochs, end_value / init_value, end_value=end_value",
            "steps_per_epoch",
        ),
    ),
    "grow": (
        grow,
        _EXPONENTIAL.format("rate, 1, rate, end_value=1e35", "interval"),
    ),
    "proxquant_strength": (
        proxquant_strength,
        "optim.per_epoch(lambda epoch: learning_rate * rate * epoch, steps_per_epoch)",
    ),
    "reste_exponent": (
        reste_exponent,
        "optim.per_epoch(lambda epoch: 1 + (end_value - 1) * (1 - jnp.cos(jnp.pi * "
        "(epoch / num_epochs) / 2)), steps_per_epoch)",
    ),
}
"""For each old name, its value and the text of what to write instead."""
