"""The serialised program: packed inside, any batch size, JAX alone to run it."""

import hashlib
import importlib.util
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import adaste_jax
from adaste_jax import estimators, export


class Network(nn.Module):
    """A convolution, batch normalisation and two dense layers."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(16, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.Dense(256)(x.reshape(x.shape[0], -1))
        return nn.Dense(10, use_bias=False)(nn.relu(x))


def forward(params, model_state, images):
    return Network().apply({"params": params, **model_state}, images)


@pytest.fixture(scope="module")
def network():
    """Parameters, model state, images, and the logits of the deployed network."""
    images = jax.random.normal(jax.random.key(0), (3, 12, 12, 3))
    variables = jax.jit(Network().init)(jax.random.key(1), images)
    params, state = variables["params"], {"batch_stats": variables["batch_stats"]}
    logits = forward(adaste_jax.deploy(params), state, images)
    return params, state, images, logits


@pytest.fixture(scope="module")
def written(network, tmp_path_factory):
    params, state, _, _ = network
    path = tmp_path_factory.mktemp("program") / "model.stablehlo"
    data = export.to_stablehlo(
        forward, params, state, input_shape=(12, 12, 3), path=path, metadata={"a": 1}
    )
    assert path.read_bytes() == data
    return path


def test_it_holds_one_bit_for_each_binary_weight(network, written):
    """And no weight in floating point, before and after compilation."""
    params, state, images, _ = network
    counts = {True: 0, False: 0}
    mask = adaste_jax.kernels()(params)
    for binary, leaf in zip(
        jax.tree.leaves(mask), jax.tree.leaves(params), strict=True
    ):
        counts[binary] += leaf.size
    counts[False] += sum(x.size for x in jax.tree.leaves(state))
    needed = counts[True] / 8 + 4 * counts[False]
    size = written.stat().st_size
    assert needed < size < needed + 20_000  # the program itself
    program = jax.jit(export.packed_forward(forward, params, state))
    compiled = program.lower(images).compile().as_text()
    rows, columns = params["Dense_0"]["kernel"].shape
    assert f"u8[{rows // 8},{columns}]" in compiled
    for line in compiled.splitlines():
        if " constant(" in line and "f32[" in line:
            dims = line.split("f32[")[1].split("]")[0]
            assert np.prod([int(d) for d in dims.split(",") if d], initial=1) <= 256


def test_it_runs_without_the_library_for_any_batch_size(network, written, tmp_path):
    _, _, images, logits = network
    np.save(tmp_path / "images.npy", images)
    code = f"""
import sys
import jax, jax.export, numpy
images = numpy.load({str(tmp_path / "images.npy")!r})
with open({str(written)!r}, "rb") as file:
    program = jax.export.deserialize(bytearray(file.read()))
numpy.save({str(tmp_path / "three.npy")!r}, program.call(images))
numpy.save({str(tmp_path / "one.npy")!r}, program.call(images[1:2]))
assert not {{"adaste_jax", "flax"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    for name, expected in (("three", logits), ("one", logits[1:2])):
        outputs = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-3)
        np.testing.assert_array_equal(outputs.argmax(1), expected.argmax(1))


def test_the_file_beside_it_says_what_is_needed(written):
    described = json.loads(written.with_name("model.stablehlo.json").read_text())
    assert described["jax"] == jax.__version__
    assert described["platforms"] == ["cpu", "cuda", "tpu"]
    assert described["input"] == ["float32[batch,12,12,3]"]
    assert described["output"] == ["float32[batch,10]"]
    assert described["sha256"] == hashlib.sha256(written.read_bytes()).hexdigest()
    assert described["metadata"] == {"a": 1}


def test_a_function_without_model_state_and_real_leaves_among_binary_ones():
    params = {"kernel": jnp.array([[0.3, -2.0], [-0.1, 0.0]]), "bias": jnp.ones((1, 2))}
    data = export.to_stablehlo(
        lambda params, x: x.astype(jnp.float32) @ params["kernel"] + params["bias"],
        params,
        input_shape=(2,),
        input_dtype=jnp.uint8,
        platforms=("cpu",),
    )
    program = jax.export.deserialize(bytearray(data))
    x = np.array([[1, 3]], np.uint8)
    np.testing.assert_array_equal(program.call(x), [[-1.0, 3.0]])


@pytest.mark.parametrize("deploy", [estimators.scaled_sign, estimators.ternary_absmean])
def test_weights_with_a_scale_and_ternary_ones_are_packed_too(deploy):
    params = {"kernel": jax.random.normal(jax.random.key(0), (250, 400))}
    data = export.to_stablehlo(
        lambda params, x: x @ params["kernel"],
        params,
        input_shape=(250,),
        deploy=deploy,
        platforms=("cpu",),
    )
    assert len(data) < 100_000 / 5 + 10_000
    x = jax.random.normal(jax.random.key(1), (2, 250))
    expected = x @ deploy(params["kernel"])
    outputs = jax.export.deserialize(bytearray(data)).call(x)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-4)


def test_without_flatbuffers_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"adaste_jax\[export\]"):
        export.to_stablehlo(lambda p, x: x, {"kernel": jnp.ones(2)}, input_shape=())


def test_importing_the_package_needs_neither_safetensors_nor_flatbuffers_nor_flax():
    code = """
import sys
for name in ("safetensors", "flatbuffers", "flax"):
    sys.modules[name] = None  # importing it is an error
import adaste_jax.export
"""
    subprocess.run([sys.executable, "-c", code], check=True)
