"""The methods that a config can name: those of `adaste_jax.methods`, by their options.

The options of a method are the keywords of its function, with the same defaults. What
the run decides (its length, which leaves are latents, the learning rate of the real
parameters) is not an option.
"""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import optax
import optax.contrib

from adaste_jax import methods
from experiments import errors, fields

METHODS: dict[str, Callable[..., methods.Method]] = dict(methods.METHODS)
"""Every method by name; each function takes `steps` and keywords. A study may add one
of its own before the config is read."""

OPTIMISERS = ("adam", "muon")
"""Optimisers of the latents, for methods that have none of their own."""

OLD_NAMES = {"adaste_literal": "adaste_paper"}
"""Names of version 0.1, which are removed in 0.3, and their names now."""


def defaults() -> ml_collections.ConfigDict:
    """The default options of every method; a config changes some of them."""
    return ml_collections.ConfigDict(
        {name: defaults_of(name) for name in (*METHODS, *OLD_NAMES)}
    )


def defaults_of(name: str) -> dict[str, Any]:
    """The options of one method, with their defaults.

    Args:
        name: A name of `METHODS` or `OLD_NAMES`.
    """
    keywords = inspect.signature(METHODS[OLD_NAMES.get(name, name)]).parameters.values()
    return {one.name: one.default for one in keywords if one.kind is one.KEYWORD_ONLY}


def options_of(name: str, options: ml_collections.ConfigDict) -> dict[str, Any]:
    """All options of one method; options of other methods are not checked.

    Args:
        name: Name of the method.
        options: Options by method, in the form of `defaults`. Absent options have their
            defaults.

    Returns:
        A value for each option of the method.

    Raises:
        RunError: If there is no method of this name, or an option is unknown or of
            another type than its default.
    """
    known = {**METHODS, **OLD_NAMES} if name in OLD_NAMES else METHODS
    fields.check({"method": name}, {"method": fields.Choice(known, "method")})
    defaults = defaults_of(name)
    given = fields.mapping(options, "config.methods").get(name, {})
    given = fields.mapping(given, f"config.methods.{name}")
    for option in given:
        if option not in defaults:
            raise errors.RunError(
                f"config.methods.{name}: {fields.unknown('option', option, defaults)}"
            )
    kinds = {option: _kind(default) for option, default in defaults.items()}
    fields.check(given, kinds, prefix=f"config.methods.{name}.")
    return {**defaults, **given}


def create(
    name: str,
    options: ml_collections.ConfigDict,
    *,
    learning_rate: jax.Array | None = None,
    **run: Any,
) -> methods.Method:
    """Makes the method of that name, for one run.

    Args:
        name: Name of the method.
        options: Options by method, in the form of `defaults`.
        learning_rate: Learning rate that replaces the one in the options; may be
            traced.
        **run: `steps`, and the keywords that all methods of `adaste_jax.methods` take.

    Returns:
        The method.

    Raises:
        RunError: If there is no method of this name, or an option is out of range.
    """
    values = options_of(name, options)
    if learning_rate is not None:
        values["learning_rate"] = learning_rate
    if name in OLD_NAMES:
        warnings.warn(
            f"the method {name!r} is called {OLD_NAMES[name]!r} now; the old name goes "
            "in 0.3.",
            DeprecationWarning,
            stacklevel=2,
        )
    try:
        return METHODS[OLD_NAMES.get(name, name)](**values, **run)
    except ValueError as error:
        raise errors.RunError(f"config.methods.{name}: {error}") from error


def optimiser(name: str, momentum: float) -> methods.Optimiser:
    """The optimiser of the latents, from the fields of a config.

    Args:
        name: One of `OPTIMISERS`. Muon takes every kernel as a matrix from all inputs
            of an output to the outputs; its steps have the size of Adam's.
        momentum: Of the moving average of the gradient, in [0, 1).
    """
    if name == "muon":
        return functools.partial(
            optax.contrib.muon,
            beta=momentum,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=_matrices,
        )
    return optax.adam if momentum == 0.9 else functools.partial(optax.adam, b1=momentum)


def takes_optimiser(name: str) -> bool:
    """Whether a method leaves its optimiser open, so that a momentum can be chosen."""
    try:
        METHODS[name](1, optimiser=functools.partial(optax.adam, b1=0.5))
    except ValueError:
        return False
    return True


def _matrices(params: Any) -> Any:
    """Each kernel as a matrix: all axes but the last are inputs."""
    kind = optax.contrib.MuonDimensionNumbers
    return jax.tree.map(
        lambda p: kind(tuple(range(p.ndim - 1)), p.ndim - 1) if p.ndim > 1 else None,
        params,
    )


def _kind(default: Any) -> fields.Kind:
    """The kind of values of an option, by its default; the method checks the range."""
    if isinstance(default, bool):
        return fields.Flag()
    if isinstance(default, str):
        return fields.Text()
    return fields.Number(whole=isinstance(default, int))
