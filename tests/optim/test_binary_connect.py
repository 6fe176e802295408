"""BinaryConnect's step, scale and clip."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaste_jax import optim


def _step(tx, latent, grad):
    updates, _ = tx.update(grad, tx.init(latent), latent)
    return optax.apply_updates(latent, updates)


# latent, direction, scale, latent after; the learning rate is 0.1
ROWS = [
    (0.95, -1, 1, 1),
    (-0.3, 2, 1, -0.5),
    (-0.98, 0.5, 1, -1),
    (0.2, 0.03, 10, 0.17),
]


@pytest.mark.parametrize("row", ROWS)
def test_rows(row):
    latent, direction, scale, after = row
    # The fans (100, 50) have the scale 10.
    shape = {1: (1,), 10: (100, 50)}[scale]
    tx = optim.binary_connect(0.1, inner=optax.identity(), glorot=scale == 10)
    got = _step(tx, jnp.full(shape, latent), jnp.full(shape, direction))
    np.testing.assert_allclose(got, after, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "scale"),
    [
        ((100, 50), 10),
        ((3, 3, 64, 128), 33.9411),  # fans 576 and 1152
        ((784, 4096), 57.038),
        ((50,), 1),
        ((), 1),
    ],
)
def test_the_step_is_scaled_by_the_width_of_a_glorot_draw(shape, scale):
    tx = optim.scale_by_glorot()
    latent = jnp.zeros(shape)
    updates, _ = tx.update(jnp.full(shape, 0.5), tx.init(latent), latent)
    np.testing.assert_allclose(updates, 0.5 * scale, rtol=2e-6)


def test_the_clip_is_of_the_point_and_not_of_the_step():
    tx = optax.chain(optax.scale(-1.0), optim.clip_latents(0.5))
    latent = jnp.array([0.4, -0.4, 0.4, 3.0])
    grad = jnp.array([-0.3, 0.3, 0.8, 0.0])
    np.testing.assert_allclose(
        _step(tx, latent, grad), [0.5, -0.5, -0.4, 0.5], rtol=1e-6
    )


def test_the_direction_is_that_of_adam_by_default():
    latent, grad = jnp.array([0.3, -0.2]), jnp.array([0.1, -4.0])
    got = _step(optim.binary_connect(glorot=False), latent, grad)
    np.testing.assert_allclose(got, _step(optax.adam(3e-3), latent, grad), rtol=1e-6)


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match="`bound` must lie in"):
        optim.clip_latents(0.0)
    latent = jnp.ones(2)
    for tx in (optim.clip_latents(), optim.scale_by_glorot()):
        with pytest.raises(ValueError, match=r"tx\.update\(updates, state, params\)"):
            jax.eval_shape(lambda u, tx=tx: tx.update(u, tx.init(u)), latent)
