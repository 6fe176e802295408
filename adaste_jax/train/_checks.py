"""Checks of a step in its first call."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adaste_jax import methods
from adaste_jax.train import _state


def check_signs(method: methods.Method, state: _state.TrainState) -> None:
    """Checks that weights which are sent as bits are signs.

    Raises:
        ValueError: If the method gives other weights, in this step or in later steps.
    """
    if not _is_binary(method, state):
        raise ValueError(
            '`gather="packed"` is for one-bit weights, and this method has none.'
        )
    step = int(state.step)
    old_form = method.additive is None  # says nothing of its weights: they are tried
    if not old_form and step < method.binary_from:
        raise ValueError(
            '`gather="packed"` sends one bit a weight, and the weights of this method '
            f"are those that are shipped from step {method.binary_from} on; the state "
            f'is at step {step}. Use `gather="float"` until then, and a second step '
            "function after it. If the weights of your own method are signs in every "
            "step, use `method._replace(binary_from=0)`."
        )
    maps = [method.deploy] if method.deployed_pass or not old_form else []
    if old_form:
        maps.append(lambda params: method.weights(params, 0, jax.random.key(0)))
    if not all(_gives_signs(each, method, state.params) for each in maps):
        raise ValueError(
            '`gather="packed"` sends one bit a weight, and the weights of this '
            "method are not pure signs. Use it with `methods.ste`, or with AdaSTE once "
            "mu has reached 1 / alpha (in the form of 0.1 a second step, with a "
            'constant mu); until then `gather="float"`.'
        )


def check_accumulation(method: methods.Method, state: _state.TrainState) -> None:
    """Checks that no transformation averages after a rule that is not additive.

    Raises:
        ValueError: If `tx` contains `optax.MultiSteps` and the rule is in the weights.
    """
    accumulates = any(
        isinstance(leaf, optax.MultiStepsState)
        for leaf in jax.tree.leaves(
            state.opt_state, is_leaf=lambda x: isinstance(x, optax.MultiStepsState)
        )
    )
    if not accumulates or not _is_binary(method, state):
        return
    additive = method.additive
    if additive is None:  # the form of 0.1
        additive = _is_additive(method, state.params)
    if not additive:
        raise ValueError(
            "`optax.MultiSteps` averages what the estimator's backward rule gives, and "
            "that rule is not additive: the average would be wrong. Use "
            "`microbatches=`, or an estimator with the identity as its rule and "
            "`optim.scale_by_adaste` inside `MultiSteps`."
        )


def _is_binary(method: methods.Method, state: _state.TrainState) -> bool:
    """Whether there are latents."""
    return any(jax.tree.leaves(method.where(state.params)))


def labels_on_host(batch: Any) -> np.ndarray | None:
    """Integer labels of a batch that can be read without waiting for a device."""
    labels = batch.get("label") if isinstance(batch, Mapping) else None
    if isinstance(labels, Mapping):
        labels = labels.get("label")
    if isinstance(labels, np.ndarray) and np.issubdtype(labels.dtype, np.integer):
        return labels
    return None


def _gives_signs(
    weights: Callable[[Any], Any], method: methods.Method, params: Any
) -> bool:
    """Whether `weights(params)` gives only +1 and -1 for the latents."""
    where = method.where(params)
    pairs = zip(
        jax.tree.leaves(weights(_latents(params, where))),
        jax.tree.leaves(where),
        strict=True,
    )
    return all(bool(jnp.all(jnp.abs(leaf) == 1)) for leaf, latent in pairs if latent)


def _is_additive(method: methods.Method, params: Any) -> bool:
    """Whether the backward rule of a sum is the sum of the rules."""
    latents = _latents(params, method.where(params))
    weights, pull = jax.vjp(lambda p: method.weights(p, 0, jax.random.key(0)), latents)
    rng = np.random.default_rng(1)
    one, two = (
        jax.tree.map(lambda w: jnp.asarray(rng.normal(size=w.shape), w.dtype), weights)
        for _ in range(2)
    )
    both, first, second = (
        jax.tree.leaves(pull(grad))
        for grad in (jax.tree.map(jnp.add, one, two), one, two)
    )
    finfo: Any = jnp.finfo
    return all(
        jnp.allclose(b, f + s, rtol=(e := 16 * finfo(b.dtype).eps), atol=e)
        for b, f, s in zip(both, first, second, strict=True)
    )


def _latents(params: Any, where: Any) -> Any:
    """Parameters with few latents, which are random, small and large.

    Only the smallest latent leaf keeps its shape, since the others may be large and
    have the same rule.
    """
    chosen = jax.tree.leaves(where)
    leaves, structure = jax.tree.flatten(params)
    sizes = [leaf.size if c else np.inf for leaf, c in zip(leaves, chosen, strict=True)]
    smallest = int(np.argmin(sizes))
    rng = np.random.default_rng(0)

    def few(index: int, leaf: Any) -> Any:
        if not chosen[index]:
            return leaf
        whole = index == smallest
        shape = leaf.shape if whole else tuple(min(size, 4) for size in leaf.shape)
        scale = np.exp(rng.uniform(-3, 1, shape))
        return jnp.asarray(rng.normal(size=shape) * scale, leaf.dtype)

    return jax.tree.unflatten(
        structure, [few(i, leaf) for i, leaf in enumerate(leaves)]
    )
