"""Methods that only studies need: `enter` makes them known to configs.

Baselines and combinations of what the library has, to be compared with it.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import adaste_jax
from adaste_jax import estimators
from adaste_jax import methods as library
from experiments import methods

INT8_GROUP = 32
"""Inputs that share a scale in int8, as in Q8_0 of llama.cpp."""


def enter() -> None:
    """Registers the methods of this file."""
    methods.METHODS.update(METHODS)


def scaled_ste(
    steps: int,
    *,
    learning_rate: library.Rate = 3e-3,
    group: int = 0,
    embedding: bool = False,
    weight_decay: float = 0.0,
    averaging: float = 0.0,
    **run: Any,
) -> library.Method:
    """STE with scales: w = a sign(t), h = g, a = mean |t| of a channel or a group.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        group: Number of inputs of an output that share a scale, or 0.
        embedding: Whether the embedding is binary too, with groups along its rows.
        weight_decay: Decoupled decay of the latents, as in AdamW.
        averaging: Momentum of an average of the latents, which is shipped; 0 is none.
        **run: Keywords of every method.
    """
    run["optimiser"] = _extended(run, steps, weight_decay, averaging)
    make = functools.partial(library.cage, pull=0.0, group=group)
    return _embedded(make, steps, embedding, learning_rate=learning_rate, **run)


def annealed(
    steps: int,
    *,
    learning_rate: library.Rate = 3e-3,
    anneal_fraction: float = 0.8,
    group: int = 0,
    embedding: bool = False,
    weight_decay: float = 0.0,
    averaging: float = 0.0,
    **run: Any,
) -> library.Method:
    """The linear blend of the library, with the options of `scaled_ste`."""
    run["optimiser"] = _extended(run, steps, weight_decay, averaging)
    make = functools.partial(
        library.blend, anneal_fraction=anneal_fraction, group=group
    )
    return _embedded(make, steps, embedding, learning_rate=learning_rate, **run)


def two_stage(
    steps: int, *, learning_rate: library.Rate = 3e-3, **run: Any
) -> library.Method:
    """The linear blend in the first half, STE with scales in the second.

    The learning rate falls to 0 on a cosine in each half, so that the second begins
    anew from the latents of the first.
    """
    half = -(-steps // 2)

    def rate(step: Any) -> Any:
        now = learning_rate(step) if callable(learning_rate) else learning_rate
        return now * (1 + jnp.cos(jnp.pi * (step % half) / half)) / 2

    return library.blend(steps, learning_rate=rate, anneal_fraction=0.5, **run)


def ternary_blend(
    steps: int,
    *,
    learning_rate: library.Rate = 3e-3,
    anneal_fraction: float = 0.8,
    group: int = 0,
    **run: Any,
) -> library.Method:
    """Latents that are blended with the ternary weights of BitNet b1.58.

    w = (1 - l) t + l q(t), h = g, with l from 0 to 1 as in the linear blend, and q that
    of `methods.ternary_absmean`.
    """
    ternary = library.ternary_absmean(
        steps, learning_rate=learning_rate, group=group, **run
    )
    share = library.blend(steps, anneal_fraction=anneal_fraction)

    def weights(params: Any, step: Any, key: jax.Array | None = None) -> Any:
        part = share.values(step)["share"]

        def blended(latent: jax.Array, level: jax.Array) -> jax.Array:
            fixed = jax.lax.stop_gradient(latent)
            soft = (1 - part) * fixed + part * jax.lax.stop_gradient(level)
            seen = jnp.where(part < 1, soft, jax.lax.stop_gradient(level))
            return seen + (latent - fixed)

        levels = ternary.deploy(params)
        return jax.tree.map(
            lambda chosen, *pair: blended(*pair) if chosen else pair[0],
            ternary.where(params),
            params,
            levels,
        )

    return ternary._replace(
        weights=weights, values=share.values, binary_from=share.binary_from
    )


def float16(
    steps: int, *, learning_rate: library.Rate = 1e-3, **run: Any
) -> library.Method:
    """Full precision, shipped as float16."""
    method = library.full_precision(steps, learning_rate=learning_rate, **run)
    rounded = lambda leaf: leaf.astype(jnp.float16).astype(leaf.dtype)
    return method._replace(deploy=lambda params: jax.tree.map(rounded, params))


def int8(
    steps: int, *, learning_rate: library.Rate = 1e-3, **run: Any
) -> library.Method:
    """Full precision, shipped as int8 with a float16 scale for 32 inputs.

    The scale is the largest magnitude over 127, as in Q8_0 of llama.cpp. Norms stay as
    they are.
    """
    method = library.full_precision(steps, learning_rate=learning_rate, **run)

    def deploy(params: Any) -> Any:
        def of(path: Any, leaf: jax.Array) -> jax.Array:
            name = jax.tree_util.keystr(path[-1:], simple=True)
            if name not in ("kernel", "embedding"):
                return leaf
            axis = 0 if name == "kernel" else 1
            return estimators.per_group(_int8, INT8_GROUP, axis=axis)(leaf)

        return jax.tree_util.tree_map_with_path(of, params)

    return method._replace(deploy=deploy)


METHODS = {
    "annealed": annealed,
    "float16": float16,
    "int8": int8,
    "scaled_ste": scaled_ste,
    "ternary_blend": ternary_blend,
    "two_stage": two_stage,
}
"""The methods of this file by name."""


def _int8(group: jax.Array) -> jax.Array:
    scale = jnp.max(jnp.abs(group)) / 127
    stored = scale.astype(jnp.float16).astype(group.dtype)
    levels = jnp.round(group / jnp.where(scale > 0, scale, 1))
    return stored * levels


def _embedded(make: Any, steps: int, embedding: bool, **run: Any) -> library.Method:
    """A method whose embedding is binary too, if it says so."""
    if not embedding:
        return make(steps, **run)
    kernels = run.pop("where", None) or adaste_jax.kernels()
    method = make(steps, where=lambda params: _with_tables(kernels, params), **run)
    weights, deploy = method.weights, method.deploy
    return method._replace(
        weights=lambda params, *rest: _turned(weights(_turned(params), *rest)),
        deploy=lambda params: _turned(deploy(_turned(params))),
    )


def _is_table(path: Any) -> bool:
    return jax.tree_util.keystr(path[-1:], simple=True) == "embedding"


def _with_tables(kernels: Any, params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, chosen: chosen or _is_table(path), kernels(params)
    )


def _turned(params: Any) -> Any:
    """Embeddings [rows, width] as kernels [width, rows], or back."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.T if _is_table(path) else leaf, params
    )


