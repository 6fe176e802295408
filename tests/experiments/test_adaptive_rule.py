"""The parts of the study: its variants, and two transformations of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import methods
from experiments.studies import adaptive_rule


@pytest.mark.parametrize("name", adaptive_rule.VARIANTS)
def test_every_variant_makes_an_update(name, monkeypatch):
    """Traced only."""
    monkeypatch.setitem(methods.METHODS, "adaptive_rule", None)  # till the test ends
    adaptive_rule.enter()
    options = methods.defaults()
    options["adaptive_rule"].update(adaptive_rule.VARIANTS[name])
    method = methods.create("adaptive_rule", options, steps=10)
    latents = {"kernel": jax.ShapeDtypeStruct((3, 2), jnp.float32)}
    state = jax.eval_shape(method.tx.init, latents)
    update, after = jax.eval_shape(method.tx.update, latents, state, latents)
    assert update["kernel"].shape == (3, 2)
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_keep_rms_keeps_the_scale_of_each_layer():
    latents = {"a": jnp.array([3.0, -4.0]), "b": jnp.array([0.1, 0.1])}
    updates = {"a": jnp.array([1.0, 1.0]), "b": jnp.array([0.0, 0.3])}
    moved, _ = adaptive_rule.constant_rms().update(updates, None, latents)
    for name, latent in latents.items():
        after = latent + moved[name]
        direction = latent + updates[name]
        np.testing.assert_allclose(
            jnp.linalg.norm(after), jnp.linalg.norm(latent), rtol=1e-6
        )
        np.testing.assert_allclose(
            after / jnp.linalg.norm(after),
            direction / jnp.linalg.norm(direction),
            rtol=1e-6,
        )


def test_updates_less_than_their_noise_are_held():
    """One of a constant sign, and one that alternates."""
    tx = adaptive_rule.hold_in_noise(0.5, average=0.9)
    state = tx.init(jnp.zeros(2))
    for step in range(60):
        update = jnp.array([1.0, 1.0 if step % 2 else -1.0])
        held, state = tx.update(update, state)
    np.testing.assert_array_equal(held, [1.0, 0.0])
