"""PARQ against numbers recorded from torchao, and one number at a time."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import estimators, methods

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "parq.npz")
ROWS = [
    (*row,)
    for row in zip(
        GOLDEN["end"].tolist(),
        GOLDEN["steepness"].tolist(),
        GOLDEN["step"].tolist(),
        GOLDEN["inverse_slope"],
        GOLDEN["weights"],
        strict=True,
    )
]


@pytest.mark.parametrize(("end", "steepness", "step", "slope", "weights"), ROWS)
def test_map_and_schedule_are_those_of_torchao(end, steepness, step, slope, weights):
    method = methods.parq(100, steepness=steepness, anneal_fraction=end / 100)
    latents = jnp.asarray(GOLDEN["latents"])[:, None]
    found = method.weights({"kernel": latents}, step)["kernel"][:, 0]
    np.testing.assert_allclose(found, weights, rtol=2e-5, atol=1e-7)
    found = estimators.parq(latents, inverse_slope=slope)[:, 0]
    np.testing.assert_allclose(found, weights, rtol=1e-6, atol=1e-7)


def test_from_its_last_step_of_annealing_on_weights_are_shipped():
    method = methods.parq(100, anneal_fraction=0.5)
    params = {"kernel": jax.random.normal(jax.random.key(0), (6, 3))}
    assert method.binary_from == 50
    shipped = method.deploy(params)["kernel"]
    scale = np.abs(np.asarray(params["kernel"], np.float64)).mean(0)
    np.testing.assert_allclose(np.abs(shipped), scale[None].repeat(6, 0), rtol=1e-6)
    assert jnp.array_equal(method.weights(params, 50)["kernel"], shipped)
    assert not jnp.array_equal(method.weights(params, 25)["kernel"], shipped)


def test_gradients_pass_straight_through_clipped_or_not():
    latents = jnp.asarray([[0.01], [-0.2], [3.0], [0.0]])
    grads = jnp.asarray([[1.0], [-2.0], [3.0], [4.0]])
    for slope in (1.0, 0.2, 0.0):
        _, pull = jax.vjp(
            lambda t, r=slope: estimators.parq(t, inverse_slope=r), latents
        )
        assert jnp.array_equal(pull(grads)[0], grads)


def test_a_scale_belongs_to_a_channel_or_to_a_group_of_inputs():
    latents = jax.random.normal(jax.random.key(1), (4, 2))
    by_tensor = estimators.parq(latents, inverse_slope=0.0, axis=None)
    assert np.ptp(np.abs(by_tensor)) == 0
    grouped = methods.parq(9, group=2).deploy({"kernel": latents})["kernel"]
    expected = np.abs(np.asarray(latents, np.float64)).reshape(2, 2, 2).mean(1)
    np.testing.assert_allclose(np.abs(grouped)[::2], expected, rtol=1e-6)
    with pytest.raises(ValueError, match="inverse_slope"):
        estimators.parq(latents, inverse_slope=1.5)
    with pytest.raises(ValueError, match="steepness"):
        methods.parq(9, steepness=0.0)
