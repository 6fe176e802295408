"""State dicts of PyTorch: networks give the answers that they gave there."""

import jax
import numpy as np
import pytest
from flax import linen, nnx

import adaste_jax


@pytest.fixture(scope="module")
def torch():
    reason = "needs PyTorch: pip install torch"
    return pytest.importorskip("torch", reason=reason)


def draw(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


class Convolutional(linen.Module):
    """Every trap of a small network: see `convolutional`."""

    @linen.compact
    def __call__(self, images):
        x = linen.Conv(8, (3, 3), padding=1)(images)
        x = linen.relu(linen.BatchNorm(use_running_average=True)(x))
        x = linen.Conv(8, (3, 3), strides=2, padding=1, feature_group_count=4)(x)
        x = linen.relu(x).reshape(len(x), -1)
        x = linen.LayerNorm(epsilon=1e-5)(linen.Dense(6)(x))
        return linen.Dense(3, use_bias=False)(x)


def convolutional(torch):
    nn = torch.nn
    there = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 3 * 4, 6),
        nn.LayerNorm(6),
        nn.Linear(6, 3, bias=False),
    )
    with torch.no_grad():
        for parameter in there.parameters():  # else norms are ones and zeros
            parameter.copy_(torch.randn_like(parameter))
    there(torch.from_numpy(draw(16, 2, 6, 8)))  # running statistics
    return there.eval()


NAMES = {
    **{"Conv_0": "0", "BatchNorm_0": "1", "Conv_1": "3"},
    **{"Dense_0": "6", "LayerNorm_0": "7", "Dense_1": "8"},
}


def test_a_convolutional_network_gives_the_same_answers(torch):
    there, images = convolutional(torch), draw(4, 6, 8, 2)
    network = Convolutional()
    like = jax.eval_shape(network.init, jax.random.key(0), images)
    variables = adaste_jax.from_torch(
        there.state_dict(), like, names=NAMES, flattened={"Dense_0": (8, 3, 4)}
    )
    assert jax.tree.map(lambda x: x.shape, variables) == jax.tree.map(
        lambda x: x.shape, like
    )
    expected = there(torch.from_numpy(images.transpose(0, 3, 1, 2))).detach().numpy()
    np.testing.assert_allclose(network.apply(variables, images), expected, atol=1e-5)


def test_a_module_of_nnx_gives_the_same_answers(torch):
    class Network(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List(
                nnx.Conv(*sizes, (3,), padding="VALID", rngs=rngs)
                for sizes in ((2, 4), (4, 4))
            )
            self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)

        def __call__(self, x):
            for layer in self.layers:
                x = nnx.relu(layer(x))
            return self.norm(x)

    class There(torch.nn.Module):
        def __init__(self):
            super().__init__()
            pairs = ((2, 4), (4, 4))
            self.layers = torch.nn.ModuleList(torch.nn.Conv1d(*p, 3) for p in pairs)
            self.bn = torch.nn.BatchNorm1d(4)

        def forward(self, x):
            for layer in self.layers:
                x = torch.relu(layer(x))
            return self.bn(x)

    there, model = There(), Network(nnx.Rngs(0))
    there(torch.from_numpy(draw(16, 2, 9)))
    there.eval()
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    nnx.update(
        model,
        adaste_jax.from_torch(there.state_dict(), state, names={"norm": "bn"}),
    )
    inputs = draw(3, 9, 2)
    expected = there(torch.from_numpy(inputs.transpose(0, 2, 1))).detach().numpy()
    np.testing.assert_allclose(model(inputs), expected.transpose(0, 2, 1), atol=1e-5)


def test_a_transposed_convolution_gives_the_same_answers(torch):
    kernel, stride, padding, extra = 3, 2, 1, 1
    there = torch.nn.ConvTranspose2d(
        4, 4, kernel, stride=stride, padding=padding, output_padding=extra
    )
    edge = kernel - 1 - padding
    network = linen.ConvTranspose(
        4, (kernel,) * 2, strides=(stride,) * 2, padding=((edge, edge + extra),) * 2
    )
    images = draw(2, 5, 6, 4)
    like = network.init(jax.random.key(0), images)
    params = adaste_jax.from_torch(there.state_dict(), like, transposed="")
    expected = there(torch.from_numpy(images.transpose(0, 3, 1, 2))).detach().numpy()
    np.testing.assert_allclose(
        network.apply(params, images), expected.transpose(0, 2, 3, 1), atol=1e-5
    )


