"""AdaSTE against numbers recorded from the released code and from closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import estimators


def _grid(data, suffix=""):
    theta, grad = data[f"theta{suffix}"], data[f"grad{suffix}"]
    return np.meshgrid(theta, grad, indexing="ij")


@pytest.mark.parametrize(
    ("rule", "array"),
    [("adaptive", "slope_crossing"), ("supremum", "slope_supremum")],
)
def test_slopes_are_the_derived_closed_forms(float64, golden, rule, array):
    """Cap off, float64, everywhere but on the rounding edges of the thresholds."""
    data = golden("adaste_derived")
    theta, grad = _grid(data)
    compared = (~data["theta_edge"])[:, None] & (theta != 0) & (grad != 0)
    assert compared.sum() > 3000
    for mu, expected in zip(data["mu"], data[array], strict=True):
        slope = estimators.adaste_slope(
            jnp.asarray(theta),
            jnp.asarray(grad),
            mu=mu,
            alpha=float(data["alpha"]),
            rule=rule,
            cap=np.inf,
        )
        np.testing.assert_allclose(
            np.asarray(slope)[compared], expected[compared], rtol=1e-12
        )


def test_forward_is_the_derived_minimiser(float64, golden):
    data = golden("adaste_derived")
    nonzero = (data["theta"] != 0) & ~data["theta_edge"]
    for mu, expected in zip(data["mu"], data["w_star"], strict=True):
        weight = estimators.adaste_paper(
            jnp.asarray(data["theta"]), mu=mu, alpha=float(data["alpha"])
        )
        np.testing.assert_allclose(weight[nonzero], expected[nonzero], rtol=1e-12)


@pytest.mark.parametrize(("suffix", "rtol"), [("_f64", 1e-14), ("_f32", 3e-7)])
def test_released_rule_is_the_recorded_one(float64, golden, suffix, rtol):
    data = golden("adaste_reference")
    theta, grad = _grid(data, suffix)
    compared = (~data[f"theta_edge{suffix}"])[:, None] & ~data[f"grad_edge{suffix}"]
    assert compared.sum() > 3000
    for mu, expected, forward in zip(
        data["mu"], data[f"scaled_grad{suffix}"], data[f"w_star{suffix}"], strict=True
    ):
        hyper = {"mu": mu, "alpha": float(data["alpha"])}
        gradient = estimators.adaste_gradient(
            jnp.asarray(theta), jnp.asarray(grad), rule="released", **hyper
        )
        assert gradient.dtype == theta.dtype
        np.testing.assert_allclose(
            np.asarray(gradient)[compared], expected[compared], rtol=rtol
        )
        latent = data[f"theta{suffix}"]
        off = (latent != 0) & ~data[f"theta_edge{suffix}"]
        weight = estimators.adaste_paper(jnp.asarray(latent), rule="released", **hyper)
        np.testing.assert_allclose(weight[off], forward[off], rtol=rtol)
