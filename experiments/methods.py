"""The methods of training that a config can name, and the numbers they start from.

A method is an estimator for the loss, schedules of its hyperparameters, and an Optax
transformation of the latents. All else (network, data, epochs, evaluation at the
deployed weights) is the same for all of them.

To add one, write a function of its options and the length of the run, and decorate it
with the defaults of its options. Unless a method says otherwise its learning rate falls
to 0 on a cosine of the step.
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import optax

from adaste_jax import estimators, optim
from experiments import errors

InitialLatents = Callable[[jax.Array, jax.Array], jax.Array]
"""From a key and the latents that the layer has drawn to those to start from."""


@dataclasses.dataclass(frozen=True)
class Length:
    """How long a run is, for schedules."""

    num_epochs: int
    steps_per_epoch: int
    num_examples: int

    @property
    def num_steps(self) -> int:
        """Optimiser steps in the whole run."""
        return self.num_epochs * self.steps_per_epoch

    @property
    def never(self) -> int:
        """A step that no run gets to."""
        return self.num_steps + 1


@dataclasses.dataclass(frozen=True)
class Method:
    """One way of training.

    Attributes:
        tx: Transformation of the latents (of all parameters in full precision). Its
            `update` gets the weights of the step as the extra argument `weights`.
        estimator: For `make_train_step`; None is full precision.
        hyperparameters: Schedules for the estimator.
        soft_steps: Until this step the training weights are not the deployed ones, so
            batch-norm statistics are re-estimated before an evaluation.
        initial_latents: Where latents start; None is the initialisation of the layers.
        deployed_pass: See `make_train_step`.
        deploy: Likewise; None is the sign.
        random_weights: Likewise.
    """

    tx: optax.GradientTransformation
    estimator: Callable[..., jax.Array] | None
    hyperparameters: Mapping[str, optax.Schedule] = dataclasses.field(
        default_factory=dict
    )
    soft_steps: int = 0
    initial_latents: InitialLatents | None = None
    deployed_pass: bool = False
    deploy: Callable[[jax.Array], jax.Array] | None = None
    random_weights: bool = False


METHODS: dict[str, Callable[[Any, Length], Method]] = {}
_DEFAULTS: dict[str, dict[str, Any]] = {}


def _method(name: str, **options: Any) -> Callable[..., Any]:
    """Enters a function into `METHODS`, with the defaults of its options."""

    def enter(function: Callable[[Any, Length], Method]) -> Callable[..., Method]:
        METHODS[name] = function
        _DEFAULTS[name] = options
        return function

    return enter


def defaults() -> ml_collections.ConfigDict:
    """Options of every method; a config changes what differs."""
    return ml_collections.ConfigDict(_DEFAULTS)


def create(
    name: str,
    options: ml_collections.ConfigDict,
    length: Length,
    *,
    learning_rate: jax.Array | None = None,
) -> Method:
    """Builds the method `name`, for a run of a given length.

    Args:
        name: One of `METHODS`.
        options: Options of every method, as `defaults()`.
        length: Of the run, for schedules.
        learning_rate: In the place of that of the options; it may be traced.

    Returns:
        The method.

    Raises:
        RunError: If there is no method of this name, or an option is out of range.
    """
    if name not in METHODS:
        raise errors.RunError(
            f"there is no method {name!r}. Choose one of {', '.join(sorted(METHODS))}."
        )
    values = options[name].to_dict()
    if not values["learning_rate"] > 0:
        raise errors.RunError(
            f"config.methods.{name}: learning_rate must be > 0, got "
            f"{values['learning_rate']}."
        )
    if learning_rate is not None:
        values["learning_rate"] = learning_rate
    try:
        return METHODS[name](types.SimpleNamespace(**values), length)
    except ValueError as error:
        raise errors.RunError(f"config.methods.{name}: {error}") from error


def _cosine(options: Any, length: Length) -> optax.Schedule:
    return optax.cosine_decay_schedule(options.learning_rate, length.num_steps)


def _adam(options: Any, length: Length) -> optax.GradientTransformation:
    return optax.adam(_cosine(options, length))


def _annealing(options: Any, length: Length) -> tuple[optax.Schedule, int]:
    """The schedule of mu, and the step from which the weights are binary."""
    if not 0 < options.anneal_fraction <= 1:
        raise ValueError(
            f"anneal_fraction must lie in (0, 1], got {options.anneal_fraction}."
        )
    if not 0 < options.mu_init <= options.mu_end:
        raise ValueError(
            "mu_init and mu_end must be > 0 and ascending, got "
            f"{options.mu_init} and {options.mu_end}."
        )
    if not 0 < options.alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {options.alpha}.")
    steps = max(1, round(options.anneal_fraction * length.num_steps))
    schedule = optax.exponential_decay(
        options.mu_init,
        transition_steps=steps,
        decay_rate=options.mu_end / options.mu_init,
        end_value=options.mu_end,
    )
    binary = options.mu_end * options.alpha >= 1 - 1e-6
    return schedule, steps if binary else length.never


def _random_signs(size: float) -> InitialLatents:
    """Plus and minus `size`, with equal probability."""
    return lambda key, latent: (
        size * jax.random.rademacher(key, latent.shape, latent.dtype)
    )


# mu rises from `mu_init` to `mu_end` in the first `anneal_fraction` of the steps. From
# mu = 1 / `alpha` on, the weights of AdaSTE are binary.
_ANNEALING = {"alpha": 0.01, "mu_init": 0.01, "mu_end": 100.0, "anneal_fraction": 0.8}


@_method("full_precision", learning_rate=1e-3)
def _full_precision(options: Any, length: Length) -> Method:
    return Method(tx=_adam(options, length), estimator=None)


@_method("ste", learning_rate=3e-3)
def _ste(options: Any, length: Length) -> Method:
    return Method(tx=_adam(options, length), estimator=estimators.ste_identity)


@_method("adaste", learning_rate=3e-3, **_ANNEALING)
def _adaste(options: Any, length: Length) -> Method:
    """The recommended form: see `estimators.adaste`."""
    mu, soft_steps = _annealing(options, length)
    return Method(
        tx=optim.adaste(_cosine(options, length), mu=mu, alpha=options.alpha),
        estimator=functools.partial(
            estimators.adaste,
            alpha=options.alpha,
            rule="identity",
            unit="rms",
            rescale=True,
        ),
        hyperparameters={"mu": mu},
        soft_steps=soft_steps,
    )


@_method("adaste_literal", learning_rate=3e-3, rule="adaptive", cap=0.5, **_ANNEALING)
def _adaste_literal(options: Any, length: Length) -> Method:
    """The paper's rule, on the gradient of each minibatch as it comes."""
    mu, soft_steps = _annealing(options, length)
    return Method(
        tx=_adam(options, length),
        estimator=functools.partial(
            estimators.adaste,
            alpha=options.alpha,
            rule=options.rule,
            cap=options.cap,
        ),
        hyperparameters={"mu": mu},
        soft_steps=soft_steps,
    )


