"""Methods that must agree with each other, though each is written on its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import estimators, optim

LATENT = np.array([-3.0, -1.0, -0.6, -0.05, 0.0, 0.2, 0.9, 1.0, 1.7])
GRAD = np.array([0.3, -0.4, 0.7, -1.1, 0.5, -0.2, 0.8, 0.6, -0.9])


def _pull(estimator):
    weight, pullback = jax.vjp(estimator, jnp.asarray(LATENT))
    return weight, pullback(jnp.asarray(GRAD))[0]


@pytest.mark.parametrize(
    ("one", "other", "tolerance"),
    [
        (
            functools.partial(estimators.reste, exponent=1.0, cut=1.0),
            estimators.ste_clipped,
            1e-15,
        ),
        (
            functools.partial(estimators.ede, sharpness=1e-7),
            estimators.ste,
            1e-12,
        ),
        (
            functools.partial(estimators.fenbp, beta=0.0),
            functools.partial(estimators.tanh, beta=1.0),
            1e-12,
        ),
        (
            functools.partial(estimators.adaste_paper, mu=0.0, rule="identity"),
            functools.partial(estimators.hardtanh_adaste, straight_through=True),
            1e-15,
        ),
        (
            functools.partial(estimators.adaste_paper, mu=100.0, rule="identity"),
            estimators.ste,
            1e-15,
        ),
        (
            functools.partial(estimators.scaled_sign, axis=None, scale_grad="detached"),
            lambda t: estimators.ste_clipped(t) * jnp.mean(jnp.abs(LATENT)),
            None,
        ),
    ],
    ids=["reste", "ede", "fenbp", "adaste at 0", "adaste at 100", "scaled sign"],
)
def test_limits_of_one_estimator_are_another(float64, one, other, tolerance):
    first, second = _pull(one), _pull(other)
    np.testing.assert_allclose(first[0], second[0], rtol=1e-12, atol=1e-300)
    if tolerance is not None:
        np.testing.assert_allclose(first[1], second[1], rtol=tolerance)


def test_ede_at_one_has_the_backward_rule_of_tanh(float64):
    _, ede = _pull(functools.partial(estimators.ede, sharpness=1.0))
    _, tanh = _pull(functools.partial(estimators.tanh, beta=1.0))
    np.testing.assert_array_equal(ede, tanh)


def test_small_gradients_of_the_released_adaste_are_bop(float64):
    """With every |g| up to 0.001 it is a sum of gradients, and bop follows its sign.

    The latent decays, so that it is minus an exponential average of the gradients; bop
    with tau = 0 keeps the same average. From latents of 0 they agree but for ties.
    """
    rng = np.random.default_rng(0)
    rate = 0.2
    released = optim.adaste_released(rate, mu=100.0, grad_scale=1.0, momentum=0.0)
    latent = jnp.zeros(50)
    bop = optim.bop(rate, tau=0.0)
    weight = optim.binary_signs(latent)
    states = released.init(latent), bop.init(weight)
    for _ in range(12):
        grad = jnp.asarray(rng.normal(size=50) * 2e-4)
        assert jnp.abs(grad).max() < 1e-3
        move, first = released.update(grad, states[0], latent)
        flip, second = bop.update(grad, states[1], weight)
        states = first, second
        latent, weight = latent + move, weight + flip
        np.testing.assert_allclose(latent, -second.momentum, rtol=1e-9, atol=1e-18)
        np.testing.assert_array_equal(jnp.sign(latent), weight)


def test_saturated_bayesbinn_is_bop(float64):
    """With a constant scale the latent is minus an average of the gradients."""
    rng = np.random.default_rng(1)
    rate, size, temperature = 0.1, 7, 1e-10
    tx = optim.bayesbinn(rate, num_examples=1, temperature=temperature)
    bop = optim.bop(rate, tau=0.0)
    latent = jnp.full((size,), 1e6)  # so large that its mean is saturated for ever
    weight = jnp.ones(size)
    average = -latent * temperature
    states = tx.init(latent), bop.init(weight)._replace(momentum=average)
    for _ in range(8):
        grad = jnp.asarray(rng.normal(size=size) * 1e-3)
        move, first = tx.update(grad, states[0], latent, weights=jnp.sign(latent))
        flip, second = bop.update(grad, states[1], weight)
        states = first, second
        latent, weight = latent + move, weight + flip
        average = (1 - rate) * average + rate * grad
        np.testing.assert_allclose(latent * temperature, -average, rtol=1e-9)
        np.testing.assert_array_equal(jnp.sign(latent), weight)
    assert (weight < 0).any()


def test_every_linear_rule_commutes_with_averaging():
    """The rule of a mean is the mean of the rules, which AdaSTE's is not."""
    latent = jnp.asarray(LATENT, jnp.float32)
    halves = jnp.asarray([GRAD, GRAD[::-1]], jnp.float32)

    def both_ways(estimator):
        rule = jax.vjp(estimator, latent)[1]
        return rule(halves.mean(0))[0], jax.vmap(rule)(halves)[0].mean(0)

    linear = (
        estimators.ste,
        estimators.ste_clipped,
        estimators.approx_sign,
        estimators.swish_sign,
        functools.partial(estimators.reste, exponent=3.0),
        functools.partial(estimators.ede, sharpness=2.0),
        functools.partial(estimators.scaled_sign, axis=None, scale_grad="exact"),
        functools.partial(estimators.irnet_weight, sharpness=1.0, axis=None),
        functools.partial(estimators.tanh, beta=2.0),
        estimators.ternary_absmean,
    )
    for of_mean, mean_of in jax.jit(lambda: [both_ways(e) for e in linear])():
        np.testing.assert_allclose(of_mean, mean_of, rtol=1e-5, atol=1e-6)
    for estimator in (
        functools.partial(estimators.adaste_paper, mu=100.0),
        estimators.hardtanh_adaste,
        functools.partial(estimators.fenbp, beta=2.0),
    ):
        of_mean, mean_of = both_ways(estimator)
        assert not np.allclose(of_mean, mean_of, rtol=1e-3)