class _AverageState(NamedTuple):
    average: Any


def _extended(
    run: dict[str, Any],
    steps: int,
    weight_decay: float,
    averaging: float,
) -> Any:
    """The optimiser of a run with decay of the latents and an average of them."""
    given = run.get("optimiser", optax.adam)
    if not (weight_decay or averaging):
        return given

    def make(rate: optax.Schedule) -> optax.GradientTransformation:
        parts = [given(rate)]
        if weight_decay:
            parts.append(_decay(lambda step: rate(step) * weight_decay))
        if averaging:
            parts.append(_average_at_the_end(steps, averaging))
        return optax.chain(*parts)

    return make


def _decay(strength: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """Takes a share of the latents from every update."""

    def update(
        updates: Any, state: Any, params: Any = None, *, step: Any, **extra: Any
    ) -> tuple[Any, Any]:
        del extra
        share = strength(step)
        return jax.tree.map(lambda u, p: u - share * p, updates, params), state

    init = lambda params: optax.EmptyState()
    return optax.GradientTransformationExtraArgs(init, update)


def _average_at_the_end(
    steps: int, momentum: float
) -> optax.GradientTransformationExtraArgs:
    """Keeps a moving average of the latents, and moves them there in the last step."""

    def update(
        updates: Any, state: Any, params: Any = None, *, step: Any, **extra: Any
    ) -> tuple[Any, Any]:
        del extra
        moved = jax.tree.map(jnp.add, params, updates)
        kept = jnp.minimum(momentum, step / (step + 1))  # a plain mean at first
        average = jax.tree.map(
            lambda a, p: kept * a + (1 - kept) * p, state.average, moved
        )
        last = step == steps - 1
        updates = jax.tree.map(
            lambda u, a, p: jnp.where(last, a - p, u), updates, average, params
        )
        return updates, _AverageState(average)

    return optax.GradientTransformationExtraArgs(
        lambda params: _AverageState(params), update
    )
