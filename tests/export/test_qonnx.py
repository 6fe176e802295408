"""QONNX models: its executor, and a simulation of the hardware, give JAX's logits."""

import pathlib
import shutil

import numpy as np
import onnx
import pytest

import adaste_jax
from adaste_jax import datasets, estimators, export, methods
from experiments import models
from tests.export import test_onnx

DEMO = pathlib.Path(__file__).parents[2] / "docs" / "demo"
needs_qonnx = "qonnx is not installed: pip install adaste_jax[fpga]"


def read(data):
    """A model as its tools see it after cleaning up, with the datatypes they infer."""
    wrapper = pytest.importorskip("qonnx.core.modelwrapper", reason=needs_qonnx)
    from qonnx.transformation.infer_datatypes import InferDataTypes
    from qonnx.util import cleanup

    model = wrapper.ModelWrapper(onnx.load_from_string(data))
    return cleanup.cleanup_model(model).transform(InferDataTypes())


def outputs(model, inputs):
    from qonnx.core import onnx_exec

    return onnx_exec.execute_onnx(model, {"global_in": inputs})["global_out"]


def types(model):
    """The datatypes of the weights."""
    return {
        str(model.get_tensor_datatype(node.output[0]))
        for node in model.graph.node
        if node.domain.startswith("qonnx")
    }


@pytest.mark.parametrize("name", ["mlp", "vgg_small", "resnet18"])
def test_its_executor_gives_the_logits(name):
    module, params, state, inputs = test_onnx.network(name)
    data = export.to_qonnx(
        module,
        params,
        state,
        method=methods.adaste(steps=10),
        input_shape=inputs.shape[1:],
        batch_size=len(inputs),
    )
    model = read(data)
    weights = adaste_jax.deploy(params)
    wanted = test_onnx.expected(module, weights, state, inputs)
    test_onnx.close(outputs(model, inputs), wanted)
    assert types(model) == {"DataType.BIPOLAR"} or types(model) == {"BIPOLAR"}


@pytest.mark.parametrize("name", ["scaled_sign", "ternary_twn"])
def test_scaled_and_ternary_weights(name):
    module, params, state, inputs = test_onnx.network("mlp")
    method = methods.METHODS[name](steps=10)
    data = export.to_qonnx(
        module, params, state, method=method, input_shape=inputs.shape[1:]
    )
    model = read(data)
    wanted = test_onnx.expected(module, method.deploy(params), state, inputs[:1])
    test_onnx.close(outputs(model, inputs[:1]), wanted)
    kinds = {node.op_type for node in onnx.load_from_string(data).graph.node}
    assert ("Quant" in kinds, "BipolarQuant" in kinds) == (
        name == "ternary_twn",
        name == "scaled_sign",
    )


def test_shapes_are_fixed_and_convolutions_written_out():
    module, params, state, inputs = test_onnx.network("vgg_small")
    data = export.to_qonnx(
        module,
        adaste_jax.deploy(params),
        state,
        input_shape=inputs.shape[1:],
        metadata={"classes": 10},
    )
    graph = onnx.load_from_string(data).graph
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_value == 1
    assert not {"Shape", "Concat"} & {node.op_type for node in graph.node}
    found = [node for node in graph.node if node.op_type == "Conv"]
    assert found
    for node in found:
        given = {attribute.name for attribute in node.attribute}
        assert {"strides", "dilations", "group", "pads", "kernel_shape"} <= given


def test_groups_are_refused_and_a_file_stays(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")
    latent = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    weights = {"dense": estimators.per_group(estimators.scaled_sign, 32)(latent)}
    with pytest.raises(export.UnsupportedError, match=r"'dense'.*group"):
        export.to_qonnx(
            lambda weights, x: x @ weights["dense"],
            weights,
            input_shape=(64,),
            path=path,
        )
    with pytest.raises(ValueError, match="batch_size"):
        export.to_qonnx(lambda w, x: x, {}, input_shape=(1,), batch_size=0)
    assert path.read_bytes() == b"before"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of hls4ml
def test_the_simulation_of_hls4ml_gives_the_predictions_on_the_digits(tmp_path):
    """Its C++ is compiled by g++ alone; a weight is one bit in it."""
    hls4ml = pytest.importorskip("hls4ml", reason=needs_qonnx)
    if not shutil.which("g++"):
        pytest.skip("no g++")
    loaded = export.load(DEMO / "digits.safetensors")
    options = loaded.metadata["architecture"]["options"]
    network = models.create("mlp", 10, **options)
    model = read(
        export.to_qonnx(network, loaded.params, loaded.model_state, input_shape=(64,))
    )
    config = hls4ml.utils.config_from_onnx_model(
        model,
        granularity="name",
        backend="Vitis",
        default_precision="ap_fixed<32,16>",
    )
    built = hls4ml.converters.convert_from_onnx_model(
        model,
        output_dir=str(tmp_path / "hls"),
        io_type="io_parallel",
        backend="Vitis",
        hls_config=config,
    )
    stored = [
        str(layer.weights["weight"].type.precision)
        for layer in built.get_layers()
        if "weight" in layer.weights
    ]
    assert stored == ["uint<1>"] * 3
    built.compile()
    images, _ = datasets.digits()["test"]
    x = images.reshape(len(images), -1).astype(np.float32) / 16
    variables = {"params": loaded.params, **loaded.model_state}
    wanted = np.asarray(network.apply(variables, x, train=False))
    found = built.predict(np.ascontiguousarray(x))
    assert (found.argmax(-1) == wanted.argmax(-1)).all()
    np.testing.assert_allclose(found, wanted, atol=2e-3)  # 16 bits after the point
