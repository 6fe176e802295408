"""Maps that end at other signs, or begin at the latents: BiPer and progressive."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import estimators, methods
from tests import reference

LATENTS = jax.random.normal(jax.random.key(0), (6, 3)).at[2, 1].set(0.0)
GRADS = jax.random.normal(jax.random.key(1), (6, 3))


@pytest.mark.parametrize("sharpness", [0.0, 1e-3, 0.3, 5.0])
@pytest.mark.parametrize("axis", [0, -1, None])
def test_progressive_is_the_reference_in_every_group(float64, sharpness, axis):
    latents, grads = (jnp.asarray(x, jnp.float64) for x in (LATENTS, GRADS))
    found, pull = jax.vjp(
        lambda t: estimators.progressive(t, sharpness=sharpness, axis=axis), latents
    )
    results = found, pull(grads)[0]
    groups = {0: list(np.ndindex(6)), -1: [(slice(None), i) for i in range(3)]}
    for group in groups.get(axis, [...]):
        part = [np.asarray(x)[group].ravel().tolist() for x in (latents, grads)]
        expected = reference.progressive(*part, sharpness)
        for one, other in zip(results, expected, strict=True):
            np.testing.assert_allclose(
                np.asarray(one)[group].ravel(), other, rtol=1e-9, atol=1e-12
            )


def test_progressive_begins_at_a_float_network_and_ends_at_scaled_signs():
    same = estimators.progressive(LATENTS, sharpness=0.0)
    assert jnp.array_equal(same, LATENTS)
    ended = estimators.progressive(LATENTS, sharpness=1e35)
    signs = estimators.blend(LATENTS, share=1.0)
    moved = np.asarray(LATENTS) != 0
    np.testing.assert_allclose(ended[moved], signs[moved], rtol=1e-6)
    zeros = estimators.progressive(jnp.zeros((2, 2)), sharpness=3.0)
    assert not zeros.any()


def test_the_phases_of_progressive_are_published():
    steps = 107  # not a multiple of 20
    values = jax.vmap(methods.progressive(steps).values)(jnp.arange(steps + 3))
    phases = [1 + min(step * 20 // steps, 19) for step in range(steps + 3)]
    wanted = [1.3 * np.exp(0.22 * phase) - 1.3 for phase in phases]
    np.testing.assert_allclose(values["sharpness"], wanted, rtol=1e-5)
    assert float(methods.progressive(9, phases=1).values(8)["sharpness"]) < 0.33


def test_progressive_ships_the_scales_of_groups():
    method = methods.progressive(9, group=2)
    grouped = method.deploy({"kernel": LATENTS})["kernel"]
    wanted = np.abs(np.asarray(LATENTS, np.float64)).reshape(3, 2, 3).mean(1)
    np.testing.assert_allclose(np.abs(grouped)[::2], wanted, rtol=1e-6)


def test_biper_is_soft_for_two_thirds_of_the_run():
    method = methods.biper(30)
    params = {"kernel": LATENTS}
    assert method.binary_from == 20
    before, after = (method.weights(params, step)["kernel"] for step in (19, 20))
    np.testing.assert_allclose(before, np.sin(20 * np.float64(LATENTS)), atol=1e-5)
    shipped = method.deploy(params)["kernel"]
    assert jnp.array_equal(after, shipped)
    assert jnp.array_equal(shipped, jnp.where(before >= 0, 1, -1))
    assert jnp.any(shipped != jnp.where(LATENTS >= 0, 1, -1))


def test_biper_keeps_the_signs_of_a_trained_network():
    method = methods.biper(30, omega=7.0)
    for kernel in (LATENTS, 100 * LATENTS, jnp.zeros((2, 2))):
        trained = {"kernel": kernel}
        params = method.init(jax.random.key(0), trained, trained=True)
        signs = jnp.where(kernel >= 0, 1, -1)
        assert jnp.array_equal(method.deploy(params)["kernel"], signs)
        top = float(jnp.max(method.weights(params, 0)["kernel"]))
        assert top == pytest.approx(float(jnp.any(kernel != 0)), abs=0.5)


def test_what_is_out_of_range_is_refused():
    with pytest.raises(ValueError, match="`stage`"):
        estimators.biper(LATENTS, stage=3)
    with pytest.raises(ValueError, match="`omega`"):
        estimators.biper(LATENTS, stage=1, omega=0.0)
    with pytest.raises(ValueError, match="`sharpness`"):
        estimators.progressive(LATENTS, sharpness=-1.0)
