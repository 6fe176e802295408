"""VISPA's samples and its update, on the rows of their tables."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaste_jax import estimators, optim
from adaste_jax.estimators import _vispa

# Tables are printed to six digits and computed in float64.
DIGITS = 5e-6

LATENT = [[0.6, 0.8], [-0.8, 0.6]]


def test_rows(float64):
    """One factor, the draw given, a step without momentum."""
    latent, grad, draw = jnp.array(LATENT), jnp.array([0.2, -0.1]), jnp.array([0.5])
    weight, pullback = jax.vjp(lambda t: _vispa._sign_of_product(t, draw), latent)
    np.testing.assert_array_equal(weight, [1, -1])
    (gradient,) = pullback(grad)
    np.testing.assert_allclose(gradient, [[0.2, 0.1], [-0.1, -0.05]], rtol=1e-12)
    plain = optax.sgd(0.1)
    step, _ = plain.update(gradient, plain.init(latent))
    np.testing.assert_allclose(
        latent + step, [[0.58, 0.79], [-0.79, 0.605]], rtol=1e-12
    )
    tx = optim.vispa(0.1, momentum=0.0)
    step, _ = tx.update(gradient, tx.init(latent), latent)
    expected = [[0.591806, 0.80608], [-0.79393, 0.608009]]
    np.testing.assert_allclose(latent + step, expected, rtol=DIGITS)


def test_momentum_is_an_average():
    latent, grad = jnp.array(LATENT), jnp.array([[0.2, 0.1], [-0.1, 0.4]])
    tx = optim.vispa(0.5, momentum=0.9)
    step, _ = tx.update(grad, tx.init(latent), latent)
    end = np.array(LATENT) - 0.5 * 0.1 * np.asarray(grad)
    expected = end / np.linalg.norm(end, axis=-1, keepdims=True)
    np.testing.assert_allclose(latent + step, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("latent", "probability"),
    [
        ([0.6, 0.8, 0], 0.773373),
        ([-0.28, 0.6, 0.749399], 0.385271),
        ([0, 1, 0], 0.5),
    ],
)
def test_probability_rows(float64, latent, probability):
    latent = jnp.array(latent, float)
    got = estimators.vispa_probability(latent)
    np.testing.assert_allclose(got, probability, rtol=DIGITS)
    keys = jax.random.split(jax.random.key(0), 20_000)
    draw = jax.vmap(lambda key: estimators.vispa_sample(latent, key=key))
    share = np.mean(np.asarray(draw(keys)) == 1)
    deviation = np.sqrt(probability * (1 - probability) / 20_000)
    assert abs(share - probability) <= 5 * deviation


def test_one_draw_is_shared_by_the_tensor():
    """Weights with equal latents are equal, with opposite ones opposite."""
    latent = jnp.tile(jnp.array([[0.0, 1.0, -0.5], [0.0, -1.0, 0.5]]), (20, 1))
    draws = [
        estimators.vispa_sample(latent, key=key)
        for key in jax.random.split(jax.random.key(1), 8)
    ]
    for weight in draws:
        np.testing.assert_array_equal(weight[::2], weight[0])
        np.testing.assert_array_equal(weight[1::2], -weight[0])
    assert len({float(weight[0]) for weight in draws}) == 2


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_shapes_and_dtypes(dtype, strict_dtypes):
    latent = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5)), dtype)
    sample = functools.partial(estimators.vispa_sample, key=jax.random.key(0))
    weight, pullback = jax.vjp(sample, latent)
    assert (weight.shape, weight.dtype) == ((2, 3), dtype)
    assert set(np.float32(weight).ravel()) <= {-1.0, 1.0}
    (gradient,) = pullback(jnp.zeros_like(weight))
    assert (gradient.shape, gradient.dtype) == (latent.shape, dtype)
    np.testing.assert_array_equal(np.float32(gradient), 0.0)


def test_what_cannot_be_meant_is_refused():
    for latent in (jnp.ones((3, 1)), jnp.ones(())):
        with pytest.raises(ValueError, match="a mean and at least one factor"):
            estimators.vispa_sample(latent, key=jax.random.key(0))
        with pytest.raises(ValueError, match="a mean and at least one factor"):
            estimators.vispa_probability(latent)
    tx = optim.vispa()
    with pytest.raises(ValueError, match=r"tx\.update\(updates, state, params\)"):
        tx.update(jnp.ones((1, 2)), tx.init(jnp.ones((1, 2))))
