"""Networks over packed weights give what they give over float ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from adaste_jax import estimators, export, methods
from adaste_jax.export import _apply_packed, _packed

GROUPS = estimators.per_group(estimators.scaled_sign, 16)
TERNARY_GROUPS = estimators.per_group(estimators.ternary_absmean, 32)
OUTPUT_GROUPS = estimators.per_group(estimators.scaled_sign, 12, axis=-1)
CASES = {
    "signs": (estimators.ste, 801, 41),  # neither a multiple of 8 nor of 5
    "a scale": (estimators.scaled_sign, 801, 41),
    "groups": (GROUPS, 800, 41),
    "groups of outputs": (OUTPUT_GROUPS, 801, 36),  # blocks begin within them
    "trits": (estimators.ternary_absmean, 801, 41),
    "trits in groups": (TERNARY_GROUPS, 800, 41),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Every kernel counts as a large one, and its blocks overlap."""
    monkeypatch.setattr(_packed, "LARGE", 1)
    monkeypatch.setattr(_apply_packed, "_BLOCK", 2000)


def kernel(deploy, shape, seed=0):
    return deploy(jax.random.normal(jax.random.key(seed), shape))


def as_they_are(weights):
    return weights


@pytest.mark.parametrize(("deploy", "inputs", "outputs"), CASES.values(), ids=CASES)
def test_a_product_is_that_of_the_weights(deploy, inputs, outputs):
    """For few rows by a table, for more by blocks, in one program of any batch size."""
    weights = kernel(deploy, (inputs, outputs))
    data = export.to_stablehlo(
        lambda params, x: x @ params["kernel"],
        {"kernel": weights},
        input_shape=(inputs,),
        deploy=as_they_are,
    )
    program = jax.export.deserialize(bytearray(data))
    assert program.platforms == ("cpu", "cuda", "tpu")
    for batch in (1, 5):
        x = np.random.default_rng(0).normal(size=(batch, inputs)).astype(np.float32)
        exact = x.astype(np.float64) @ np.asarray(weights, np.float64)
        found = jax.jit(program.call)(x)
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-3)


def test_the_float_weights_are_never_whole():
    weights = kernel(estimators.ste, (800, 48))
    program = export.packed_forward(
        lambda params, x: x @ params["kernel"], {"kernel": weights}, deploy=as_they_are
    )
    text = jax.jit(program).lower(jnp.ones((3, 800))).compile().as_text()
    assert "u8[100,48]" in text
    assert "f32[800,48]" not in text


CONVOLUTIONS = {
    "signs": (89, {"window_strides": (2, 2), "padding": "SAME"}),
    "a scale": (89, {"window_strides": (1, 3), "padding": ((2, 0), (-1, 4))}),
    "groups": (96, {"window_strides": (1, 1), "padding": "SAME"}),
    "trits": (
        89,
        {
            "window_strides": (1, 1),
            "padding": ((1, 1), (2, 0)),
            "lhs_dilation": (2, 1),
            "rhs_dilation": (1, 2),
        },
    ),
    "trits in groups": (96, {"window_strides": (1, 1), "padding": "VALID"}),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_is_that_of_the_weights(case, monkeypatch):
    """For few places as a product, for more by the whole kernel, in one program.

    Inputs are whole numbers, of which float32 holds every sum of signs exactly.
    """
    monkeypatch.setattr(_apply_packed, "_POSITIONS", 50)
    channels, options = CONVOLUTIONS[case]
    weights = kernel(CASES[case][0], (3, 3, channels, 41))

    def convolve(params, x):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, params["kernel"], dimension_numbers=layout, **options
        )

    params = {"kernel": weights}
    data = export.to_stablehlo(
        convolve, params, input_shape=(7, 6, channels), deploy=as_they_are
    )
    program = jax.export.deserialize(bytearray(data))
    tolerance = 0 if case == "signs" else 1e-5
    for batch in (1, 9):
        x = np.random.default_rng(0).integers(-9, 9, (batch, 7, 6, channels))
        x = x.astype(np.float32)
        expected = jax.jit(convolve)(params, x)
        found = jax.jit(program.call)(x)
        bound = tolerance * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=bound)