@_method(
    "adaste_averaged",
    learning_rate=30.0,
    momentum=0.99,
    rule="adaptive",
    cap=2.0,
    **_ANNEALING,
)
def _adaste_averaged(options: Any, length: Length) -> Method:
    """The same rule, on a moving average of the gradient."""
    mu, soft_steps = _annealing(options, length)
    return Method(
        tx=optax.chain(
            optax.ema(options.momentum),
            optim.scale_by_adaste(
                mu, alpha=options.alpha, rule=options.rule, cap=options.cap
            ),
            optax.scale_by_learning_rate(_cosine(options, length)),
        ),
        estimator=functools.partial(
            estimators.adaste, alpha=options.alpha, rule="identity"
        ),
        hyperparameters={"mu": mu},
        soft_steps=soft_steps,
    )


@_method(
    "adaste_released",
    learning_rate=3e-4,
    momentum=0.9,
    decay=1.0,
    multiplier=10.0,
    alpha=0.01,
    mu_init=0.01,
    mu_rate=1.05,
    rule="released",
    initial_latent=10.0,
    deployed_pass=True,
)
def _adaste_released(options: Any, length: Length) -> Method:
    """The authors' code; N is `num_examples` times `multiplier`.

    The learning rate falls on a cosine of the epoch.
    """
    mu = optim.anneal(
        options.mu_init, options.mu_rate, 1 / options.alpha, length.steps_per_epoch
    )
    tx = optim.adaste_released(
        optim.cosine_per_epoch(
            options.learning_rate, length.num_epochs, length.steps_per_epoch
        ),
        mu=mu,
        grad_scale=(options.multiplier * length.num_examples) ** 2,
        alpha=options.alpha,
        rule=options.rule,
        momentum=options.momentum,
        decay=options.decay,
    )
    return Method(
        tx=tx,
        estimator=functools.partial(
            estimators.adaste, alpha=options.alpha, rule="identity"
        ),
        hyperparameters={"mu": mu},
        initial_latents=_random_signs(options.initial_latent),
        deployed_pass=options.deployed_pass,
    )
