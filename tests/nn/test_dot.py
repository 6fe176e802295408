"""The product of layers on sequences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from adaste_jax.nn import dot_general

# Inputs, kernel, the axes that are summed over, and those of a batch.
PRODUCTS = {
    "dense": ((2, 5, 3), (3, 4), ((2,), (0,)), ((), ())),
    "to heads": ((2, 5, 6), (6, 2, 3), ((2,), (0,)), ((), ())),
    "from heads": ((2, 5, 2, 3), (2, 3, 7), ((2, 3), (0, 1)), ((), ())),
    "no batch": ((3,), (3, 4), ((0,), (0,)), ((), ())),
    "a matrix": ((5, 3), (3, 4), ((1,), (0,)), ((), ())),
    "another axis": ((2, 3, 5), (3, 4), ((1,), (0,)), ((), ())),
    "a transposed kernel": ((2, 5, 3), (4, 3), ((2,), (1,)), ((), ())),
    "swapped axes": ((2, 5, 3, 3), (3, 3, 7), ((3, 2), (0, 1)), ((), ())),
    "a batch of kernels": ((2, 5, 3), (2, 3, 4), ((2,), (1,)), ((0,), (0,))),
    "no entries": ((0, 5, 3), (3, 4), ((2,), (0,)), ((), ())),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_product_and_gradients_are_those_of_jax(name):
    shape, kernel_shape, summed, batch = PRODUCTS[name]
    rng = np.random.default_rng(0)
    # Of small integers sums are exact in any order.
    lhs = jnp.asarray(rng.integers(-4, 5, shape), jnp.float32)
    rhs = jnp.asarray(rng.integers(-4, 5, kernel_shape), jnp.float32)
    found, pullback = jax.vjp(lambda x, w: dot_general(x, w, (summed, batch)), lhs, rhs)
    exact, expected = jax.vjp(
        lambda x, w: jax.lax.dot_general(x, w, (summed, batch)), lhs, rhs
    )
    np.testing.assert_array_equal(found, exact)
    grad = jnp.asarray(rng.integers(-4, 5, exact.shape), jnp.float32)
    for one, other in zip(pullback(grad), expected(grad), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_does_not_fit_is_an_error_of_jax():
    with pytest.raises(TypeError, match="contracting dimension"):
        dot_general(jnp.ones((2, 5, 3)), jnp.ones((4, 4)), (((2,), (0,)), ((), ())))


@pytest.mark.parametrize("api", ["linen", "nnx"])
def test_a_layer_of_flax_multiplies_matrices(api):
    x = jnp.ones((2, 5, 3))
    if api == "linen":
        layer = linen.Dense(4, dot_general=dot_general)
        variables = layer.init(jax.random.key(0), x)
        call = lambda x: layer.apply(variables, x)
    else:
        call = nnx.Linear(3, 4, dot_general=dot_general, rngs=nnx.Rngs(0))
    equations = jax.make_jaxpr(call)(x).eqns
    (product,) = (e for e in equations if e.primitive.name == "dot_general")
    assert [v.aval.shape for v in product.invars] == [(10, 3), (3, 4)]
    assert call(x).shape == (2, 5, 4)
