"""`binarize` and `deploy` on the parameters of Linen, of NNX and of plain functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import adaste_jax
from adaste_jax import estimators

INPUTS = np.random.default_rng(0).normal(0.3, 1.2, (5, 3)).astype(np.float32)
RNG = np.random.default_rng(1)
# Latents on both sides of the clip at 1; the layers' names are those of Linen.
PARAMS = {
    name: {
        "kernel": RNG.normal(0, 1, shape).astype(np.float32),
        "bias": RNG.normal(0, 1, shape[1:]).astype(np.float32),
    }
    for name, shape in {"Dense_0": (3, 4), "Dense_1": (4, 2)}.items()
}


class Linen(nn.Module):
    """Two layers, tanh between them."""

    @nn.compact
    def __call__(self, inputs):
        hidden = jnp.tanh(nn.Dense(4)(inputs))
        return nn.Dense(2)(hidden)


class Nnx(nnx.Module):
    """The same."""

    def __init__(self, rngs):
        self.Dense_0 = nnx.Linear(3, 4, rngs=rngs)
        self.Dense_1 = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, inputs):
        return self.Dense_1(jnp.tanh(self.Dense_0(inputs)))


def linen():
    return PARAMS, lambda params: Linen().apply({"params": params}, INPUTS), dict


def nnx_state():
    graphdef, state = nnx.split(Nnx(nnx.Rngs(0)), nnx.Param)
    nnx.replace_by_pure_dict(state, PARAMS)
    apply = lambda params: nnx.merge(graphdef, params)(INPUTS)
    return state, apply, nnx.to_pure_dict


def hand_written():
    layers = [(tree["kernel"], tree["bias"]) for tree in PARAMS.values()]

    def apply(layers):
        (first, first_bias), (second, second_bias) = layers
        hidden = jnp.tanh(INPUTS @ first + first_bias[None])
        return hidden @ second + second_bias[None]

    def as_dict(layers):
        return {
            name: {"kernel": kernel, "bias": bias}
            for name, (kernel, bias) in zip(PARAMS, layers, strict=True)
        }

    return layers, apply, as_dict


@pytest.mark.parametrize(
    ("make", "where"),
    [(linen, None), (nnx_state, None), (hand_written, [(True, False)] * 2)],
)
def test_binarize_gives_the_weights_and_the_gradients_of_the_rule(make, where):
    """By hand in NumPy: signs, tanh, and the chain rule with the clip at 1."""
    params, apply, as_dict = make()

    def loss(params):
        weights = adaste_jax.binarize(params, estimators.ste_clipped, where=where)
        return jnp.sum(apply(weights)), weights

    (value, weights), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert jax.tree.structure(weights) == jax.tree.structure(params)

    first, second = PARAMS["Dense_0"], PARAMS["Dense_1"]
    sign = lambda latent: np.where(latent >= 0, 1.0, -1.0)
    hidden = np.tanh(INPUTS @ sign(first["kernel"]) + first["bias"])
    outputs = hidden @ sign(second["kernel"]) + second["bias"]
    upstream = np.ones_like(outputs)
    back = upstream @ sign(second["kernel"]).T * (1 - hidden**2)
    expected = {
        "Dense_0": {
            "kernel": INPUTS.T @ back * (np.abs(first["kernel"]) <= 1),
            "bias": back.sum(0),
        },
        "Dense_1": {
            "kernel": hidden.T @ upstream * (np.abs(second["kernel"]) <= 1),
            "bias": upstream.sum(0),
        },
    }
    np.testing.assert_allclose(value, outputs.sum(), rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        as_dict(grads),
        expected,
    )
    deployed = as_dict(adaste_jax.deploy(params, where=where))
    for name, tree in PARAMS.items():
        np.testing.assert_array_equal(deployed[name]["kernel"], sign(tree["kernel"]))
        np.testing.assert_array_equal(deployed[name]["bias"], tree["bias"])
