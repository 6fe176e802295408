"""Weights in an ONNX model: how many bits they take, and that they come back."""

import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from flax import linen as nn

from adaste_jax import estimators, export, methods
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
    read = onnx.load_from_string(model)
    types = [node.op_type for node in read.graph.node]
    large = weights.size >= _onnx_weights.LEAST_FAST
    assert ("MatMulNBits" in types) == large
    needed = "onnxruntime 1.24" if large else "onnxruntime 1.14"
    assert read.doc_string == f"Needs {needed} or newer."
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


def test_levels_are_found_with_one_scale_or_one_for_an_axis_or_group():
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], (3, 3, 8, 16)).astype(np.float32)
    trits = signs * rng.choice([0.0, 1.0], signs.shape).astype(np.float32)
    rows = rng.uniform(1, 2, (8, 1)).astype(np.float32)
    for bits, array in ((1, signs), (2, trits)):
        assert _onnx_weights.levels(array) == (bits, 1, None)
        bits_found, scale, group = _onnx_weights.levels(array * rows)
        assert (bits_found, group) == (bits, None)
        np.testing.assert_array_equal(scale, rows[None, None])
    windows = signs * rng.uniform(1, 2, signs.shape[2:]).astype(np.float32)
    assert _onnx_weights.levels(windows).group == (3, 3, 1, 1)
    assert _onnx_weights.levels(signs * rng.uniform(1, 2, (3, 1, 8, 16))) is None
    assert _onnx_weights.levels(np.abs(rng.normal(size=500)).astype(np.float32)) is None


GROUPS = {
    "dense": ((256, 40), 64, -2, "ab,bc->ac"),
    "groups of 12": ((48, 40), 12, -2, "ab,bc->ac"),
    "into heads": ((64, 4, 6), 16, 0, "ab,bcd->acd"),
    "out of heads": ((4, 64, 7), 128, (0, 1), "abc,bcd->ad"),
    "embedding as the last layer": ((30, 128), 64, -1, "ab,cb->ac"),
}


@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize(
    ("estimator", "bits"),
    [(estimators.scaled_sign, 1), (estimators.ternary_absmean, 2)],
)
def test_groups_stay_packed_with_a_scale_each(kind, estimator, bits):
    shape, size, axis, product = GROUPS[kind]
    rng = np.random.default_rng(0)
    latent = rng.normal(size=shape).astype(np.float32)
    weights = np.asarray(estimators.per_group(estimator, size, axis=axis)(latent))
    sides = dict(zip(product.split("->")[0].split(",")[1], shape, strict=True))
    inner = [sides[letter] for letter in product.split(",")[0][1:]]
    x = rng.normal(size=(3, *inner)).astype(np.float32)
    model = export.to_onnx(
        lambda weights, x: jnp.einsum(product, x, weights), weights, input_shape=inner
    )
    wanted = np.einsum(product, x.astype(np.float64), weights)
    np.testing.assert_allclose(
        outputs(model, x), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max()
    )
    stored = onnx.load_from_string(model).graph.initializer
    floats = [np.prod(t.dims) for t in stored if t.data_type == onnx.TensorProto.FLOAT]
    assert max(floats) == weights.size // size
    assert len(model) < weights.size * bits / 8 + weights.size // size * 4 + 1500


def test_groups_of_a_convolution_stay_packed():
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(3, 3, 64, 32)).astype(np.float32)
    weights = np.asarray(estimators.per_group(estimators.scaled_sign, 32)(latent))
    network = nn.Conv(32, (3, 3), use_bias=False)
    x = rng.normal(size=(2, 5, 5, 64)).astype(np.float32)
    model = export.to_onnx(network, {"kernel": weights}, input_shape=x.shape[1:])
    wanted = np.asarray(network.apply({"params": {"kernel": weights}}, x))
    np.testing.assert_allclose(
        outputs(model, x), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max()
    )
    assert len(model) < weights.size / 8 + weights.size / 32 * 4 + 1500


def test_scales_that_fit_in_float16_are_stored_so(tmp_path):
    """Those of a file that was saved with `scale_dtype="float16"`: 1.125 bits."""
    latent = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    method = methods.scaled_sign(9, group=128)
    path = tmp_path / "model.safetensors"
    export.save(path, {"kernel": latent}, method=method, scale_dtype="float16")
    weights = export.load(path).params["kernel"]
    model = export.to_onnx(lambda w, x: x @ w, weights, input_shape=(512,))
    assert len(model) < weights.size * 1.125 / 8 + 1500
    found = outputs(model, np.eye(512, dtype=np.float32))
    np.testing.assert_array_equal(found, np.asarray(weights))


@pytest.mark.parametrize("size", [16, 32, 48, 64, 128, 384, 24])
@pytest.mark.parametrize(
    "estimator", [estimators.scaled_sign, estimators.ternary_absmean]
)
def test_fast_layers_take_groups_whose_size_is_a_multiple_of_16(size, estimator):
    """Inputs of whole numbers up to 127 have no rounding, so that nothing else has."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(768, 96)).astype(np.float32)
    weights = np.asarray(estimators.per_group(estimator, size)(latent))
    x = rng.integers(-127, 128, (3, 768)).astype(np.float32)
    x[:, ::8] = 127  # in every block
    model = export.to_onnx(
        lambda weights, x: x @ weights, weights, input_shape=(768,), fast=True
    )
    nodes = onnx.load_from_string(model).graph.node
    blocks = [
        attribute.i
        for node in nodes
        for attribute in node.attribute
        if attribute.name == "block_size"
    ]
    largest = {48: 16, 384: 128, 24: None}.get(size, size)
    assert blocks == ([] if largest is None else [largest])
    wanted = x @ weights
    np.testing.assert_allclose(
        outputs(model, x), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max()
    )
