"""ONNX models: ONNX Runtime gives the logits of JAX, from one bit a weight."""

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from flax import linen as nn
from flax import nnx

import adaste_jax
from adaste_jax import estimators, export, methods
from adaste_jax.export import _onnx_weights
from adaste_jax.nn import linen
from experiments import errors, models
from experiments import export as command
from experiments.configs import base
from experiments.deployment import deployed
from experiments.training import loop
from tests.experiments import test_loop

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
    "decoder": (
        "decoder",
        (12,),
        {"width": 16, "depth": 1, "heads": 4, "kv_heads": 2, "tied": False},
    ),
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


def test_a_model_says_its_names_and_the_batch_is_free(tmp_path):
    path = tmp_path / "model.onnx"
    weights = np.ones((4, 3), np.float32)
    data = export.to_onnx(
        lambda weights, x: (x @ weights, x.sum(-1)),
        weights,
        input_shape=(np.prod([2, 2]),),  # an integer of NumPy
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


def test_outputs_that_are_equal_the_input_or_a_constant():
    """And parameters with the name of an output."""

    def network(params, x):
        y = x @ params["output"]
        return y, y, x, params["output"][0]

    weights = {"output": np.ones((4, 3), np.float32)}
    method = methods.full_precision(steps=1)
    model = export.to_onnx(network, weights, input_shape=(4,), method=method)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    wanted = [x.sum(1, keepdims=True) * np.ones(3)] * 2 + [x, np.ones(3)]
    for found, expected in zip(outputs(model, x), wanted, strict=True):
        np.testing.assert_array_equal(found, expected)


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


def test_the_command_writes_a_model_that_takes_raw_images(tmp_path):
    config = base.get_config()
    config.update(num_epochs=1, num_train=200, batch_size=64, method="ste")
    config.model_options.features = (16,)
    with test_loop.undrawn():
        loop.train_and_evaluate(config.lock(), tmp_path / "run")
    out, model = tmp_path / "m.safetensors", tmp_path / "folder" / "m.onnx"
    report = command.export_run(tmp_path / "run", out, onnx=model, num_test=50)
    assert report["onnx"]["bytes"] == model.stat().st_size
    found = report["paths"]["onnx"]
    assert found["largest_difference"] < 1e-4
    assert found["other_predictions"] == 0
    (entered,) = onnxruntime.InferenceSession(
        model, providers=["CPUExecutionProvider"]
    ).get_inputs()
    assert entered.type == "tensor(uint8)"


def test_layers_that_hold_their_estimator_are_packed():
    """Weights are computed from latents inside of the network, and then known."""

    class Binary(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = linen.BinaryDense(64, estimator=estimators.scaled_sign)(x)
            x = nn.relu(nn.LayerNorm()(x))
            return linen.BinaryDense(32, estimator=estimators.ternary_absmean)(x)

    x = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    params = Binary().init(jax.random.key(0), x)["params"]
    model = export.to_onnx(Binary(), params, input_shape=(64,))
    close(outputs(model, x), np.asarray(Binary().apply({"params": params}, x)))
    stored = {
        tuple(tensor.dims)
        for tensor in onnx.load_from_string(model).graph.initializer
        if tensor.data_type == onnx.TensorProto.UINT8
    }
    assert {(64 * 64 // 8, 1), (64 * 32 // 4, 1)} <= stored


def test_an_nnx_module_with_its_method():
    model = nnx.Sequential(nnx.Linear(32, 48, rngs=nnx.Rngs(0)), nnx.relu)
    x = np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)
    params, method = nnx.state(model, nnx.Param), methods.adaste(steps=5)
    written = export.to_onnx(model, params, method=method, input_shape=(32,))
    nnx.update(model, method.deploy(params))
    close(outputs(written, x), np.asarray(model(x)))


@pytest.mark.parametrize(
    ("approximate", "fused"), [(True, "FastGelu"), (False, "Gelu")]
)
def test_gelu_is_one_operation_in_onnx_runtime(tmp_path, approximate, fused):
    """It is written in operations of ONNX, in the order that ONNX Runtime looks for."""
    x = np.linspace(-6, 6, 1000, dtype=np.float32)[:, None]
    gelu = functools.partial(jax.nn.gelu, approximate=approximate)
    model = export.to_onnx(
        lambda _, x: 2 * gelu(jnp.abs(x)),
        {},
        input_shape=(1,),
        method=methods.full_precision(steps=1),
    )
    domains = {node.domain for node in onnx.load_from_string(model).graph.node}
    assert domains == {""}
    np.testing.assert_allclose(outputs(model, x), 2 * gelu(np.abs(x)), atol=2e-6)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    assert [node.op_type for node in graph.node] == ["Abs", fused, "Mul"]


def test_an_engine_that_is_missing_or_refuses_a_model_is_named(monkeypatch):
    with pytest.raises(errors.RunError, match=r"needs onnxruntime 1\.24 or newer"):
        deployed.onnx_network(b"of another time")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(errors.RunError, match=r"pip install .adaste_jax\[onnx\]"):
        deployed.onnx_network(b"")
