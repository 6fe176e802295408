"""The linear blend, one number at a time, and where it begins and ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import estimators, methods

LATENTS = jax.random.normal(jax.random.key(0), (6, 3)).at[2, 1].set(0.0)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9, 1.0])
def test_weights_are_those_of_the_formula(share):
    found = estimators.blend(LATENTS, share=share)
    latents = np.asarray(LATENTS, np.float64)
    for column in range(3):
        scale = sum(abs(t) for t in latents[:, column]) / 6
        for row in range(6):
            latent = latents[row, column]
            sign = scale if latent >= 0 else -scale
            wanted = (1 - share) * latent + share * sign
            assert float(found[row, column]) == pytest.approx(wanted, rel=1e-6)


def test_a_float_network_begins_unchanged_and_ends_as_it_is_shipped():
    method = methods.blend(100, anneal_fraction=0.5)
    params = method.init(jax.random.key(0), {"kernel": LATENTS}, trained=True)
    assert jnp.array_equal(method.weights(params, 0)["kernel"], LATENTS)
    assert method.binary_from == 50
    shipped = method.deploy(params)["kernel"]
    assert jnp.array_equal(method.weights(params, 50)["kernel"], shipped)
    assert not jnp.array_equal(method.weights(params, 49)["kernel"], shipped)
    scales = np.abs(np.asarray(LATENTS, np.float64)).mean(0)
    np.testing.assert_allclose(np.abs(shipped), scales[None].repeat(6, 0), rtol=1e-6)


def test_gradients_pass_straight_through():
    grads = jax.random.normal(jax.random.key(1), (6, 3))
    for share in (0.0, 0.5, 1.0):
        _, pull = jax.vjp(
            lambda t, share=share: estimators.blend(t, share=share), LATENTS
        )
        assert jnp.array_equal(pull(grads)[0], grads)


def test_a_group_of_inputs_has_a_scale_and_a_share_is_within_0_and_1():
    grouped = methods.blend(9, group=2).deploy({"kernel": LATENTS})["kernel"]
    wanted = np.abs(np.asarray(LATENTS, np.float64)).reshape(3, 2, 3).mean(1)
    np.testing.assert_allclose(np.abs(grouped)[::2], wanted, rtol=1e-6)
    with pytest.raises(ValueError, match="share"):
        estimators.blend(LATENTS, share=1.5)
