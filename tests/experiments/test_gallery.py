"""The gallery shows every estimator, as it is."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import estimators
from experiments.studies import gallery, order
from tests import reference

# Estimators are what is left of the public names without these.
OTHERS = {
    "Estimator",
    "int8_per_token",  # of activations
    "per_group",
    "softmax_deploy",
    "vispa_probability",
}


def test_no_estimator_is_missing():
    names = {
        name
        for name in estimators.__all__
        if name not in OTHERS and not name.endswith(("_gradient", "_forward", "_slope"))
    }
    assert names <= set(gallery.GALLERY)


@pytest.mark.parametrize("mu", [0.01, 0.3, 100.0])
def test_the_picture_of_adaste_is_that_of_its_formulas(mu):
    found = gallery.curves(gallery.GALLERY["adaste_paper"], mu)
    for i in range(0, 401, 23):
        latent = float(found["latent"][i])
        weight = reference.adaste_forward(latent, mu, 0.01)
        assert found["weight"][i] == pytest.approx(weight, abs=1e-5)
        for name, grad in (("up", 1.0), ("down", -1.0)):
            slope = reference.adaste_adaptive(latent, grad, mu, 0.01)
            if abs(abs(latent) - (1 - mu * 0.01)) > 1e-6:
                assert found[name][i] == pytest.approx(slope * grad, abs=1e-5)


def test_random_weights_are_shown_by_their_mean():
    found = gallery.curves(gallery.GALLERY["bernoulli_hard"], 0.0)
    mean = np.clip(found["latent"], -1, 1)
    np.testing.assert_allclose(found["weight"], mean, atol=5 / gallery.DRAWS**0.5)


def test_a_picture_is_written(tmp_path):
    gallery.draw("md_softmax_s", tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_both_orders_of_averaging_by_hand():
    """At mu = 1 / alpha the slope is min(cap, 2 / |t|) toward zero, and 0 away."""
    rule = functools.partial(order.adaste, mu=100.0)
    latent = jnp.array([2.0, -2.0, 8.0])
    grads = jnp.broadcast_to(jnp.array([[0.5], [-0.3]]), (2, 3))
    before, after = order.both_orders(rule, latent, grads)
    np.testing.assert_allclose(before, [0.05, 0.0, 0.025], rtol=1e-6)
    np.testing.assert_allclose(after, [0.125, -0.075, 0.0625], rtol=1e-6)


def test_the_network_of_the_picture_shows_the_difference():
    latents, grads = order.gradients()
    assert grads.shape == (order.PARTS, latents.size)
    before, after = order.both_orders(order.adaste, latents, grads)
    error = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert 0.1 < error < 0.5  # the page and the picture say a third
