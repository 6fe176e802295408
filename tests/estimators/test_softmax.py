"""Estimators with two latents for each weight."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import estimators

# Tables are printed to six digits and computed in float64.
DIGITS = 5e-6

# latents (a, b), beta, g, weight; then the gradients exact, straight-through, published
ROWS = [
    ([0, 0], 1, 0.4, 0, [-0.2, 0.2], [-0.4, 0.4], [-0.4, 0.4]),
    (
        [0.1, 0.4],
        2,
        0.4,
        0.291313,
        [-0.366055, 0.366055],
        [-0.4, 0.4],
        [-0.88258, 0.64953],
    ),
    (
        [-0.2, 0.5],
        10,
        0.4,
        0.998178,
        [-0.00728177, 0.00728177],
        [-0.4, 0.4],
        [-4.00364, 0.010926],
    ),
    ([0.3, -0.1], 5, -1, -0.761594, [1.04994, -1.04994], [1, -1], [1.64595, -5.45392]),
]
FORMS = {
    "exact": estimators.pmf,
    "straight_through": estimators.md_softmax_s,
    "published": functools.partial(estimators.pmf, jacobian="published"),
}
every = pytest.mark.parametrize("form", FORMS)


@functools.cache
def _compiled(form):
    traces = []

    @jax.jit
    def pull(latent, grad, beta):
        traces.append(form)
        weight, pullback = jax.vjp(
            lambda t, b: FORMS[form](t, beta=b), latent, jnp.asarray(beta)
        )
        return weight, *pullback(grad)

    return pull, traces


@every
def test_rows(float64, form):
    column = 4 + list(FORMS).index(form)
    pull, _ = _compiled(form)
    for row in ROWS:
        latent, beta, grad, weights = row[:4]
        weight, gradient, hyper = pull(
            np.float64(latent), np.float64(grad), float(beta)
        )
        np.testing.assert_allclose(weight, weights, rtol=DIGITS)
        np.testing.assert_allclose(gradient, row[column], rtol=DIGITS)
        assert hyper == 0
        np.testing.assert_allclose(
            weight, np.tanh(beta * (latent[1] - latent[0]) / 2), rtol=1e-12
        )


def test_pmf_is_the_chain_rule_of_tanh(float64):
    """In the gap b - a with beta / 2; and h = (-x, x)."""
    rng = np.random.default_rng(0)
    latent, grad = jnp.asarray(rng.normal(size=(5, 2))), jnp.asarray(rng.normal(size=5))
    weight, gradient, _ = _compiled("exact")[0](latent, grad, 3.0)
    gap = latent[:, 1] - latent[:, 0]
    expected, pullback = jax.vjp(lambda t: estimators.tanh(t, beta=1.5), gap)
    np.testing.assert_allclose(weight, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient[:, 1], pullback(grad)[0], rtol=1e-12)
    np.testing.assert_array_equal(gradient[:, 0], -gradient[:, 1])


@every
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_shapes_dtypes_and_vmap(form, dtype, strict_dtypes):
    pull, _ = _compiled(form)
    latent = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 2)), dtype)
    grad = jnp.ones((3, 4), dtype)
    weight, gradient, _ = pull(latent, grad, 2.0)
    assert (weight.shape, weight.dtype) == ((3, 4), latent.dtype)
    assert (gradient.shape, gradient.dtype) == (latent.shape, latent.dtype)
    mapped = jax.vmap(pull, in_axes=(0, 0, None))(latent, grad, 2.0)
    np.testing.assert_array_equal(mapped[0], weight)
    np.testing.assert_array_equal(mapped[1], gradient)


@every
def test_extreme_values_stay_finite_and_beta_does_not_recompile(form):
    pull, traces = _compiled(form)
    sizes = [0.0, 1e-30, 1e-7, 1.0, 1e6, 1e30, -1e-30, -1.0, -1e6, -1e30]
    latent = jnp.asarray(np.stack(np.meshgrid(sizes, sizes), -1), jnp.float32)
    for scale in (0.0, 1e-30, -1.0, 1e6):
        for beta in (1.0, 50.0):
            weight, gradient, _ = pull(latent, jnp.full((10, 10), scale), beta)
            assert np.isfinite(weight).all()
            assert np.isfinite(gradient).all()
            if scale == 0:
                np.testing.assert_array_equal(gradient, 0)
    weight, *_ = pull(latent, jnp.zeros((10, 10)), 1e38)
    assert np.isfinite(weight).all()
    shapes = {(10, 10, 2)}
    assert len(shapes) == 1
    before = len(traces)
    pull(latent, jnp.zeros((10, 10)), 7.0)
    assert len(traces) == before


def test_deployed_weights_are_positive_in_a_tie():
    latent = jnp.array([[0.0, 0.0], [0.1, 0.3], [0.3, 0.1], [-2.0, -3.0]])
    np.testing.assert_array_equal(estimators.softmax_deploy(latent), [1, 1, -1, -1])


def test_what_cannot_be_meant_is_refused():
    for estimator in (
        functools.partial(estimators.md_softmax_s, beta=1.0),
        functools.partial(estimators.pmf, beta=1.0),
        estimators.softmax_deploy,
    ):
        with pytest.raises(ValueError, match=r"two entries.*got the shape \(2, 3\)"):
            estimator(jnp.ones((2, 3)))
        with pytest.raises(TypeError, match="got int32"):
            estimator(jnp.array([[1, 2]]))
    with pytest.raises(ValueError, match="`jacobian` must be one of"):
        estimators.pmf(jnp.ones((1, 2)), beta=1.0, jacobian="exakt")
    with pytest.raises(ValueError, match="`beta` must lie in"):
        estimators.md_softmax_s(jnp.ones((1, 2)), beta=-1.0)
