"""A network that others trained, made one-bit by the notebook `magika`.

The notebook runs; what it computes is compared with the package's own interface, with
its model in ONNX Runtime, and with the network in NumPy, in float64.
"""

import json

import numpy as np
import pytest

from tests.experiments import test_notebooks

magika = pytest.importorskip(
    "magika", reason="magika is not installed: the network is in that package"
)
onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra onnx)")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

pytestmark = pytest.mark.slow

SOME = slice(None, None, 4)  # the files that NumPy looks at

# Hands over what the notebook has in the end.
LAST = """
from flax import traverse_util

out = pathlib.Path(WORKDIR)
out.mkdir()
(out / "float.onnx").write_bytes(float_model)
(out / "one_bit.onnx").write_bytes(model)
(out / "texts.json").write_text(json.dumps([[str(file) for file in files], kinds]))
arrays = {"tokens": tokens, "trained_on": training}
arrays["signs"] = run(ship(begin(0)), tokens)
arrays["logits"] = apply(params, tokens)
arrays["shipped_logits"] = apply(shipped, tokens)
for name, tree in {"float": params, "shipped": shipped}.items():
    flat = traverse_util.flatten_dict(tree, sep="/")
    arrays |= {f"{name}/{path}": leaf for path, leaf in flat.items()}
np.savez(out / "arrays.npz", **arrays)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the notebook computes: arrays, and the folder with the models."""
    folder = tmp_path_factory.mktemp("magika")
    test_notebooks.run("magika", folder, last=LAST)
    files, kinds = json.loads((folder / "run" / "texts.json").read_text())
    with np.load(folder / "run" / "arrays.npz") as arrays:
        return {
            **arrays,
            "files": files,
            "kinds": np.array(kinds),
            "folder": folder / "run",
        }


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def norm(x, axis):
    centred = x - x.mean(axis, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(axis, keepdims=True) + 1e-6)


def reference(found, name):
    """Logits of the network in NumPy, from one-hot vectors, in float64."""

    def of(path):
        return found[f"{name}/{path}"].astype(np.float64)

    logits = []
    for tokens in found["tokens"][SOME]:
        hidden = np.eye(257)[tokens] @ of("Dense_0/kernel") + of("Dense_0/bias")
        places = norm(gelu(hidden).reshape(512, 256), 0)
        places *= of("LayerNorm_0/scale")[:, None]
        places += of("LayerNorm_0/bias")[:, None]
        windows = np.concatenate([places[i : 508 + i] for i in range(5)], axis=1)
        kernel = of("Conv_0/kernel").reshape(5 * 256, 512)
        channels = gelu(windows @ kernel + of("Conv_0/bias")).max(0)
        channels = norm(channels, 0) * of("LayerNorm_1/scale") + of("LayerNorm_1/bias")
        logits.append(channels @ of("Dense_1/kernel") + of("Dense_1/bias"))
    return np.array(logits)


def test_the_network_is_that_of_the_package(found):
    """Up to the rounding of float32, and of the package's one-pass variance there."""
    model = onnx.load(found["folder"] / "float.onnx")
    (last,) = [
        node.input[0] for node in model.graph.node if node.op_type == "ReduceMax"
    ]
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(last))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    _, there = session.run(None, {"bytes": found["tokens"]})
    expected = reference(found, "float")
    np.testing.assert_allclose(found["logits"][SOME], expected, atol=5e-3)
    np.testing.assert_allclose(there[SOME], expected, atol=0.3)
    np.testing.assert_allclose(found["logits"], there, atol=0.3)


def test_files_are_read_as_the_package_reads_them(found):
    results = magika.Magika().identify_paths(found["files"])
    scores = softmax(found["logits"]).max(-1)
    assert len(results) == len(scores) > 20
    for result, score, logits in zip(results, scores, found["logits"], strict=True):
        assert result.prediction.score == pytest.approx(score, abs=0.05)
        if score > 0.6:  # of two close ones, rounding may choose
            assert result.prediction.dl.label == found["kinds"][logits.argmax()]


def test_the_large_convolution_is_shipped_with_one_bit_a_weight(found):
    kernel = np.abs(found["shipped/Conv_0/kernel"])
    scales = kernel.max((0, 1))
    np.testing.assert_array_equal(kernel, np.broadcast_to(scales, kernel.shape))
    assert len(np.unique(scales)) > 500
    model = onnx.load(found["folder"] / "one_bit.onnx")
    sizes = {tensor.name: tensor.ByteSize() for tensor in model.graph.initializer}
    assert kernel.size / 8 < sizes["Conv_0/kernel.packed"] < kernel.size / 8 + 100
    small, large = (
        (found["folder"] / f"{name}.onnx").stat().st_size
        for name in ("one_bit", "float")
    )
    assert small < large / 5


def test_onnx_runtime_gives_the_logits_of_the_shipped_network(found):
    session = onnxruntime.InferenceSession(found["folder"] / "one_bit.onnx")
    (there,) = session.run(None, {"input": found["tokens"]})
    expected = reference(found, "shipped")
    np.testing.assert_allclose(found["shipped_logits"][SOME], expected, atol=5e-3)
    np.testing.assert_allclose(there, found["shipped_logits"], atol=1e-2)


def test_training_brings_the_logits_nearer_to_those_of_the_float_network(found):
    """Nearer than the signs and scales of the float weights, after a few steps."""

    def distance(logits):  # the constant that softmax drops does not count
        return np.var(logits - found["logits"], axis=-1)[found["trained_on"]].mean()

    assert distance(found["shipped_logits"]) < 0.9 * distance(found["signs"])
