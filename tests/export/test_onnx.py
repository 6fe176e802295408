"""ONNX models: ONNX Runtime gives the logits of JAX, from one bit a weight."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from flax import linen as nn

import adaste_jax
from adaste_jax import export, methods
from adaste_jax.export import _onnx_weights
from experiments import models

NETWORKS = {
    "mlp": ("mlp", (8, 8), {"features": (32,)}),
    "vgg_small": ("vgg_small", (8, 8, 3), {"width": 4, "dense": 16}),
    "vgg16": ("vgg16", (8, 8, 3), {"width": 4, "convolutions": (1, 1, 1)}),
    "resnet18": ("resnet18", (8, 8, 3), {"width": 4}),
    "resnet18 of large images": (
        "resnet18",
        (32, 32, 3),
        {"width": 4, "blocks": (1, 1), "stem": "7x7_pool"},
    ),
    "vit": ("vit", (8, 8, 3), {"width": 16, "depth": 1, "heads": 2}),
    "language_model": ("language_model", (12,), {"width": 16, "depth": 1, "heads": 2}),
}


def outputs(model, inputs):
    """What ONNX Runtime makes of inputs."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = session.run(None, {"input": np.asarray(inputs)})
    return found[0] if len(found) == 1 else found


@functools.cache
def network(name):
    """A network with statistics of its own, its latents, and inputs."""
    model, shape, options = NETWORKS[name]
    module = models.create(model, 10, **options)
    rng = np.random.default_rng(0)
    if model in models.TEXT:
        inputs = rng.integers(0, 10, (3, *shape)).astype(np.uint8)
    else:
        inputs = rng.normal(size=(3, *shape)).astype(np.float32)

    shapes = jax.eval_shape(
        functools.partial(module.init, train=False), jax.random.key(0), inputs
    )
    variables = jax.tree.map(
        lambda leaf: rng.uniform(-1, 1, leaf.shape).astype(np.float32), shapes
    )
    params = variables.pop("params")
    return module, params, jax.tree.map(np.abs, variables), inputs


def expected(module, weights, state, inputs):
    apply = jax.jit(functools.partial(module.apply, train=False))
    return np.asarray(apply({"params": weights, **state}, inputs))


def close(found, wanted):
    """Sums in another order: some last places of the largest number."""
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_of_the_experiments_gives_its_logits(name):
    """With one-bit weights, and one example alone gives what it gives in a batch."""
    module, params, state, inputs = network(name)
    model = export.to_onnx(
        module,
        params,
        state,
        method=methods.adaste(steps=10),
        input_shape=inputs.shape[1:],
        input_dtype=inputs.dtype,
    )
    wanted = expected(module, adaste_jax.deploy(params), state, inputs)
    found = outputs(model, inputs)
    close(found, wanted)
    np.testing.assert_allclose(
        outputs(model, inputs[:1]), found[:1], atol=1e-5 * np.abs(wanted).max()
    )


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("mlp", "scaled_sign"),
        ("mlp", "ternary_twn"),
        ("vgg_small", "scaled_sign"),
        ("vit", "ternary_absmean"),
    ],
)
def test_scaled_and_ternary_weights_stay_packed(model, name):
    module, params, state, inputs = network(model)
    method = methods.METHODS[name](steps=10)
    written = export.to_onnx(
        module, params, state, method=method, input_shape=inputs.shape[1:]
    )
    close(
        outputs(written, inputs), expected(module, method.deploy(params), state, inputs)
    )
    mask = jax.tree.leaves(method.where(params))
    large = {
        leaf.size
        for leaf, binary in zip(jax.tree.leaves(params), mask, strict=True)
        if binary and leaf.size >= _onnx_weights.LEAST
    }
    assert large
    for tensor in onnx.load_from_string(written).graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            assert np.prod(tensor.dims) not in large or "position" in tensor.name


def test_full_precision_is_exported_in_float32():
    module, params, state, inputs = network("mlp")
    model = export.to_onnx(
        module,
        params,
        state,
        method=methods.full_precision(steps=10),
        input_shape=(8, 8),
    )
    close(outputs(model, inputs), expected(module, params, state, inputs))
    assert len(model) > 4 * 64 * 32


def test_latents_without_a_method_are_warned_of():
    module, params, state, _ = network("mlp")
    with pytest.warns(UserWarning, match="latents"):
        export.to_onnx(module, params, state, input_shape=(8, 8))


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
    close(outputs(model, x), x @ weights)


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


def test_a_model_says_its_names_and_the_batch_is_free(tmp_path):
    path = tmp_path / "model.onnx"
    weights = np.ones((4, 3), np.float32)
    data = export.to_onnx(
        lambda weights, x: (x @ weights, x.sum(-1)),
        weights,
        input_shape=(4,),
        path=path,
        metadata={"classes": ["a", "b", "c"]},
        method=methods.full_precision(steps=1),
    )
    assert path.read_bytes() == data
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape) for i in session.get_inputs()] == [
        ("input", ["batch", 4])
    ]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [
        ("output_0", ["batch", 3]),
        ("output_1", ["batch"]),
    ]
    stored = session.get_modelmeta().custom_metadata_map
    assert json.loads(stored["classes"]) == ["a", "b", "c"]


def test_bfloat16_networks_are_exported_in_float32():
    module, params, state, inputs = network("mlp")
    half = module.clone(dtype=jnp.bfloat16)
    weights = adaste_jax.deploy(params)
    model = export.to_onnx(half, weights, state, input_shape=(8, 8))
    close(outputs(model, inputs), expected(module, weights, state, inputs))


def test_a_recurrent_network():
    class Reader(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.RNN(nn.GRUCell(16))(nn.Embed(20, 8)(x))
            return nn.Dense(4)(x[:, -1])

    x = np.random.default_rng(0).integers(0, 20, (3, 6)).astype(np.int32)
    params = Reader().init(jax.random.key(0), x)["params"]
    weights = adaste_jax.deploy(params)
    model = export.to_onnx(Reader(), weights, input_shape=(6,), input_dtype=np.int32)
    close(outputs(model, x), np.asarray(Reader().apply({"params": weights}, x)))


def test_what_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="finite"):
        export.to_onnx(lambda p, x: x * p, jnp.array([jnp.nan]), input_shape=(1,))
