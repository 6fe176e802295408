"""What a method is, and the register of all of them."""

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import ml_collections
import optax

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
        return METHODS[name].build(types.SimpleNamespace(**values), length)
    except ValueError as error:
        raise errors.RunError(f"config.methods.{name}: {error}") from error
