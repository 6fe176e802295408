"""The straight-through estimators on the rows of their tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import estimators

LATENT = [-1.5, -1.0, -0.4, 0.0, 0.05, 0.5, 1.0, 2.0]
GRAD = [0.2, -0.3, 0.5, -0.1, 0.4, 0.7, -0.6, 0.9]
WEIGHT = [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def _pull(estimator, **hyper):
    weight, pullback = jax.vjp(
        lambda latent: estimator(latent, **hyper), jnp.array(LATENT)
    )
    np.testing.assert_array_equal(weight, WEIGHT)
    return pullback(jnp.array(GRAD))[0]


def test_identity_passes_every_gradient():
    np.testing.assert_array_equal(_pull(estimators.ste), np.float32(GRAD))


def test_clipped_passes_up_to_the_edge_and_on_it():
    expected = [0.0, -0.3, 0.5, -0.1, 0.4, 0.7, -0.6, 0.0]
    np.testing.assert_array_equal(_pull(estimators.ste_clipped), np.float32(expected))


# What follows is printed to six digits and computed in float64.
APPROX = [0, 0, 0.6, -0.2, 0.76, 0.7, 0, 0]
SWISH = [-0.00606804, 0.0584977, 0.250311, -0.5, 1.93847, -0.0592351, 0.116995]
SWISH = [*SWISH, -0.00326813]


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [(estimators.approx_sign, APPROX), (estimators.swish_sign, SWISH)],
)
def test_approx_and_swish_rows(float64, estimator, expected):
    np.testing.assert_allclose(_pull(estimator), expected, rtol=5e-6)


def test_swish_is_not_clamped_and_does_not_overflow():
    """Negative far out; the naive form is NaN in float32 from |5 t| = 88."""
    slope = jax.grad(lambda t: estimators.swish_sign(t).sum())
    far = slope(jnp.array([0.6, 1.0, 17.0, 20.0, 200.0, 1e38]))
    assert (np.asarray(far[:3]) < 0).all()
    np.testing.assert_allclose(far[3:], 0.0, atol=1e-30)


@pytest.mark.parametrize(
    ("threshold", "passes"), [(0.5, [2, 3, 4, 5]), (1.5, [0, 1, 2, 3, 4, 5, 6])]
)
def test_clipped_moves_its_edge(threshold, passes):
    got = _pull(estimators.ste_clipped, threshold=threshold)
    assert np.flatnonzero(got).tolist() == passes


def test_clipped_refuses_a_negative_threshold():
    with pytest.raises(ValueError, match=r"`threshold` must lie in \[0, inf\], got -1"):
        estimators.ste_clipped(jnp.ones(2), threshold=-1.0)