def test_a_convolution_with_few_places_unpacks_blocks():
    weights = kernel(estimators.ste, (3, 3, 96, 48))
    program = export.packed_forward(
        nn.Conv(48, (3, 3), use_bias=False).apply,
        {"params": {"kernel": weights}},
        deploy=as_they_are,
    )
    text = jax.jit(program).lower(jnp.ones((3, 4, 4, 96))).compile().as_text()
    assert "u8[108,48]" in text
    assert "f32[864,48]" not in text
    assert "f32[3,3,96,48]" not in text
    assert "f32[864,16]" in text


class Network(nn.Module):
    """Convolutions with a stride and with groups, attention, and an embedding."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(24, (3, 3), strides=2)(x))
        x = nn.Conv(24, (3, 3), feature_group_count=3)(x)
        x = nn.BatchNorm(use_running_average=True)(x.reshape(len(x), -1, 24))
        x = nn.MultiHeadDotProductAttention(4, qkv_features=32)(x)
        embedding = nn.Embed(9, x.shape[-1], name="kernel")
        codes = jnp.argmax(x[..., :9], -1)
        return embedding.attend(nn.silu(x + embedding(codes))).sum(1)


@pytest.mark.parametrize("deploy", [estimators.ste, estimators.ternary_absmean])
def test_other_operations_get_the_weights_unpacked(deploy, tmp_path):
    """Those of attention too, whose kernels are summed over other axes than packed."""
    images = jax.random.normal(jax.random.key(0), (3, 8, 8, 8))
    variables = jax.jit(Network().init)(jax.random.key(1), images)
    state = {"batch_stats": variables["batch_stats"]}
    where = ["kernel", "embedding"]
    path = tmp_path / "network.safetensors"
    params = variables["params"]
    export.save(path, params, where=where, deploy=deploy, model_state=state)

    def forward(params, state, images):
        return Network().apply({"params": params, **state}, images)

    plain, packed = export.load(path), export.load(path, packed=True)
    outputs = jax.jit(functools.partial(export.apply_packed, forward))
    found = outputs(packed.params, packed.model_state, images)
    expected = jax.jit(forward)(plain.params, plain.model_state, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_gradients_reach_the_inputs():
    weights = kernel(GROUPS, (800, 7))
    packed = export.packed_forward(
        lambda params, x: jnp.square(x @ params["kernel"]).sum(),
        {"kernel": weights},
        deploy=as_they_are,
    )
    x = jax.random.normal(jax.random.key(1), (3, 800))
    expected = 2 * x @ weights @ weights.T
    np.testing.assert_allclose(jax.grad(packed)(x), expected, rtol=1e-4, atol=1e-2)


def test_load_keeps_what_the_file_holds(tmp_path):
    method = methods.scaled_sign(steps=9)
    params = {
        "dense": {"kernel": kernel(lambda x: x, (64, 10)), "bias": jnp.ones(10)},
        "odd": {"kernel": kernel(lambda x: x, (3, 3, 3, 5))},
    }
    path = tmp_path / "network.safetensors"
    export.save(path, params, method=method)
    plain, found = export.load(path), export.load(path, packed=True)
    assert found.metadata == plain.metadata
    assert isinstance(found.params["dense"]["bias"], np.ndarray)
    dense = found.params["dense"]["kernel"]
    assert isinstance(dense, export.Packed)
    assert (dense.encoding, dense.axes, dense.group) == ("bits", (0,), None)
    assert dense.packed.dtype == np.uint8
    assert dense.packed.nbytes == 80
    x = jnp.ones((2, 64))
    product = export.packed_matmul(x, dense.packed) * dense.scale.reshape(1, -1)
    expected = x @ plain.params["dense"]["kernel"]
    np.testing.assert_allclose(product, expected, rtol=1e-5)
    unpacked = jax.tree.map(
        lambda leaf: leaf.unpack() if isinstance(leaf, export.Packed) else leaf,
        found.params,
        is_leaf=lambda leaf: isinstance(leaf, export.Packed),
    )
    jax.tree.map(np.testing.assert_array_equal, unpacked, plain.params)
    again = export.load(path, params_like=params, packed=True).params
    assert again["odd"]["kernel"].shape == (3, 3, 3, 5)
