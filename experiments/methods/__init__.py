"""The methods of training that a config can name, and the numbers they start from.

A method is an estimator for the loss, schedules of its hyperparameters, and an Optax
transformation of the latents. All else (network, data, epochs, evaluation at the
deployed weights) is the same for all of them.

To add one, write a function of its options and the length of the run in the module of
its family, and `enter` it with the defaults of its options; a new name of an option
gets a row in `_options.py`. Unless a method says otherwise its learning rate falls to 0
on a cosine of the step.
"""

from experiments.methods import (  # noqa: F401 (each enters its methods)
    _adaste,
    _optimisers,
    _random,
    _soft,
    _straight_through,
    _ternary,
)
from experiments.methods._base import (
    METHODS,
    InitialLatents,
    Length,
    Method,
    check,
    create,
    defaults,
    enter,
    options_of,
)
from experiments.methods._options import OPTIONS
from experiments.methods._parts import ANNEALING, annealing, cosine, warmed_up

__all__ = [
    "ANNEALING",
    "METHODS",
    "OPTIONS",
    "InitialLatents",
    "Length",
    "Method",
    "annealing",
    "check",
    "cosine",
    "create",
    "defaults",
    "enter",
    "options_of",
    "warmed_up",
]
