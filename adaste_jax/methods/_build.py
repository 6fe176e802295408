"""Makes methods from functions of one leaf."""

import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adaste_jax import _paths, _tree, optim
from adaste_jax.methods import _schedules
from adaste_jax.methods._method import (
    NEVER,
    Length,
    Method,
    Optimiser,
    Rate,
    check,
)

Map = Callable[..., jax.Array]
"""From the latents of one leaf to its weights."""

Start = Callable[[jax.Array, jax.Array], jax.Array]
"""From a key and the parameters of one leaf to the latents to start from."""


def build(
    length: Length,
    learning_rate: Rate,
    estimator: Map,
    *,
    tx: Optimiser | None = None,
    first: optax.GradientTransformation | None = None,
    last: optax.GradientTransformation | None = None,
    binary_from: int = 0,
    **options: Any,
) -> Method:
    """Makes a method of this package: a cosine for each kind of parameters, one clock.

    Args:
        length: Length of the run and the keywords of every method.
        learning_rate: Learning rate of the latents.
        estimator: Map from the latents of one leaf to its weights.
        tx: Function from the schedule of the learning rate to the transformation of the
            latents, where it is part of the method. Default: that of `length`. Real
            parameters get Adam.
        first: What comes before it.
        last: What comes after it.
        binary_from: The step from which the training weights equal the shipped ones.
        **options: Further options of `from_estimator`.

    Returns:
        The method.

    Raises:
        ValueError: If an option is out of range.
    """
    if tx is None:
        tx = length.optimiser
    else:
        plain = length.optimiser is optax.adam
        check(plain, "optimiser", length.optimiser, "absent: this method has its own")
    where = functools.partial(_paths.select, where=length.where)
    real = _schedules.cosine(length, "real_learning_rate", length.real_learning_rate)
    latent = _schedules.cosine(length, "learning_rate", learning_rate)
    parts = [part for part in (first, tx(latent), last) if part is not None]
    chained = optax.chain(*parts) if len(parts) > 1 else parts[0]
    optimiser = optax.partition(
        {"latent": chained, "real": optax.adam(real)},
        functools.partial(optim.labels, rules={"latent": where}),
        mask_compatible_extra_args=True,
    )
    return from_estimator(
        estimator,
        on_the_step(optimiser),
        where=where,
        binary_from=binary_from,
        **options,
    )


def from_estimator(
    estimator: Map,
    tx: optax.GradientTransformationExtraArgs,
    *,
    where: _paths.Where | None = None,
    schedules: Mapping[str, optax.Schedule] = types.MappingProxyType({}),
    deploy: Map | None = None,
    starts: tuple[Start | None, Start | None] = (None, None),
    random: bool = False,
    binary_from: int = NEVER,
    **declared: Any,
) -> Method:
    """Makes your own method from functions of one leaf.

    Args:
        estimator: Map from the latents of one leaf to its weights. It gets the values
            of `schedules`, and a `key` if `random`.
        tx: Optax transformation of all parameters.
        where: Which leaves are latents: regular expressions on the path, a tree of
            booleans, or a function that returns one. Default: leaves called `kernel`.
        schedules: For each hyperparameter of the estimator, a function of the step.
        deploy: Map from the latents of one leaf to the shipped weights; default: the
            sign.
        starts: Two functions from a key and a leaf to initial latents: the first for
            the leaf of a new network, the second for that of a trained network. None
            keeps the leaf.
        random: Whether the estimator takes a key.
        binary_from: The step from which the training weights equal the shipped ones; 0
            for signs.
        **declared: The attributes `additive`, `deployed_pass`, `levels` and `scales` of
            `Method`.

    Returns:
        The method.

    Raises:
        ValueError: If a hyperparameter of the estimator is out of range.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from adaste_jax import estimators, methods
        >>> grow = optax.linear_schedule(1.0, 5.0, transition_steps=100)
        >>> method = methods.from_estimator(
        ...     estimators.tanh, optax.adam(1e-2), schedules={"beta": grow})
        >>> weights = method.weights({"kernel": jnp.array([0.5])}, 100)
        >>> round(float(weights["kernel"][0]), 3)
        0.987
    """
    mask = functools.partial(_paths.select, where=where)

    def init(key: jax.Array, params: Any, trained: bool = False) -> Any:
        leaves, structure = jax.tree.flatten(params)
        chosen = jax.tree.leaves(mask(params))
        make = starts[trained]
        if make is None:
            return params
        keys = jax.random.split(key, len(leaves))
        made = [
            make(key, leaf) if is_latent else leaf
            for key, leaf, is_latent in zip(keys, leaves, chosen, strict=True)
        ]
        return jax.tree.unflatten(structure, made)

    def values(step: Any) -> dict[str, Any]:
        step = jnp.asarray(step, jnp.int32)
        return {name: schedule(step) for name, schedule in schedules.items()}

    def weights(params: Any, step: Any, key: jax.Array | None = None) -> Any:
        if random and key is None:
            raise ValueError(
                "this method draws its weights at random: call "
                "`weights(params, step, key)`, with another key in every step."
            )
        bound = functools.partial(estimator, **values(step))
        return _tree.binarize(params, bound, where=where, key=key if random else None)

    def shipped(params: Any) -> Any:
        if deploy is None:
            return _tree.deploy(params, where=where)
        return _tree.binarize(params, deploy, where=where)

    functions = (init, weights, tx, shipped, mask, values)
    method = Method(*functions, binary_from, random=random, **declared)
    if method.additive is not None:  # else of 0.1, which tried it in the first step
        keyed = {"key": jax.random.key(0)} if random else {}
        now = lambda t: estimator(t, **values(0), **keyed)
        jax.eval_shape(now, jnp.zeros((0, 2)))  # no entries: groups of any size fit
    return method


def on_the_step(
    tx: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Reads schedules in `tx` at the extra argument `step`, if it is given.

    The transformations of `adaste_jax.optim` use `step` themselves.
    `optax.scale_by_schedule` uses the count in its state, so that count is set.
    """
    tx = optax.with_extra_args_support(tx)

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        step: Any = None,
        **extra_args: Any,
    ) -> tuple[Any, Any]:
        if step is not None:
            extra_args["step"] = step
            state = jax.tree.map(
                lambda node: (
                    node._replace(count=jnp.asarray(step, node.count.dtype))
                    if isinstance(node, optax.ScaleByScheduleState)
                    else node
                ),
                state,
                is_leaf=lambda node: isinstance(node, optax.ScaleByScheduleState),
            )
        moved, state = tx.update(updates, state, params, **extra_args)
        return moved, state

    return optax.GradientTransformationExtraArgs(tx.init, update)


def signs(size: float) -> Start:
    """Plus and minus `size`, with the signs of the given leaf."""
    _check_size(size)
    return lambda key, leaf: size * optim.binary_signs(leaf)


def random_signs(size: float) -> Start:
    """Plus and minus `size`, with equal probability."""
    _check_size(size)
    return lambda key, leaf: size * jax.random.rademacher(key, leaf.shape, leaf.dtype)


def uniform(key: jax.Array, leaf: jax.Array) -> jax.Array:
    """Latents uniform in [-1, 1]."""
    return jax.random.uniform(key, leaf.shape, leaf.dtype, -1.0, 1.0)


def _check_size(size: float) -> None:
    check(size > 0, "initial_latent", size, "greater than 0")
