"""The optimiser of the latents, where a method leaves it open."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaste_jax import methods as library
from experiments import methods
from tests.methods import problem

OWN = {
    *("adaste_averaged", "adaste_released", "bayesbinn", "binary_connect"),
    *("binary_connect_random", "bop", "md_softmax", "md_tanh", "proxquant", "vispa"),
    "ovsw",
}
HALF = functools.partial(optax.adam, b1=0.5)


def updated(method, params, grads):
    """Parameters after a step for each gradient."""
    state = method.tx.init(params)
    for step, grad in enumerate(grads):
        updates, state = method.tx.update(
            grad, state, params, weights=method.weights(params, step), step=step
        )
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("name", library.METHODS)
def test_it_is_used_or_refused(name):
    if name in OWN:
        with pytest.raises(
            ValueError, match=r"`optimiser` must be absent: this method"
        ):
            library.METHODS[name](9, optimiser=HALF)
        return
    method = library.METHODS[name](9, optimiser=HALF)
    state = jax.tree.leaves(method.tx.init(problem.drawn()))
    usual = jax.tree.leaves(library.METHODS[name](9).tx.init(problem.drawn()))
    assert len(state) == len(usual)


def test_its_momentum_is_that_of_adam_computed_one_number_at_a_time():
    rate, grads = 0.1, [0.3, -0.2, 0.5]
    method = library.ste(100, learning_rate=lambda step: rate, optimiser=HALF)
    found = updated(
        method, {"kernel": jnp.zeros(1)}, [{"kernel": jnp.full(1, g)} for g in grads]
    )
    latent = mean = square = 0.0
    for count, grad in enumerate(grads, start=1):
        mean = 0.5 * mean + 0.5 * grad
        square = 0.999 * square + 0.001 * grad**2
        unbiased = mean / (1 - 0.5**count)
        latent -= rate * unbiased / (math.sqrt(square / (1 - 0.999**count)) + 1e-8)
    np.testing.assert_allclose(found["kernel"], [latent], rtol=1e-5)


def test_muon_of_a_config_gives_every_kernel_an_orthogonal_step():
    rate = 0.01
    muon = methods.optimiser("muon", 0.9)
    method = library.ste(100, learning_rate=lambda step: rate, optimiser=muon)
    shapes = {"dense": (8, 6), "conv": (3, 3, 4, 5)}
    params = {name: {"kernel": jnp.zeros(shape)} for name, shape in shapes.items()}
    keys = dict(zip(shapes, jax.random.split(jax.random.key(0)), strict=True))
    grads = {
        name: {"kernel": jax.random.normal(keys[name], shape)}
        for name, shape in shapes.items()
    }
    found = updated(method, params, [grads])
    for name, shape in shapes.items():
        matrix = np.asarray(found[name]["kernel"]).reshape(-1, shape[-1])
        sizes = np.linalg.svd(matrix, compute_uv=False)
        wanted = 0.2 * rate * math.sqrt(max(matrix.shape))
        assert (np.abs(sizes / wanted - 1) < 0.35).all()  # five steps of Newton-Schulz
        raw = np.linalg.svd(
            np.asarray(grads[name]["kernel"]).reshape(matrix.shape), compute_uv=False
        )
        assert raw[0] > 2 * raw[-1]
