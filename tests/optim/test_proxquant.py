"""ProxQuant's maps on the rows of their tables, and as minimisers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaste_jax import estimators, optim

# Tables are printed to six digits and computed in float64.
DIGITS = 5e-6

# latent, L1, L1 and clipped, squared; the strength is 0.1
ROWS = [
    (-1.3, -1.2, -1, -1.27273),
    (-0.9, -1, -1, -0.909091),
    (-0.35, -0.45, -0.45, -0.409091),
    (0, 0.1, 0.1, 0.0909091),
    (0.05, 0.15, 0.15, 0.136364),
    (0.35, 0.45, 0.45, 0.409091),
    (0.9, 1, 1, 0.909091),
    (1.05, 1, 1, 1.04545),
    (1.3, 1.2, 1, 1.27273),
]


@pytest.mark.parametrize(
    ("form", "clip", "column"),
    [("l1", False, 1), ("l1", True, 2), ("squared", False, 3)],
)
def test_rows(float64, form, clip, column):
    """As a map, and as the last of a chain whose step leads to the same point."""
    columns = [jnp.array(column, float) for column in zip(*ROWS, strict=True)]
    if not clip:
        got = optim.prox(columns[0], 0.1, form=form)
        np.testing.assert_allclose(got, columns[column], rtol=DIGITS)
    tx = optim.apply_prox(0.1, form=form, clip=clip)
    start = columns[0][::-1]
    updates, _ = tx.update(columns[0] - start, tx.init(start), start)
    np.testing.assert_allclose(start + updates, columns[column], rtol=DIGITS)


def test_ternary_row(float64):
    latent = jnp.array([0.9, 0.1, -0.6, -0.2, 0.5, -0.05])
    levels = [0.7, 0, -0.6, 0, 0.7, 0]
    expected = [0.833333, 0.0666667, -0.6, -0.133333, 0.566667, -0.0333333]
    got = optim.prox(latent, 0.5, form="ternary")
    np.testing.assert_allclose(got, expected, rtol=DIGITS)
    far = optim.prox(latent, 1e9, form="ternary")
    np.testing.assert_allclose(far, levels, atol=1e-8)


@pytest.mark.parametrize("form", ["l1", "squared"])
@pytest.mark.parametrize("strength", [0.05, 0.4, 3.0])
def test_the_map_minimises(form, strength):
    """By brute force: the regulariser is the distance to the nearest level."""
    grid = np.linspace(-3, 3, 60_001)
    distance = np.abs(np.abs(grid) - 1)
    penalty = distance if form == "l1" else distance**2 / 2
    for latent in (-2.3, -0.8, -0.3, 0.2, 0.77, 1.1, 2.0):
        best = grid[np.argmin((grid - latent) ** 2 / 2 + strength * penalty)]
        got = optim.prox(jnp.float32(latent), strength, form=form)
        np.testing.assert_allclose(got, best, atol=2e-4)


def test_a_large_strength_is_the_sign():
    latent = jnp.array([-1.0, -0.4, -0.0, 0.0, 0.2, 1.0])
    np.testing.assert_array_equal(optim.prox(latent, 1.0), [-1, -1, 1, 1, 1, 1])


@pytest.mark.parametrize("mu", [0.05, 1.0, 20.0])
def test_the_squared_map_is_the_forward_map_of_adaste_without_margin(float64, mu):
    latent = jnp.linspace(-1, 1, 21)
    np.testing.assert_allclose(
        jnp.clip(optim.prox(latent, mu, form="squared"), -1, 1),
        estimators.adaste_forward(latent, mu=mu, alpha=0.0),
        rtol=1e-12,
    )


def test_the_chain_is_adam_and_then_the_map():
    latent, grad = jnp.array([0.3, -1.4, 0.9]), jnp.array([0.2, -0.1, -3.0])
    tx = optim.proxquant(strength=0.2)
    updates, _ = tx.update(grad, tx.init(latent), latent)
    adam = optax.adam(0.01)
    direction, _ = adam.update(grad, adam.init(latent))
    np.testing.assert_allclose(
        latent + updates, optim.prox(latent + direction, 0.2), rtol=1e-6
    )


def test_the_strength_grows_by_the_epoch():
    strength = optim.per_epoch(lambda epoch: 1e-6 * epoch, 5)
    got = jax.vmap(strength)(np.array([0, 4, 5, 14, 15]))
    np.testing.assert_allclose(got, np.array([0, 0, 1, 2, 3]) * 1e-6, rtol=1e-6)
    tx = optim.apply_prox(lambda step: 0.1 * step)
    latent = jnp.array([0.5])
    state, ends = tx.init(latent), []
    for _ in range(3):
        updates, state = tx.update(0 * latent, state, latent)
        ends.append(float((latent + updates)[0]))
    np.testing.assert_allclose(ends, [0.5, 0.6, 0.7], rtol=1e-6)


def test_no_entry_beyond_the_threshold_is_no_division_by_zero():
    got = optim.prox(jnp.zeros(3), 0.5, form="ternary")
    np.testing.assert_array_equal(got, 0.0)


def test_what_cannot_be_meant_is_refused():
    latent = jnp.ones(2)
    for call in (
        functools.partial(optim.prox, latent, 0.1),
        functools.partial(optim.apply_prox, 0.1),
    ):
        with pytest.raises(ValueError, match="`form` must be one of"):
            call(form="l2")
    with pytest.raises(ValueError, match="`strength` must lie in"):
        optim.apply_prox(-1.0)
    tx = optim.apply_prox(0.1)
    with pytest.raises(ValueError, match=r"tx\.update\(updates, state, params\)"):
        tx.update(latent, tx.init(latent))
