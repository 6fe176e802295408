"""The contrastive rules other than AdaSTE's."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaste_jax import estimators, optim

# Tables are printed to six digits and computed in float64.
DIGITS = 5e-6

# latent, g, weight, gradient
HARDTANH = [
    (0.3, 0.5, 0.3, 0.5),
    (1, 0.5, 1, 0.5),
    (3, 0.5, 1, 0.25),
    (3, -0.5, 1, 0),
    (-4, -0.2, -1, -0.08),
    (-4, 0.2, -1, 0),
    (-0.99, -0.2, -0.99, -0.2),
]

# squash, latent, g, beta, gradient
FENBP = [
    ("tanh", 0.2, 0.5, 0.1, 0.484903),
    ("tanh", 0.2, 0.5, 2, 0.430706),
    ("tanh", 3, 0.5, 10, 0.195908),
    ("tanh", 3, -0.5, 10, -0.000494502),
    ("tanh", -2, -0.4, 8, -0.22471),
    ("hardtanh", 0.2, 0.5, 0.1, 0.5),
    ("hardtanh", 0.2, 0.5, 2, 0.5),
    ("hardtanh", 3, 0.5, 10, 0.2),
    ("hardtanh", 3, -0.5, 10, 0),
    ("hardtanh", -2, -0.4, 8, -0.25),
]
SQUASH = {"tanh": jnp.tanh, "hardtanh": jax.nn.hard_tanh}


def test_hardtanh_rows():
    latent, grad, weights, gradients = map(np.float32, zip(*HARDTANH, strict=True))
    weight, pullback = jax.vjp(estimators.hardtanh_adaste, jnp.asarray(latent))
    np.testing.assert_array_equal(weight, weights)
    np.testing.assert_allclose(pullback(jnp.asarray(grad))[0], gradients, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("row", FENBP)
def test_fenbp_rows(float64, dtype, row):
    squash, latent, grad, beta, expected = row
    squash = SQUASH[squash]
    weight, pullback = jax.vjp(
        lambda t: estimators.fenbp(t, beta=beta, squash=squash),
        jnp.asarray(latent, dtype),
    )
    np.testing.assert_array_equal(weight, squash(jnp.asarray(latent, dtype)))
    (gradient,) = pullback(jnp.asarray(grad, dtype))
    tolerance = {"rtol": DIGITS} if dtype is np.float64 else {"atol": 2e-6}
    np.testing.assert_allclose(gradient, expected, **tolerance)


@pytest.mark.parametrize("beta", [0.0, 1e-12, 1e-4, 9e-4, 2e-3])
def test_a_small_step_gives_the_derivative_and_not_its_rounding(beta):
    latent = np.linspace(-3, 3, 13)
    got = estimators.fenbp_gradient(
        jnp.asarray(latent, jnp.float32), jnp.ones(13), beta=beta
    )
    # The quotient is within beta / 2 of the derivative, rounding within 1e-7 / beta.
    np.testing.assert_allclose(got, 1 / np.cosh(latent) ** 2, atol=beta / 2 + 1e-4)


def test_a_large_step_is_the_adaste_of_hard_tanh(float64):
    """For beta = (|t| + 1) / |g|: outside of (-1, 1), and toward zero inside."""
    latent = np.array([-4.0, -1.0, 1.0, 2.5, 0.3, -0.3, 5.0, -1.0])
    grad = np.array([-0.2, -0.5, 0.3, 2.0, 0.3, -0.7, -0.4, 0.3])
    quotient = estimators.fenbp_gradient(
        jnp.asarray(latent),
        jnp.asarray(grad),
        beta=(abs(latent) + 1) / abs(grad),
        squash=jax.nn.hard_tanh,
    )
    rule = estimators.hardtanh_adaste_gradient(jnp.asarray(latent), jnp.asarray(grad))
    np.testing.assert_allclose(quotient, rule, rtol=1e-12)


FACES = {
    "hardtanh_adaste": (
        estimators.hardtanh_adaste,
        estimators.hardtanh_adaste_gradient,
        optim.scale_by_hardtanh_adaste(),
    ),
    "fenbp": (
        functools.partial(estimators.fenbp, beta=3.0),
        functools.partial(estimators.fenbp_gradient, beta=3.0),
        optim.scale_by_fenbp(3.0),
    ),
}


@pytest.mark.parametrize("name", FACES)
def test_estimator_and_transform_are_the_rule(name):
    estimator, rule, tx = FACES[name]
    latent, grad = jnp.meshgrid(
        jnp.array([-5.0, -1.0, -0.3, 0.0, 0.4, 1.0, 40.0]),
        jnp.array([-2.0, 0.0, 1e-4, 0.3]),
        indexing="ij",
    )

    @jax.jit
    def faces(latent, grad):
        updates, _ = tx.update(grad, tx.init(latent), latent)
        return updates, jax.vjp(estimator, latent)[1](grad)[0], rule(latent, grad)

    transformed, pulled, plain = faces(latent, grad)
    np.testing.assert_array_equal(pulled, transformed)
    np.testing.assert_array_equal(plain, transformed)
    straight = jax.vjp(functools.partial(estimator, straight_through=True), latent)[1]
    np.testing.assert_array_equal(straight(grad)[0], grad)


@pytest.mark.parametrize("name", FACES)
def test_the_mean_over_devices_comes_before_the_rule(name):
    """Under `pmap` with the name of the axis, and in the transform."""
    estimator, rule, tx = FACES[name]
    latent = jnp.array([2.0, 4.0, -8.0])
    examples = jnp.array([[0.5, 0.5, -0.9], [-0.3, -0.3, 0.1]])
    right = rule(latent, examples.mean(0))
    wrong = (rule(latent, examples[0]) + rule(latent, examples[1])) / 2
    assert not np.allclose(right, wrong)

    mapped = jax.pmap(
        lambda grad: jax.vjp(functools.partial(estimator, axis_name="data"), latent)[1](
            grad
        )[0],
        axis_name="data",
        devices=jax.devices()[:2],
    )
    # Differences of tanh cancel in float32.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=2e-7)
    close(mapped(examples)[0], right)

    accumulated = optax.MultiSteps(tx, 2)
    state = accumulated.init(latent)
    for example in examples:
        updates, state = accumulated.update(example, state, latent)
    close(updates, right)


def test_beta_may_be_a_schedule():
    tx = optim.scale_by_fenbp(lambda count: 1.0 + count)
    latent, grad = jnp.array([0.7, -2.0]), jnp.array([0.4, -0.5])
    state = tx.init(latent)
    for beta in (1.0, 2.0):
        updates, state = tx.update(grad, state, latent)
        expected = estimators.fenbp_gradient(latent, grad, beta=beta)
        np.testing.assert_allclose(updates, expected, rtol=1e-6)


def test_what_is_missing_or_out_of_range_is_refused():
    latent = jnp.ones(2)
    for tx in (optim.scale_by_fenbp(1.0), optim.scale_by_hardtanh_adaste()):
        with pytest.raises(ValueError, match=r"tx\.update\(updates, state, params\)"):
            tx.update(latent, tx.init(latent))
    for call in (
        lambda: estimators.fenbp(latent, beta=-1.0),
        lambda: optim.scale_by_fenbp(-1.0),
    ):
        with pytest.raises(ValueError, match=r"`beta` must lie in \[0, inf\], got -1"):
            call()


def test_any_squashing_function_will_do():
    squash = lambda x: 2 / math.pi * jnp.arctan(x)
    got = jax.grad(lambda t: 0.3 * estimators.fenbp(t, beta=4.0, squash=squash))(1.5)
    arctan = lambda x: 2 / math.pi * math.atan(x)
    np.testing.assert_allclose(got, (arctan(1.5) - arctan(0.3)) / 4, rtol=1e-5)
