"""One clock: the loss and the rule read their schedules at one step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaste_jax import methods
from tests.methods import problem

LATENT = 0.3  # within the soft part of the map, at all of these mu
GRADIENT = -1e-3  # away from zero
KERNEL = ("last", "kernel")


def _rate(step):
    return 1.0 + step / 16


def _method():
    """A rule whose slope away from zero is 1 / (1 + mu), and nothing besides it."""
    return methods.adaste_released(
        80,
        steps_per_epoch=1,
        num_examples=1,
        multiplier=1.0,
        momentum=0.0,
        decay=0.0,
        rule="adaptive",
        mu_rate=1.09,  # to 9.86
        learning_rate=_rate,
    )


def _run(method, tx, steps, params=None, state=None, gradient=lambda step: GRADIENT):
    """Steps that took effect, with mu in the loss and rate / (1 + mu) in the rule."""
    if params is None:
        params = {"kernel": jnp.array([LATENT])}
        state = tx.init(params)

    @jax.jit
    def one(params, state, step, grad):
        weights = method.weights(params, step)
        updates, state = tx.update(
            {"kernel": grad[None]}, state, params, weights=weights, step=step
        )
        return optax.apply_updates(params, updates), state, weights, updates

    seen = []
    for step in steps:
        latent = float(params["kernel"][0])
        params, state, weights, updates = one(
            params, state, jnp.asarray(step), jnp.asarray(gradient(step))
        )
        weight = float(weights["kernel"][0])
        if float(updates["kernel"][0]):
            mu = (latent - weight) / (weight - 1.01)
            seen.append((step, mu, -float(updates["kernel"][0]) / GRADIENT))
    return params, state, seen


def _check(seen, steps):
    assert [step for step, *_ in seen] == list(steps)
    for step, mu, slope in seen:
        assert mu == pytest.approx(0.01 * 1.09 ** (step + 1), rel=1e-3)
        assert slope == pytest.approx(_rate(step) / (1 + mu), rel=1e-3)


def test_plain_steps():
    method = _method()
    *_, seen = _run(method, method.tx, range(80))
    _check(seen, range(80))


@pytest.mark.parametrize("form", ["object", "transformation"])
def test_accumulated_steps(form):
    method = _method()
    tx = optax.MultiSteps(method.tx, 4)
    tx = tx if form == "object" else tx.gradient_transformation()
    *_, seen = _run(method, tx, range(80))
    _check(seen, range(3, 80, 4))


def test_skipped_steps():
    method = _method()
    tx = optax.apply_if_finite(method.tx, 1000)
    *_, seen = _run(
        method, tx, range(80), gradient=lambda step: GRADIENT if step % 2 else np.nan
    )
    _check(seen, range(1, 80, 2))


def test_resumed_steps():
    """The state goes through NumPy, and everything else is made anew."""
    method = _method()
    params, state, _ = _run(method, optax.MultiSteps(method.tx, 4), range(42))
    params, state = jax.tree.map(lambda leaf: np.array(leaf), (params, state))
    method = _method()
    tx = optax.MultiSteps(method.tx, 4)
    *_, seen = _run(method, tx, range(42, 80), params, state)
    _check(seen, range(43, 80, 4))


def test_microbatches():
    """Their gradients are averaged before one update."""
    method = _method()
    parts = lambda step: np.mean([GRADIENT / 2, 3 * GRADIENT / 2])
    *_, seen = _run(method, method.tx, range(80), gradient=parts)
    _check(seen, range(80))


def test_without_the_step_updates_are_counted_as_optax_does():
    method = _method()
    params = {"kernel": jnp.array([LATENT])}
    grads = {"kernel": jnp.array([GRADIENT])}
    state = method.tx.init(params)
    for count in range(3):
        updates, state = method.tx.update(grads, state, params)
        mu = 0.01 * 1.09 ** (count + 1)
        slope = -float(updates["kernel"][0]) / GRADIENT
        assert slope == pytest.approx(_rate(count) / (1 + mu), rel=1e-3)


# One of each kind of transformation; the other methods have Adam alone, as `adaste`.
OPTIMISERS = [
    "adaste",
    "adaste_averaged",
    "adaste_released",
    "full_precision",
    "bop",
    "proxquant",
    "bayesbinn",
    "vispa",
    "md_tanh",
    "md_softmax",
    "hardtanh_adaste",
    "fenbp",
    "ste_clipped",
    "binary_connect",
    "ovsw",
    "freezing",
    "cage",
]


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_schedule_of_every_method_reads_the_step(name):
    """Accumulated calls before it change nothing in an update."""
    method = problem.small(name)
    params = method.init(problem.KEY, problem.drawn())
    weights = method.weights(params, 0, problem.KEY)
    batch = jax.tree.map(lambda leaf: leaf[0], problem.batches())
    grads = jax.grad(problem.loss_of)(weights, *batch)
    _, pull = jax.vjp(lambda p: method.weights(p, 0, problem.KEY), params)
    (grads,) = pull(grads)

    def last(tx, steps):
        state = tx.init(params)
        for step in steps:
            updates, state = tx.update(grads, state, params, weights=weights, step=step)
        return updates

    plain = jax.jit(lambda step: last(method.tx, [step]))
    twice = jax.jit(lambda step: last(optax.MultiSteps(method.tx, 2), [step - 1, step]))
    once, accumulated, earlier = plain(17), twice(17), plain(8)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        once,
        accumulated,
    )
    layers = [("last", "bias")] if name == "bop" else [("last", "bias"), KERNEL]
    for layer, leaf in layers:  # the updates of bop are 0 and 2
        ratio = np.abs(once[layer][leaf] / earlier[layer][leaf] - 1)
        assert np.nanmedian(ratio) > 1e-3
