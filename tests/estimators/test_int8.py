"""Activations rounded to int8, a token or a group at a time."""

import ctypes

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import estimators
from adaste_jax.nn import linen
from tests.export import llama_cpp

X = np.random.default_rng(0).normal(size=(3, 2, 64)).astype(np.float32)


@pytest.mark.parametrize(("group", "size"), [(0, 64), (32, 32), (1, 1)])
def test_each_group_has_255_levels_of_its_own(group, size):
    found = np.asarray(estimators.int8_per_token(X, group=group))
    for row, (x, y) in enumerate(
        zip(X.reshape(-1, size), found.reshape(-1, size), strict=True)
    ):
        scale = max(map(abs, x.tolist())) / 127
        expected = [scale * round(one / scale) for one in x.tolist()]
        np.testing.assert_allclose(y, expected, rtol=1e-6, err_msg=f"group {row}")
    if size == 1:
        np.testing.assert_allclose(found, X, rtol=1e-6)


def test_groups_of_32_are_those_of_llama_cpp():
    """Which rounds the scale of a group to float16 besides."""
    lib = llama_cpp.library()
    blocks = np.empty((X.size // 32, 34), np.uint8)
    function = lib.quantize_row_q8_0_ref
    function.restype = None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    function(X.ctypes.data, blocks.ctypes.data, X.size)
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    numbers = blocks[:, 2:].view(np.int8)
    found = np.asarray(estimators.int8_per_token(X, group=32)).reshape(-1, 32)
    np.testing.assert_array_equal(np.round(found / scales), numbers)
    np.testing.assert_allclose(found, scales * numbers, rtol=5e-4)


def test_the_gradient_passes_unchanged():
    grad = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
    _, pull = jax.vjp(lambda x: estimators.int8_per_token(x, group=32), X)
    np.testing.assert_array_equal(pull(jnp.asarray(grad))[0], grad)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtype_zeros_and_nothing_are_kept(dtype):
    x = jnp.asarray([[0.0, -0.0, 0.0], [1e-3, -127.0, 3.3]], dtype)
    found = estimators.int8_per_token(x)
    assert (found.shape, found.dtype) == (x.shape, x.dtype)
    np.testing.assert_array_equal(found[0], [0, 0, 0])
    np.testing.assert_array_equal(found[1], [0, -127, 3])
    empty = jnp.zeros((0, 4), dtype)
    assert estimators.int8_per_token(empty).shape == (0, 4)
    assert np.isnan(
        np.float32(estimators.int8_per_token(x.at[1, 0].set(jnp.nan))[1, 0])
    )


def test_a_layer_takes_it_as_its_input_estimator():
    layer = linen.BinaryDense(
        4, estimator=estimators.ste, input_estimator=estimators.int8_per_token
    )
    variables = layer.init(jax.random.key(0), X)
    weights = np.where(variables["params"]["kernel"] >= 0, 1.0, -1.0)
    expected = np.asarray(estimators.int8_per_token(X)) @ weights
    np.testing.assert_allclose(layer.apply(variables, X), expected, atol=1e-4)


def test_what_has_no_groups_is_refused():
    with pytest.raises(ValueError, match="divide the 64 features, got 48"):
        estimators.int8_per_token(X, group=48)
    with pytest.raises(ValueError, match="got -1"):
        estimators.int8_per_token(X, group=-1)
    with pytest.raises(ValueError, match="got a number"):
        estimators.int8_per_token(1.0)
    with pytest.raises(TypeError, match="floating point"):
        estimators.int8_per_token(np.arange(4))
