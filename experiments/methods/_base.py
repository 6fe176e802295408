"""What a method is, and the register of all of them."""

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax

from experiments import errors, fields
from experiments.methods._options import OPTIONS

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


class Entry(NamedTuple):
    """A method in the register.

    Attributes:
        build: Makes the method of its options and the length of the run.
        options: Their defaults.
    """

    build: Callable[[Any, Length], Method]
    options: dict[str, Any]


METHODS: dict[str, Entry] = {}


def enter(name: str, **options: Any) -> Callable[..., Any]:
    """Enters a function into `METHODS`, with the defaults of its options."""

    def decorate(function: Callable[[Any, Length], Method]) -> Callable[..., Method]:
        METHODS[name] = Entry(function, options)
        return function

    return decorate


def defaults() -> ml_collections.ConfigDict:
    """Options of every method; a config changes what differs."""
    return ml_collections.ConfigDict(
        {name: entry.options for name, entry in METHODS.items()}
    )


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
    values = options_of(name, options)
    if learning_rate is not None:
        values["learning_rate"] = learning_rate
    try:
        return METHODS[name].build(types.SimpleNamespace(**values), length)
    except ValueError as error:
        raise errors.RunError(f"config.methods.{name}: {error}") from error


def options_of(name: str, options: ml_collections.ConfigDict) -> dict[str, Any]:
    """The options of one method, all of them; those of other methods are not looked at.

    Args:
        name: One of `METHODS`.
        options: As for `create`. What is absent has its default.

    Returns:
        A value for each option of the method.

    Raises:
        RunError: If there is no method of this name, or an option is unknown or out of
            range.
    """
    fields.check({"method": name}, {"method": fields.Choice(METHODS, "method")})
    defaults = METHODS[name].options
    given = fields.mapping(options, "config.methods").get(name, {})
    given = fields.mapping(given, f"config.methods.{name}")
    for option in given:
        if option not in defaults:
            raise errors.RunError(
                f"config.methods.{name}: {fields.unknown('option', option, defaults)}"
            )
    kinds = {option: _kind(option, default) for option, default in defaults.items()}
    fields.check(given, kinds, prefix=f"config.methods.{name}.")
    return {**defaults, **given}


def _kind(option: str, default: Any) -> fields.Kind:
    """Its row in the table; of another meaning or name, what its default is."""
    known = OPTIONS.get(option)
    if known is not None and known.refusal(default) is None:
        return known
    if isinstance(default, bool):
        return fields.Flag()
    if isinstance(default, str):
        return fields.Text()
    return fields.Number(whole=isinstance(default, int))


def check(name: str, options: ml_collections.ConfigDict, length: Length) -> None:
    """Refuses a method that cannot be built or applied, without any data.

    Args:
        name: As for `create`.
        options: As for `create`.
        length: Of any run.

    Raises:
        RunError: As `create`, and if the estimator refuses an option.
    """
    method = create(name, options, length)
    if method.estimator is None:
        return

    def weights(key: jax.Array) -> jax.Array:
        latent = jnp.ones((2, 3))
        if method.initial_latents is not None:
            latent = method.initial_latents(key, latent)
        values: dict[str, Any] = {
            option: schedule(0) for option, schedule in method.hyperparameters.items()
        }
        if method.random_weights:
            values["key"] = key
        return method.estimator(latent, **values)  # type: ignore[misc]

    try:
        jax.eval_shape(weights, jax.random.key(0))
    except ValueError as error:
        raise errors.RunError(f"config.methods.{name}: {error}") from error
