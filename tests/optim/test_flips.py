"""OvSW, freezing and CAGE, one latent or channel at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaste_jax import estimators, methods, optim
from tests import reference

NUMBERS = {"delta": 0.3, "decay": 0.05, "momentum": 0.9, "threshold": 0.05}


def test_ovsw_is_the_reference_in_every_channel(float64):
    """Gradients that are small, large and zero; latents that flip, and tiny ones."""
    rng = np.random.default_rng(0)
    sizes = np.array([1e-3, 3.0, 0.0, 0.1])
    tx = optim.scale_by_ovsw(**NUMBERS)
    before = latents = rng.normal(size=(2, 3, 4)) * [1.0, 1.0, 1.0, 1e-5]
    state, rates = tx.init(jnp.asarray(latents)), np.zeros((4, 6))
    update_of = jax.jit(tx.update)
    scaled, silent = set(), set()
    for _ in range(6):
        grads = rng.normal(size=latents.shape) * sizes
        found, state = update_of(jnp.asarray(grads), state, jnp.asarray(latents))
        for channel in range(4):
            part = [x[..., channel].ravel() for x in (latents, grads, before)]
            expected, rates[channel] = reference.ovsw(*part, rates[channel], **NUMBERS)
            got = np.asarray(found)[..., channel].ravel()
            np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-18)
            scaled.add(bool(np.linalg.norm(part[1]) < 0.3 * np.linalg.norm(part[0])))
            silent |= set((rates[channel] < 0.05).tolist())
        np.testing.assert_allclose(state.flips.reshape(6, 4).T, rates, rtol=1e-12)
        before, latents = (
            latents,
            latents * rng.choice([1.0, 1.1, -1.0], size=(2, 3, 4)),
        )
    assert scaled == silent == {True, False}


def test_ovsw_is_the_identity_for_large_gradients_and_no_decay():
    tx = optim.scale_by_ovsw(0.01, decay=0.0)
    latent = jnp.array([[1.0, -2.0], [0.5, 0.0]])
    found, _ = tx.update(2 * latent, tx.init(latent), latent)
    np.testing.assert_array_equal(found, 2 * latent)


def test_a_method_of_ovsw_is_sgd_on_its_gradients():
    method = methods.ovsw(9, learning_rate=lambda step: 0.5, delta=0.2, decay=0.1)
    params = {"kernel": jnp.array([[3.0], [-4.0]])}
    grads = {"kernel": jnp.array([[0.3], [0.4]])}  # of norm 0.5, which becomes 1
    found, _ = method.tx.update(grads, method.tx.init(params), params, step=0)
    wanted = [[-0.5 * (0.6 + 0.3)], [-0.5 * (0.8 - 0.4)]]
    np.testing.assert_allclose(found["kernel"], wanted, rtol=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_freezing_is_the_reference_for_every_latent(float64, seed):
    rng = np.random.default_rng(seed)
    levels = np.where(rng.random((60, 8)) < np.linspace(0.02, 0.98, 8), 1, -1)
    tx = optim.freeze_oscillations(0.3, momentum=0.1)
    sizes = rng.uniform(0.1, 2.0, size=levels.shape)
    state, zeros = tx.init(jnp.asarray(levels[0] * sizes[0])), jnp.zeros(8)
    update_of = jax.jit(tx.update)
    expected = [reference.freezing(column.tolist(), 0.1, 0.3) for column in levels.T]
    for step in range(60):
        latent = jnp.asarray(levels[step] * sizes[step])
        update, state = update_of(zeros, state, latent)
        for column in range(8):
            frequency, level = expected[column][step]
            assert float(state.frequency[column]) == pytest.approx(frequency, rel=1e-9)
            wanted = float(latent[column]) if level is None else level
            assert float(latent[column] + update[column]) == pytest.approx(wanted)
    assert 0 < int(state.frozen.sum()) < 8


def test_a_frozen_latent_stays_whatever_comes():
    """Beside one that has flipped once."""
    tx = optim.freeze_oscillations(0.4, momentum=0.5)
    update_of, latent = jax.jit(tx.update), jnp.array([0.5, -0.5])
    state, rng = tx.init(latent), np.random.default_rng(0)
    for step in range(12):
        push = jnp.array([(-1.0) ** (step + 1), 0.3])
        if step > 4:
            push = jnp.asarray([rng.normal() * 100, rng.uniform()], jnp.float32)
        update, state = update_of(push, state, latent)
        latent = latent + update
        if step == 4:
            level = float(latent[0])
            assert abs(level) == 1
        if step > 4:
            assert float(latent[0]) == level
            assert float(latent[1]) > 1


def test_nothing_is_frozen_in_the_first_quarter_and_then_on_a_cosine():
    """A latent that turns in every step, and where the threshold meets it."""
    method = methods.freezing(
        40,
        learning_rate=lambda step: 0.1,
        threshold_init=1.0,
        threshold_end=0.0,
        momentum=0.02,
        optimiser=optax.sgd,
    )
    frozen_at = None
    params = {"kernel": jnp.array([0.01])}
    state, update_of = method.tx.init(params), jax.jit(method.tx.update)
    for step in range(40):
        grads = {"kernel": jnp.sign(params["kernel"])}
        updates, state = update_of(grads, state, params, step=step)
        params = optax.apply_updates(params, updates)
        if frozen_at is None and abs(float(params["kernel"][0])) == 1:
            frozen_at = step
    levels = [1 if step % 2 == 0 else -1 for step in range(40)]
    limits = [
        np.inf if step < 10 else (1 + np.cos(np.pi * (step - 10) / 30)) / 2
        for step in range(40)
    ]
    found = [f for f, _ in reference.freezing(levels, 0.02, np.inf)]
    wanted = next(s for s in range(40) if found[s] > limits[s])
    assert 10 < wanted < 40
    assert frozen_at == wanted


def test_cage_pulls_to_the_scaled_signs_of_where_the_step_ends(float64):
    rng = np.random.default_rng(1)
    latents, updates = rng.normal(size=(2, 5, 3))
    signs = functools.partial(estimators.blend, share=1.0)
    tx = optim.apply_cage(signs, lambda step: 0.25 * (1 + step))
    state = tx.init(jnp.asarray(latents))
    for strength in (0.25, 0.5):
        found, state = tx.update(jnp.asarray(updates), state, jnp.asarray(latents))
        for column in range(3):
            expected = reference.cage(latents[:, column], updates[:, column], strength)
            got = latents[:, column] + np.asarray(found)[:, column]
            np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_a_method_of_cage_is_silent_and_then_pulls_more_in_every_step():
    """Without gradients, so that only the pull moves the latents."""
    method = methods.cage(
        10, learning_rate=lambda step: 0.02, pull=5.0, silence=0.6, optimiser=optax.sgd
    )
    latents = np.array([0.5, -2.0, 0.25])
    params = {"kernel": jnp.asarray(latents, jnp.float32)[:, None]}
    state, update_of = method.tx.init(params), jax.jit(method.tx.update)
    zeros = {"kernel": jnp.zeros((3, 1))}
    for step in range(10):
        updates, state = update_of(zeros, state, params, step=step)
        params = optax.apply_updates(params, updates)
        weight = max(0.0, ((step + 1) / 10 - 0.6) / 0.4) * 5.0
        latents = reference.cage(latents, np.zeros(3), 0.02 * weight)
        np.testing.assert_allclose(params["kernel"][:, 0], latents, rtol=1e-5)


@pytest.mark.parametrize(
    ("maker", "message"),
    [
        (lambda: optim.scale_by_ovsw(-1.0), "`delta` must lie in"),
        (lambda: optim.scale_by_ovsw(decay=-1.0), "`decay`"),
        (lambda: optim.scale_by_ovsw(momentum=1.5), "`momentum`"),
        (lambda: optim.scale_by_ovsw(threshold=-1.0), "`threshold`"),
        (lambda: optim.freeze_oscillations(-1.0), "`threshold`"),
        (lambda: optim.freeze_oscillations(0.1, momentum=-1.0), "`momentum`"),
        (lambda: optim.apply_cage(estimators.ste, 1.5), "`strength`"),
    ],
)
def test_what_is_out_of_range_is_refused(maker, message):
    with pytest.raises(ValueError, match=message):
        maker()


@pytest.mark.parametrize(
    "tx",
    [
        optim.scale_by_ovsw(),
        optim.freeze_oscillations(0.1),
        optim.apply_cage(estimators.ste, 0.1),
    ],
)
def test_latents_are_needed(tx):
    latent = jnp.ones((2, 2))
    with pytest.raises(ValueError, match=r"tx\.update\(updates, state, params\)"):
        tx.update(latent, tx.init(latent))
