"""Ternary weights on the rows of their tables."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import estimators


@pytest.mark.parametrize(
    ("latent", "weight"),
    [
        ([0.9, -0.1, 0.3, -0.5], [0.45, 0, 0.45, -0.45]),
        ([0.2, 0.2, -0.2, 0.05], [0.1625, 0.1625, -0.1625, 0]),
        ([1, 0.5, -0.5, 0], [0.5, 0.5, -0.5, 0]),
        ([1, 0.25, -0.75, 0], [0.5, 0, -0.5, 0]),  # a half is rounded to even
        ([5.0, 0, 0, 0], [1.25, 0, 0, 0]),  # clipped after rounding
        ([1e-6, 0, 0, -1e-6], [0, 0, 0, 0]),  # the smallest scale
    ],
)
def test_absmean_rows(float64, latent, weight):
    got, pullback = jax.vjp(estimators.ternary_absmean, jnp.array(latent, float))
    np.testing.assert_allclose(got, weight, rtol=1e-12)
    grad = jnp.array([0.1, -0.2, 0.3, 5.0])
    np.testing.assert_array_equal(pullback(grad)[0], grad)


# latent, signs, scale
TWN = [
    ([0.9, -0.1, 0.3, -0.5], [1, 0, 0, -1], 0.7),
    ([0.2, 0.2, -0.2, 0.05], [1, 1, -1, 0], 0.2),
    ([-0.6, 0.6, 0.3, 0.1], [-1, 1, 1, 0], 0.5),
]


@pytest.mark.parametrize(("latent", "signs", "scale"), TWN)
def test_twn_rows(float64, latent, signs, scale):
    latent = jnp.array(latent)
    np.testing.assert_array_equal(estimators.ternary_twn(latent, scale=False), signs)
    scaled = estimators.ternary_twn(latent)
    np.testing.assert_allclose(scaled, np.multiply(scale, signs), rtol=1e-12)


@pytest.mark.parametrize(
    "estimator",
    [
        estimators.ternary_absmean,
        functools.partial(estimators.ternary_twn, scale=False),
        estimators.ternary_twn,
    ],
)
def test_groups_are_the_entries_of_the_axis(estimator):
    """As one group for each, mapped over the axis."""
    latent = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 5)), jnp.float32)
    latent = latent * jnp.arange(1.0, 6.0)[None, None]
    for axis in (0, -1):
        mapped = jax.vmap(estimator, in_axes=axis, out_axes=axis)(latent)
        np.testing.assert_allclose(estimator(latent, axis=axis), mapped, rtol=1e-6)
    assert not np.allclose(estimator(latent, axis=-1), estimator(latent))
    with pytest.raises(ValueError, match=r"`axis=3` is not an axis"):
        estimator(latent, axis=3)


def test_twn_of_zeros_is_zero():
    for scale in (False, True):
        got = estimators.ternary_twn(jnp.zeros(3), scale=scale)
        np.testing.assert_array_equal(got, 0.0)


@pytest.mark.parametrize(
    "estimator",
    [
        functools.partial(estimators.ternary_twn, scale=False),
        estimators.ternary_twn,
        estimators.ternary_fixed,
    ],
)
def test_the_threshold_forms_pass_gradients_up_to_one(estimator):
    latent = jnp.array([-1.01, -1.0, 0.0, 1.0, 1.01])
    grad = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])
    _, pullback = jax.vjp(estimator, latent)
    np.testing.assert_array_equal(pullback(grad)[0], [0, 2, 3, 4, 0])


def test_fixed_includes_its_edge():
    edge = np.float32(0.05)
    below = np.nextafter(edge, np.float32(0))
    latent = jnp.array([-edge, -below, 0, below, edge, 2.0])
    np.testing.assert_array_equal(estimators.ternary_fixed(latent), [-1, 0, 0, 0, 1, 1])


# beta, latent, weight
TANH = [
    (1, -1, -0.683633),
    (1, -0.5, -0.380797),
    (1, 0, 0),
    (1, 0.2, 0.156528),
    (1, 0.8, 0.576518),
    (10, -1, -0.999955),
    (10, -0.5, -0.5),
    (10, 0, 0),
    (10, 0.2, 0.00247179),
    (10, 0.8, 0.997527),
]


def test_tanh_rows_and_its_two_backward_rules(float64):
    beta, latent, weights = map(np.float64, zip(*TANH, strict=True))

    def pull(t, b, straight_through):
        estimator = functools.partial(
            estimators.ternary_tanh, beta=b, straight_through=straight_through
        )
        weight, pullback = jax.vjp(estimator, t)
        return weight, pullback(jnp.float64(0.5))[0]

    for straight_through in (True, False):
        weight, gradient = jax.vmap(pull, in_axes=(0, 0, None))(
            latent, beta, straight_through
        )
        np.testing.assert_allclose(weight, weights, rtol=5e-6)
        if straight_through:
            np.testing.assert_array_equal(gradient, 0.5)
        else:
            step = 1e-6
            up, _ = jax.vmap(pull, in_axes=(0, 0, None))(latent + step, beta, True)
            down, _ = jax.vmap(pull, in_axes=(0, 0, None))(latent - step, beta, True)
            np.testing.assert_allclose(
                gradient, 0.5 * (up - down) / (2 * step), rtol=1e-6, atol=1e-8
            )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: estimators.ternary_absmean(t, epsilon=0.0), "`epsilon` must lie in"),
        (lambda t: estimators.ternary_twn(t, ratio=-1.0), "`ratio` must lie in"),
        (lambda t: estimators.ternary_fixed(t, threshold=0.0), "`threshold` must lie"),
        (lambda t: estimators.ternary_tanh(t, beta=-1.0), "`beta` must lie in"),
    ],
)
def test_what_is_out_of_range_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones(2))