class Attentive(linen.Module):
    """Attention to embeddings."""

    @linen.compact
    def __call__(self, tokens):
        x = linen.Embed(11, 12)(tokens)
        return linen.MultiHeadDotProductAttention(3, name="attention")(x)


def test_attention_and_embedding_give_the_same_answers(torch):
    class There(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(11, 12)
            self.mha = torch.nn.MultiheadAttention(12, 3, batch_first=True)
            with torch.no_grad():
                for parameter in self.parameters():  # biases start at zero
                    parameter.copy_(torch.randn_like(parameter))

        def forward(self, tokens):
            x = self.embed(tokens)
            return self.mha(x, x, x)[0]

    there, network = There(), Attentive()
    tokens = np.arange(10).reshape(2, 5) % 11
    params = adaste_jax.from_torch(
        there.state_dict(),
        network.init(jax.random.key(0), tokens)["params"],
        names={"Embed_0": "embed", "attention": "mha"},
    )
    found = network.apply({"params": params}, tokens)
    expected = there(torch.from_numpy(tokens)).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


# --- without PyTorch


LIKE = {
    "body": {
        "Dense_0": {
            "kernel": np.zeros((3, 2), np.float32),
            "bias": np.zeros(2, np.float32),
        }
    },
    "conv": {"kernel": np.zeros((3, 5, 2, 4), np.float16)},
}


def tensors():
    return {
        "net.0.weight": draw(2, 3),
        "net.0.bias": draw(2),
        "net.1.weight": draw(4, 2, 3, 5),
        "net.1.num_batches_tracked": np.int64(3),
    }


def test_layouts_entry_by_entry():
    there = tensors()
    names = {"": "net", "body": "net", "body/Dense_0": "net.0", "conv": "net.1"}
    found = adaste_jax.from_torch(there, LIKE, names=names)
    dense, conv = found["body"]["Dense_0"], found["conv"]["kernel"]
    assert conv.dtype == np.float16
    for place in np.ndindex(3, 2):
        assert dense["kernel"][place] == there["net.0.weight"][place[::-1]]
    for row, column, one, other in np.ndindex(3, 5, 2, 4):
        expected = np.float16(there["net.1.weight"][other, one, row, column])
        assert conv[row, column, one, other] == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("net.0.bias"), "'body/Dense_0/bias' needs 'net.0.bias'"),
        (lambda t: t.update(head=draw(2)), "not used: 'head'"),
        (
            lambda t: t.update({"net.0.weight": draw(3, 2)}),
            r"'net.0.weight' \[3, 2\] does not fit 'body/Dense_0/kernel' \[3, 2\]",
        ),
        (
            lambda t: t.update({"net.1.weight": draw(4, 2, 5, 3)}),
            r"'net.1.weight' \[4, 2, 5, 3\] does not fit 'conv/kernel'",
        ),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    there = tensors()
    change(there)
    names = {"body/Dense_0": "net.0", "conv": "net.1"}
    with pytest.raises(ValueError, match=message):
        adaste_jax.from_torch(there, LIKE, names=names)


@pytest.mark.parametrize("argument", ["names", "flattened", "transposed"])
def test_a_path_that_no_module_has_is_refused(argument):
    given = ["Dense_0"] if argument == "transposed" else {"Dense_0": "net.0"}
    with pytest.raises(ValueError, match=r"no module has the path 'Dense_0'.*body"):
        adaste_jax.from_torch(tensors(), LIKE, **{argument: given})


def test_what_is_no_array_is_named():
    class Elsewhere:
        def __array__(self, *_, **__):
            raise TypeError("it is on another device")

    there = {**tensors(), "net.0.bias": Elsewhere()}
    names = {"body/Dense_0": "net.0", "conv": "net.1"}
    with pytest.raises(ValueError, match=r"'net.0.bias' cannot be read.*\.cpu\(\)"):
        adaste_jax.from_torch(there, LIKE, names=names)


def test_a_shape_that_was_not_flattened_is_refused():
    like = {"dense": {"kernel": np.zeros((12, 2), np.float32)}}
    there = {"dense.weight": draw(2, 12)}
    with pytest.raises(ValueError, match="does not fit 'dense/kernel'"):
        adaste_jax.from_torch(there, like, flattened={"dense": (3, 2, 3)})
