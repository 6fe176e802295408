"""The methods of training that a config can name, and the numbers they start from.

A method is an estimator for the loss, schedules of its hyperparameters, and an Optax
transformation of the latents. All else (network, data, epochs, evaluation at the
deployed weights) is the same for all of them.

To add one, write a function of its options and the length of the run, and `enter` it
with the defaults of its options. Unless a method says otherwise its learning rate falls
to 0 on a cosine of the step.
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
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
    warmup_steps: int = 0

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
        loaded_latents: Where they start with the parameters of another method's run in
            the place of what the layers draw; None is at those parameters.
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
    loaded_latents: InitialLatents | None = None
    deployed_pass: bool = False
    deploy: Callable[[jax.Array], jax.Array] | None = None
    random_weights: bool = False


METHODS: dict[str, Callable[[Any, Length], Method]] = {}
_DEFAULTS: dict[str, dict[str, Any]] = {}


def enter(name: str, **options: Any) -> Callable[..., Any]:
    """Enters a function into `METHODS`, with the defaults of its options."""

    def decorate(function: Callable[[Any, Length], Method]) -> Callable[..., Method]:
        METHODS[name] = function
        _DEFAULTS[name] = options
        return function

    return decorate


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


def cosine(options: Any, length: Length) -> optax.Schedule:
    """From the learning rate of the options to 0, after the warm-up."""
    return warmed_up(
        optax.cosine_decay_schedule(options.learning_rate, length.num_steps), length
    )


def warmed_up(schedule: optax.Schedule, length: Length) -> optax.Schedule:
    """A learning rate times a factor that rises in the warm-up, linearly, to 1."""
    if not length.warmup_steps:
        return schedule
    return lambda step: (
        schedule(step) * jnp.minimum(1.0, (step + 1) / length.warmup_steps)
    )


def _adam(options: Any, length: Length) -> optax.GradientTransformation:
    return optax.adam(cosine(options, length))


def annealing(options: Any, length: Length) -> tuple[optax.Schedule, int]:
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


def _signs(size: float) -> InitialLatents:
    """Plus and minus `size`, with the signs of what there is."""
    return lambda key, latent: size * optim.binary_signs(latent)


def _random_signs(size: float) -> InitialLatents:
    """Plus and minus `size`, with equal probability."""
    return lambda key, latent: (
        size * jax.random.rademacher(key, latent.shape, latent.dtype)
    )


# mu rises from `mu_init` to `mu_end` in the first `anneal_fraction` of the steps. From
# mu = 1 / `alpha` on, the weights of AdaSTE are binary.
ANNEALING = {"alpha": 0.01, "mu_init": 0.01, "mu_end": 100.0, "anneal_fraction": 0.8}


@enter("full_precision", learning_rate=1e-3)
def _full_precision(options: Any, length: Length) -> Method:
    return Method(tx=_adam(options, length), estimator=None)


@enter("ste", learning_rate=3e-3)
def _ste(options: Any, length: Length) -> Method:
    return Method(tx=_adam(options, length), estimator=estimators.ste_identity)


@enter("adaste", learning_rate=3e-3, **ANNEALING)
def _adaste(options: Any, length: Length) -> Method:
    """The recommended form: see `estimators.adaste`."""
    mu, soft_steps = annealing(options, length)
    return Method(
        tx=optim.adaste(cosine(options, length), mu=mu, alpha=options.alpha),
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


@enter("adaste_literal", learning_rate=3e-3, rule="adaptive", cap=0.5, **ANNEALING)
def _adaste_literal(options: Any, length: Length) -> Method:
    """The paper's rule, on the gradient of each minibatch as it comes."""
    mu, soft_steps = annealing(options, length)
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


@enter(
    "adaste_averaged",
    learning_rate=30.0,
    momentum=0.99,
    rule="adaptive",
    cap=2.0,
    away=1.0,
    **ANNEALING,
)
def _adaste_averaged(options: Any, length: Length) -> Method:
    """The same rule, on a moving average of the gradient; weights are signs.

    With soft weights it loses 4 points more: docs/results/adaptive_rule.md.
    """
    mu, _ = annealing(options, length)
    return Method(
        tx=optax.chain(
            optax.ema(options.momentum),
            optim.scale_by_adaste(
                mu,
                alpha=options.alpha,
                rule=options.rule,
                cap=options.cap,
                away=options.away,
            ),
            optax.scale_by_learning_rate(cosine(options, length)),
        ),
        estimator=estimators.ste_identity,
    )


