"""The update of an Optax transformation, with the extra arguments that it takes."""

import inspect
from collections.abc import Callable
from typing import Any

import optax


def update_of(tx: Any) -> Callable[..., Any]:
    """`update(grads, state, params, **extra_args)` of a transformation.

    `optax.with_extra_args_support` decides by the class. So it would not pass the
    arguments to `optax.MultiSteps` and its `gradient_transformation`, although these
    pass them on.
    """
    try:
        parameters = list(inspect.signature(tx.update).parameters.values())
    except ValueError:  # written in C, without a signature
        parameters = []
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        tx = optax.with_extra_args_support(tx)
    update: Callable[..., Any] = tx.update
    return update
