"""Methods take the parameters of Linen and of NNX as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from adaste_jax import methods


class Small(nnx.Module):
    """Two layers, of which the first has a norm."""

    def __init__(self, rngs):
        self.first = nnx.Linear(4, 5, rngs=rngs)
        self.norm = nnx.LayerNorm(5, rngs=rngs)
        self.last = nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, inputs):
        return self.last(nnx.relu(self.norm(self.first(inputs))))


def _of_nnx():
    graphdef, params = nnx.split(Small(nnx.Rngs(0)), nnx.Param)
    return lambda weights, inputs: nnx.merge(graphdef, weights)(inputs), params


def _of_linen():
    network = linen.Sequential(
        [linen.Dense(5), linen.LayerNorm(), linen.relu, linen.Dense(2)]
    )
    params = network.init(jax.random.key(0), jnp.ones((1, 4)))["params"]
    return lambda weights, inputs: network.apply({"params": weights}, inputs), params


@pytest.mark.parametrize("name", ["adaste", "bayesbinn", "md_softmax"])
@pytest.mark.parametrize("library", [_of_linen, _of_nnx])
def test_a_step_by_hand_lowers_the_loss(library, name):
    network, params = library()
    structure = jax.tree.structure(params)
    rates = {"adaste": {}, "bayesbinn": {"learning_rate": 1e-2, "temperature": 1.0}}
    method = methods.METHODS[name](40, num_examples=16, **rates.get(name, {}))
    params = method.init(jax.random.key(1), params)
    state = method.tx.init(params)
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(16, 4)), jnp.float32)
    labels = (inputs[:, 0] > 0).astype(jnp.int32)

    def loss_of(weights):
        with jax.numpy_rank_promotion("allow"):
            logits = network(weights, inputs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses)

    @jax.jit
    def step(params, state, number):
        key = jax.random.fold_in(jax.random.key(2), number)
        weights, pull = jax.vjp(lambda p: method.weights(p, number, key), params)
        updates, state = method.tx.update(
            *pull(jax.grad(loss_of)(weights)),
            state,
            params,
            weights=weights,
            step=number,
        )
        return optax.apply_updates(params, updates), state

    before = float(loss_of(method.deploy(params)))
    for number in range(40):
        params, state = step(params, state, number)
    shipped = method.deploy(params)
    assert jax.tree.structure(params) == jax.tree.structure(shipped) == structure
    assert float(loss_of(shipped)) < before
    chosen = jax.tree.leaves(method.where(params))
    assert sum(chosen) == 2
    for leaf, is_latent in zip(jax.tree.leaves(shipped), chosen, strict=True):
        assert set(np.unique(leaf)) == {-1.0, 1.0} or not is_latent