@enter(
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
    rate = optim.cosine_per_epoch(
        options.learning_rate, length.num_epochs, length.steps_per_epoch
    )
    tx = optim.adaste_released(
        warmed_up(rate, length),
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
        loaded_latents=_signs(options.initial_latent),
        deployed_pass=options.deployed_pass,
    )


@enter("ste_clipped", learning_rate=3e-3)
def _ste_clipped(options: Any, length: Length) -> Method:
    """The rule of BinaryNet; latents stay in [-1, 1]."""
    return Method(
        tx=optax.chain(_adam(options, length), optim.clip_latents()),
        estimator=estimators.ste_clipped,
    )


@enter("binary_connect", learning_rate=3e-3)
def _binary_connect(options: Any, length: Length) -> Method:
    return Method(
        tx=optim.binary_connect(cosine(options, length)),
        estimator=estimators.ste_identity,
        initial_latents=_uniform,
    )


@enter("binary_connect_random", learning_rate=3e-3)
def _binary_connect_random(options: Any, length: Length) -> Method:
    """The stochastic form; tested with signs here, and not with the latents."""
    return Method(
        tx=optim.binary_connect(cosine(options, length)),
        estimator=estimators.bernoulli_hard,
        initial_latents=_uniform,
        random_weights=True,
        soft_steps=length.never,
    )


@enter("approx_sign", learning_rate=3e-3)
def _approx_sign(options: Any, length: Length) -> Method:
    return Method(tx=_adam(options, length), estimator=estimators.approx_sign)


@enter("swish_sign", learning_rate=3e-3, beta=5.0)
def _swish_sign(options: Any, length: Length) -> Method:
    return Method(
        tx=_adam(options, length),
        estimator=functools.partial(estimators.swish_sign, beta=options.beta),
    )


@enter("fda", learning_rate=3e-3, order=2)
def _fda(options: Any, length: Length) -> Method:
    return Method(
        tx=_adam(options, length),
        estimator=functools.partial(estimators.fda, order=options.order),
    )


@enter("reste", learning_rate=3e-3, exponent_end=3.0)
def _reste(options: Any, length: Length) -> Method:
    exponent = optim.reste_exponent(
        length.num_epochs, length.steps_per_epoch, end_value=options.exponent_end
    )
    return Method(
        tx=_adam(options, length),
        estimator=estimators.reste,
        hyperparameters={"exponent": exponent},
    )


@enter("ede", learning_rate=3e-3, sharpness_init=0.1, sharpness_end=10.0)
def _ede(options: Any, length: Length) -> Method:
    return Method(
        tx=_adam(options, length),
        estimator=estimators.ede,
        hyperparameters={"sharpness": _sharpness(options, length)},
    )


@enter("rbnn", learning_rate=3e-3, sharpness_init=0.1, sharpness_end=10.0)
def _rbnn(options: Any, length: Length) -> Method:
    return Method(
        tx=_adam(options, length),
        estimator=estimators.rbnn,
        hyperparameters={"sharpness": _sharpness(options, length)},
    )


@enter("irnet", learning_rate=3e-3, sharpness_init=0.1, sharpness_end=10.0)
def _irnet(options: Any, length: Length) -> Method:
    """Weights that are standardised first, and a power of two for each channel."""
    return Method(
        tx=_adam(options, length),
        estimator=estimators.irnet_weight,
        hyperparameters={"sharpness": _sharpness(options, length)},
        deploy=functools.partial(estimators.irnet_weight, sharpness=1.0),
    )


@enter("scaled_sign", learning_rate=3e-3, scale_grad="constant")
def _scaled_sign(options: Any, length: Length) -> Method:
    """A sign and a scale for each channel, as in XNOR-Net and Bi-Real net."""
    weights = functools.partial(estimators.scaled_sign, scale_grad=options.scale_grad)
    return Method(tx=_adam(options, length), estimator=weights, deploy=weights)


@enter("tanh", learning_rate=1e-2, beta_end=30.0, anneal_fraction=0.8)
def _tanh(options: Any, length: Length) -> Method:
    return _soft(options, length, estimators.tanh)


@enter("md_tanh_s", learning_rate=1e-2, beta_end=1e3, anneal_fraction=0.8)
def _md_tanh_s(options: Any, length: Length) -> Method:
    return _soft(options, length, estimators.md_tanh_s)


@enter("md_softmax_s", learning_rate=1e-2, beta_end=1e3, anneal_fraction=0.8)
def _md_softmax_s(options: Any, length: Length) -> Method:
    return _pairs(_soft(options, length, estimators.md_softmax_s))


@enter("pmf", learning_rate=1e-2, beta_end=30.0, anneal_fraction=0.8, jacobian="exact")
def _pmf(options: Any, length: Length) -> Method:
    estimator = functools.partial(estimators.pmf, jacobian=options.jacobian)
    return _pairs(_soft(options, length, estimator))


@enter("md_tanh", learning_rate=3e-3, beta_end=100.0, anneal_fraction=0.8)
def _md_tanh(options: Any, length: Length) -> Method:
    """The direct form: beta multiplies the steps, and not the latents."""
    return Method(
        tx=optim.md_tanh(cosine(options, length), beta=_growth(options, length)),
        estimator=functools.partial(estimators.md_tanh_s, beta=1.0),
        soft_steps=length.never,
    )


@enter("md_softmax", learning_rate=3e-3, beta_end=100.0, anneal_fraction=0.8)
def _md_softmax(options: Any, length: Length) -> Method:
    return _pairs(
        Method(
            tx=optim.md_softmax(cosine(options, length), beta=_growth(options, length)),
            estimator=functools.partial(estimators.md_softmax_s, beta=1.0),
            soft_steps=length.never,
        )
    )


@enter("hardtanh_adaste", learning_rate=1e-2)
def _hardtanh_adaste(options: Any, length: Length) -> Method:
    return Method(
        tx=optax.chain(optim.scale_by_hardtanh_adaste(), _adam(options, length)),
        estimator=functools.partial(estimators.hardtanh_adaste, straight_through=True),
        soft_steps=length.never,
    )


@enter("fenbp", learning_rate=1e-2, beta=100.0)
def _fenbp(options: Any, length: Length) -> Method:
    estimator = functools.partial(
        estimators.fenbp, beta=options.beta, straight_through=True
    )
    return Method(
        tx=optax.chain(optim.scale_by_fenbp(options.beta), _adam(options, length)),
        estimator=estimator,
        soft_steps=length.never,
    )


@enter("bernoulli_pwgf", learning_rate=0.1)
def _bernoulli_pwgf(options: Any, length: Length) -> Method:
    return Method(
        tx=_adam(options, length),
        estimator=estimators.bernoulli_pwgf,
        random_weights=True,
        soft_steps=length.never,
    )


@enter("bernoulli_identity", learning_rate=0.1)
def _bernoulli_identity(options: Any, length: Length) -> Method:
    return Method(
        tx=_adam(options, length),
        estimator=estimators.bernoulli_identity,
        random_weights=True,
        soft_steps=length.never,
    )


@enter("bop", learning_rate=1e-3, tau=1e-7)
def _bop(options: Any, length: Length) -> Method:
    """No latents; gamma takes the place of the learning rate."""
    return Method(
        tx=optim.bop(cosine(options, length), tau=options.tau),
        estimator=estimators.ste_identity,
        initial_latents=_signs(1.0),
        loaded_latents=_signs(1.0),
    )


@enter(
    "bayesbinn",
    learning_rate=3e-4,
    temperature=1e-10,
    momentum=0.0,
    multiplier=1.0,
    initial_latent=10.0,
)
def _bayesbinn(options: Any, length: Length) -> Method:
    """N is `num_examples` times `multiplier`."""
    tx = optim.bayesbinn(
        cosine(options, length),
        num_examples=options.multiplier * length.num_examples,
        temperature=options.temperature,
        momentum=options.momentum,
    )
    return Method(
        tx=tx,
        estimator=functools.partial(
            estimators.bayesbinn_sample, temperature=options.temperature
        ),
        initial_latents=_random_signs(options.initial_latent),
        loaded_latents=_signs(options.initial_latent),
        random_weights=True,
        soft_steps=length.never,
    )


@enter("vispa", learning_rate=30.0, momentum=0.9, rank=8)
def _vispa(options: Any, length: Length) -> Method:
    """Correlated draws of weights; `rank` + 1 latents for each. Tested with signs.

    The published learning rate is 0.1, for 500 epochs.
    """

    def initial(key: jax.Array, latent: jax.Array) -> jax.Array:
        draw = jax.random.normal(key, (*latent.shape, options.rank), latent.dtype)
        factors = jnp.std(latent) * draw / 10
        return jnp.concatenate([latent[..., None], factors], axis=-1)

    return Method(
        tx=optim.vispa(cosine(options, length), momentum=options.momentum),
        estimator=estimators.vispa_sample,
        initial_latents=initial,
        loaded_latents=initial,
        deploy=lambda latent: estimators.ste_identity(latent[..., 0]),
        random_weights=True,
        soft_steps=length.never,
    )


@enter("proxquant", learning_rate=1e-2, pull=4.0)
def _proxquant(options: Any, length: Length) -> Method:
    """Real weights; all proximal maps together move a weight by up to `pull`.

    Their strength grows linearly, as published, but reaches its end in any length.
    """
    steps = length.num_steps
    strength = optax.linear_schedule(0.0, 2 * options.pull / steps, steps)
    return Method(
        tx=optim.proxquant(cosine(options, length), strength=strength, clip=True),
        estimator=lambda weight: weight,
        soft_steps=length.never,
    )


@enter("ternary_absmean", learning_rate=3e-3)
def _ternary_absmean(options: Any, length: Length) -> Method:
    return _ternary(options, length, estimators.ternary_absmean)


@enter("ternary_twn", learning_rate=3e-3, scale=True)
def _ternary_twn(options: Any, length: Length) -> Method:
    weights = functools.partial(estimators.ternary_twn, scale=options.scale)
    return _ternary(options, length, weights)


@enter("ternary_fixed", learning_rate=3e-3, threshold=0.05)
def _ternary_fixed(options: Any, length: Length) -> Method:
    weights = functools.partial(estimators.ternary_fixed, threshold=options.threshold)
    return _ternary(options, length, weights)


@enter("ternary_tanh", learning_rate=1e-2, beta_end=30.0, anneal_fraction=0.8)
def _ternary_tanh(options: Any, length: Length) -> Method:
    """Mirror descent with three levels; latents start uniform in [-1, 1]."""
    return dataclasses.replace(
        _soft(options, length, estimators.ternary_tanh),
        initial_latents=_uniform,
        deploy=functools.partial(estimators.ternary_fixed, threshold=0.5),
    )


def _soft(options: Any, length: Length, estimator: Callable[..., jax.Array]) -> Method:
    """Weights that become binary as beta grows, but never quite."""
    return Method(
        tx=_adam(options, length),
        estimator=estimator,
        hyperparameters={"beta": _growth(options, length)},
        soft_steps=length.never,
    )


def _growth(options: Any, length: Length) -> optax.Schedule:
    """The schedule of beta, from 1 to `beta_end`, geometric in the step.

    Published is a factor for every so many of 100,000 steps (`optim.grow`).
    """
    if not options.beta_end >= 1:
        raise ValueError(f"beta_end must be at least 1, got {options.beta_end}.")
    return optax.exponential_decay(
        1.0,
        transition_steps=max(1, round(options.anneal_fraction * length.num_steps)),
        decay_rate=options.beta_end,
        end_value=options.beta_end,
    )


def _sharpness(options: Any, length: Length) -> optax.Schedule:
    return optim.ede_sharpness(
        length.num_epochs,
        length.steps_per_epoch,
        init_value=options.sharpness_init,
        end_value=options.sharpness_end,
    )


def _pairs(method: Method) -> Method:
    """Two latents for each weight, equal and opposite to begin with."""
    opposite = lambda key, latent: jnp.stack([-latent, latent], axis=-1)
    return dataclasses.replace(
        method,
        initial_latents=opposite,
        loaded_latents=opposite,
        deploy=estimators.softmax_deploy,
    )


def _ternary(
    options: Any, length: Length, weights: Callable[[jax.Array], jax.Array]
) -> Method:
    return Method(tx=_adam(options, length), estimator=weights, deploy=weights)


def _uniform(key: jax.Array, latent: jax.Array) -> jax.Array:
    """Latents uniform in [-1, 1]."""
    return jax.random.uniform(key, latent.shape, latent.dtype, -1.0, 1.0)
