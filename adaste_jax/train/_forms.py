"""The forms of 0.1 of the functions that make steps; they are removed in 0.3.

They take `tx` and `estimator` instead of a method, and the fields of a `Placement` as
keywords. Everything that they need is in this file.
"""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import optax

from adaste_jax import methods
from adaste_jax.methods import _build
from adaste_jax.train import _gradient, _placement, _step

Made = TypeVar("Made")

_EVALUATION = ("where", "deploy", "deployed")
_PLACEMENT = {  # and what they are called in a `Placement`
    "strategy": "strategy",
    "mesh": "mesh",
    "state_sharding": "sharding",
    "gather": "gather",
    "batch_statistics": "batch_statistics",
}


def of_training(make: Callable[..., Made]) -> Callable[..., Made]:
    """Makes a maker of training steps accept the forms of 0.1 too.

    These are `(forward, tx, estimator=..., ...)`, and the keywords of a `Placement`.
    """

    @functools.wraps(make)
    def call(*args: Any, **kwargs: Any) -> Made:
        network, method, rest = _taken(make, args, kwargs, "tx")
        _replace_keywords(make, rest)
        options = {name: rest.pop(name) for name in _TRAINING & rest.keys()}
        if isinstance(method, methods.Method):
            _refuse(make, options)
            return make(network, method, **rest)
        if method is None or "estimator" not in options:
            raise TypeError(
                f"`{make.__name__}` takes a network and a method, such as "
                "`methods.adaste(steps=...)`; got "
                f"{type(method).__qualname__} as the method. `methods.from_estimator` "
                "makes one from your own estimator and transformation."
            )
        warnings.warn(
            f"{make.__name__}(forward, tx, estimator=...) is removed in 0.3. Write "
            f"{make.__name__}(forward, method), with a method of "
            "`adaste_jax.methods` or `method = methods.from_estimator("
            "estimator, tx, schedules=hyperparameters, where=..., "
            "deploy=...)`; for `estimator=None`, "
            "`methods.full_precision(steps)._replace(tx=tx)`.",
            DeprecationWarning,
            stacklevel=2,
        )
        _gradient.check_forward(network)
        return make(network, _training(method, **options), **rest)

    return call


def of_evaluation(make: Callable[..., Made]) -> Callable[..., Made]:
    """Makes a maker of evaluations accept `(forward, where=..., deploy=...)` too."""

    @functools.wraps(make)
    def call(*args: Any, **kwargs: Any) -> Made:
        network, method, rest = _taken(make, args, kwargs, "method")
        options = {name: rest.pop(name) for name in _EVALUATION if name in rest}
        if method is not None:
            _refuse(make, options)
            return make(network, method, **rest)
        _gradient.check_forward(network)
        if not options.pop("deployed", True):
            return make(network, methods.full_precision(1), **rest)
        return make(network, _training(optax.identity(), **options), **rest)

    return call


def _taken(
    make: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], name: str
) -> tuple[Any, Any, dict[str, Any]]:
    """The network, the second argument, and all other arguments."""
    rest = dict(kwargs)
    given = list(args)
    for index, names in enumerate((("network", "forward"), ("method", name))):
        for each in names:
            if each in rest and len(given) == index:
                given.append(rest.pop(each))
    if not given or len(given) > 2:
        raise TypeError(
            f"`{make.__name__}` takes a network and a method, and keywords; got "
            f"{len(args)} arguments without a keyword."
        )
    return given[0], given[1] if len(given) == 2 else None, rest


def _replace_keywords(make: Callable[..., Any], rest: dict[str, Any]) -> None:
    """Replaces the keywords of 0.1 by `placement` and `report`, and warns.

    Raises:
        TypeError: If both are given.
    """
    own = make.__kwdefaults__ or {}
    old = [name for name in _PLACEMENT if name in rest and name not in own]
    new = {_PLACEMENT[name]: rest.pop(name) for name in old}
    written = [f"placement=train.Placement({', '.join(f'{n}=...' for n in new)})"]
    if new and "placement" in rest:
        raise TypeError(
            f"`{make.__name__}` got `placement` and {sorted(old)}: put all of them "
            f"into one, {written[0]}."
        )
    if new:
        rest["placement"] = _placement.Placement(**new)
    else:
        written = []
    if "shares" in rest:
        old.append("shares")
        rest["report"] = "full" if rest.pop("shares") else "short"
        written.append(f"report={rest['report']!r}")
    if old:
        warnings.warn(
            f"{make.__name__}({', '.join(f'{name}=...' for name in old)}) goes in "
            f"0.3. Write {', '.join(written)}.",
            DeprecationWarning,
            stacklevel=3,
        )


def _refuse(make: Callable[..., Any], options: dict[str, Any]) -> None:
    """Checks that no option repeats one of the method.

    Raises:
        TypeError: If one does. The message names the options.
    """
    if options:
        raise TypeError(
            f"`{make.__name__}` got a method and {sorted(options)}: those are the "
            "method's own. Leave them out, or change the method by "
            "`method._replace(...)`."
        )


def _training(
    tx: Any,
    *,
    estimator: _build.Map | None = None,
    hyperparameters: dict[str, optax.Schedule] | None = None,
    where: Any = None,
    deployed_pass: bool = False,
    deploy: _build.Map | None = None,
    random_weights: bool = False,
) -> methods.Method:
    """A method from the arguments of 0.1; it is not known whether it is additive.

    `tx` gets `weights` and counts its updates itself, as in 0.1.
    """
    own = _step.update_of(tx)

    def update(
        updates: Any, state: Any, params: Any = None, *, step: Any = None, **extra: Any
    ) -> Any:
        return own(updates, state, params, **extra)

    method = methods.from_estimator(
        estimator or (lambda latent: latent),
        optax.GradientTransformationExtraArgs(tx.init, update),
        where=where,
        schedules=dict(hyperparameters or {}),
        deploy=deploy,
        random=random_weights and estimator is not None,
        additive=None,  # to be found out
        deployed_pass=deployed_pass,
    )
    if estimator is None:  # full precision, though its second pass may be binary
        method = method._replace(
            weights=lambda params, step, key=None: params,
            where=lambda params: jax.tree.map(lambda _: False, params),
        )
    return method


_TRAINING = inspect.signature(_training).parameters.keys() - {"tx"}
