"""How `adaste_jax` uses this package. Needs it, with Flax."""

import adaste_jax_cpu
import jax
import jax.numpy as jnp
import numpy as np
import pytest

adaste_jax = pytest.importorskip("adaste_jax")
linen = pytest.importorskip("adaste_jax.nn.linen")
nnx = pytest.importorskip("flax.nnx")

from adaste_jax import estimators, export  # noqa: E402
from adaste_jax.nn import nnx as layers  # noqa: E402


def gradients(layer, images):
    variables = layer.init(jax.random.key(0), images)
    loss = lambda variables: jnp.square(layer.apply(variables, images)).sum()
    run = jax.jit(jax.grad(loss))
    return run.lower(variables).as_text(), run(variables)


def test_a_layer_is_trained_by_it_and_finds_the_same_gradients():
    images = jax.random.normal(jax.random.key(1), (4, 9, 9, 3))
    options = {"kernel_size": (3, 3), "estimator": estimators.ste_clipped}
    text, found = gradients(linen.BinaryConv(8, **options), images)
    plain = linen.BinaryConv(8, **options, conv_general_dilated=None)
    plain_text, expected = gradients(plain, images)
    assert "adaste_convolution" in text
    assert "adaste_convolution" not in plain_text
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-3),
        found,
        expected,
    )


def test_nnx_too():
    layer = layers.BinaryConv(
        3, 8, kernel_size=(3, 3), estimator=estimators.ste_clipped, rngs=nnx.Rngs(0)
    )
    graph, state = nnx.split(layer)
    images = jnp.ones((2, 5, 5, 3))
    loss = lambda state: nnx.merge(graph, state)(images).sum()
    assert "adaste_convolution" in jax.jit(jax.grad(loss)).lower(state).as_text()


def test_summary_counts_the_same_and_says_what_is_there():
    layer = linen.BinaryConv(8, (3, 3), estimator=estimators.ste_clipped)
    images = jnp.ones((2, 5, 5, 3))
    variables = layer.init(jax.random.key(0), images)
    table = adaste_jax.summary(layer.apply, variables, images)
    assert table.one_bit_multiply_adds == 5 * 5 * 9 * 3 * 8
    assert f"adaste-jax-cpu {adaste_jax_cpu.__version__}" in str(table)


def test_packed_matmul_chooses_it_and_keeps_its_derivative():
    x = jax.random.normal(jax.random.key(0), (3, 40))
    kernel = jax.random.normal(jax.random.key(1), (40, 24))
    packed = export.pack(kernel, axis=0)
    run = jax.jit(export.packed_matmul)
    assert "adaste_packed_matmul" in run.lower(x, packed).as_text()
    signs = np.where(kernel >= 0, 1.0, -1.0)
    np.testing.assert_allclose(run(x, packed), x @ signs, atol=1e-4)
    pull = jax.grad(lambda x: jnp.sum(jnp.arange(24.0) * run(x, packed)))(x)
    np.testing.assert_allclose(pull[0], signs @ np.arange(24.0), atol=1e-3)
    assert run(x.astype(jnp.bfloat16), packed).dtype == jnp.bfloat16
    many = jnp.ones((65, 40))
    assert "adaste" not in run.lower(many, packed).as_text()
