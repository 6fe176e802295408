"""Weights in an ONNX model: how many bits they take, and that they come back."""

import numpy as np
import onnx
import onnxruntime
import pytest

from adaste_jax import export, methods
from adaste_jax.export import _onnx_weights


def outputs(model, inputs):
    """What ONNX Runtime makes of inputs."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": inputs})[0]


@pytest.mark.parametrize(
    ("levels", "bits", "fast"),
    [(2, 1, False), (2, 1, True), (3, 2, False), (3, 2, True)],
)
def test_a_dense_layer_takes_one_bit_a_weight_or_two_if_ternary(levels, bits, fast):
    """And a kilobyte for all that describes it."""
    rng = np.random.default_rng(0)
    weights = rng.choice([-1.0, 1.0, 0.0][:levels], (512, 512)).astype(np.float32)
    model = export.to_onnx(
        lambda weights, x: x @ weights, weights, input_shape=(512,), fast=fast
    )
    assert 0 < len(model) - weights.size * bits / 8 < 1024 + 512 * fast
    x = rng.normal(size=(5, 512)).astype(np.float32)
    error = outputs(model, x) - x @ weights
    if fast:  # each number is rounded to a step of 1/127 of the largest of its group
        step = np.abs(x).max() / 127
        assert 1e-3 < error.std() < step / np.sqrt(12) * np.sqrt(512)
    else:
        assert np.abs(error).max() < 1e-4


@pytest.mark.parametrize("shape", [(300, 250), (1003, 131)])
@pytest.mark.parametrize("levels", [2, 3])
def test_fast_layers_of_any_size_and_scale(shape, levels):
    """Inputs of whole numbers up to 127 have no rounding, so that nothing else has."""
    rng = np.random.default_rng(1)
    scale = rng.uniform(0.5, 2, shape[1]).astype(np.float32)
    weights = rng.choice([-1.0, 1.0, 0.0][:levels], shape).astype(np.float32) * scale
    x = rng.integers(-127, 128, (3, shape[0])).astype(np.float32)
    x[:, ::40] = 127  # in every group
    model = export.to_onnx(
        lambda weights, x: x @ weights, weights, input_shape=shape[:1], fast=True
    )
    types = [node.op_type for node in onnx.load_from_string(model).graph.node]
    assert ("MatMulNBits" in types) == (weights.size >= _onnx_weights.LEAST_FAST)
    wanted = x @ weights
    np.testing.assert_allclose(
        outputs(model, x), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max()
    )


@pytest.mark.parametrize("size", [127, 128, 129, 1000])
@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.choice([-1.0, 1.0], n),
        lambda rng, n: rng.choice([-0.3, 0.3, 0.0], n),
        lambda rng, n: np.zeros(n),
        lambda rng, n: rng.normal(size=n),
    ],
)
def test_arrays_come_back_bit_for_bit(size, draw):
    array = draw(np.random.default_rng(size), size).astype(np.float32)
    known = export.to_onnx(
        lambda array, x: x * array[None], array, input_shape=(size,),
        method=methods.full_precision(steps=1),
    )  # fmt: skip
    found = outputs(known, np.ones((1, size), np.float32))
    assert (found[0] == array).all()


def test_levels_are_found_with_one_scale_or_one_for_an_axis():
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], (3, 3, 8, 16)).astype(np.float32)
    trits = signs * rng.choice([0.0, 1.0], signs.shape).astype(np.float32)
    rows = rng.uniform(1, 2, (8, 1)).astype(np.float32)
    for bits, array in ((1, signs), (2, trits)):
        assert _onnx_weights.levels(array) == (bits, 1)
        bits_found, scale = _onnx_weights.levels(array * rows)
        assert bits_found == bits
        np.testing.assert_array_equal(scale, rows[None, None])
    assert _onnx_weights.levels(signs * rng.uniform(1, 2, signs.shape[2:])) is None
    assert _onnx_weights.levels(np.abs(rng.normal(size=500)).astype(np.float32)) is None
