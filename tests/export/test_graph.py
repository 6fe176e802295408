"""The graph of a network computes what the network does, in few known operations."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from adaste_jax import export
from adaste_jax.export import _graph, _graph_ops


def traced(function, x):
    """The graph of a function without parameters, of inputs with a batch."""
    return _graph.trace(
        lambda _, inputs: function(inputs), {}, input_shape=x.shape[1:],
        input_dtype=x.dtype,
    )  # fmt: skip


def operations(graph):
    return collections.Counter(node.op for node in graph.nodes)


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def recurrent(x):
    def step(carry, row):
        carry = jnp.tanh(0.5 * carry + row)
        return carry, carry**2

    last, rows = jax.lax.scan(step, x[:, 0], jnp.moveaxis(x, 1, 0))
    back, _ = jax.lax.scan(step, last, jnp.moveaxis(x, 1, 0), reverse=True)
    return jnp.moveaxis(rows, 0, 1) + back[:, None]


FUNCTIONS = {
    "slices": (lambda x: x[:, 1:4, ::2] + x[:, -1:, 2:], (6, 4)),
    "row": (lambda x: x[:, 2] * x[:, -1], (6, 4)),
    "grid": (lambda x: x[:, 0:4:2, 1:4:2], (4, 4, 3)),
    "rows out of order": (lambda x: x[:, jnp.array([3, 0, 0])], (4, 2)),
    "stack": (lambda x: jnp.stack([x, 2 * x, -x], axis=2), (4, 2)),
    "reversed": (lambda x: x[:, ::-1] - jnp.flip(x, -1), (4, 2)),
    "split": (lambda x: sum(jnp.split(x, 3, axis=-1)), (2, 6)),
    "class token": (
        lambda x: jnp.concatenate([jnp.ones((x.shape[0], 1, 4)), x], axis=1),
        (3, 4),
    ),
    "merged batch": (
        lambda x: (x.reshape(-1, 4) @ jnp.eye(4, 3)).reshape(x.shape[0], -1), (5, 4)),
    "pad": (
        lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0)), constant_values=3.0), (3, 2)),
    "einsum": (
        lambda x: jnp.einsum("bqhd,bkhd->bhqk", x, x[:, :2]), (4, 3, 5)),
    "weights first": (
        lambda x: jnp.einsum("oi,bti->bot", jnp.arange(12.0).reshape(3, 4), x), (5, 4)),
    "softmax of a mask": (
        lambda x: jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((4, 4), bool)), x, -1e9)),
        (4, 4),
    ),
    "activations": (
        lambda x: jax.nn.gelu(x, approximate=False) + jax.nn.softplus(x)
        + jax.nn.silu(x) + jax.nn.elu(x) + jax.nn.hard_swish(x)
        + jnp.round(2 * x) + jnp.sign(x),
        (7,),
    ),
    "numbers": (
        lambda x: jnp.abs(x) ** 1.5 / (1 + jnp.exp2(x)) - jax.lax.rsqrt(x * x + 1)
        + jnp.clip(x, -0.5, 0.5) + x**4 + x**-2 + jnp.log1p(x * x) + jnp.expm1(-x * x),
        (7,),
    ),
    "logic": (
        lambda x: jnp.where((x > 0) & ~(x >= 1) | (x != x), x.astype(int) // 2, 3),
        (7,),
    ),
    "extremes": (
        lambda x: x.argmax(-1) + x.argmin(-1) + x.max(-1) - x.min(-1), (3, 7)),
    "scan": (recurrent, (4, 3)),
    "remat": (jax.checkpoint(lambda x: jnp.sin(x) * jnp.cos(x)), (3,)),
    "average pool": (
        lambda x: nn.avg_pool(x, (3, 3), (2, 2), "SAME", count_include_pad=False),
        (6, 6, 2),
    ),
    "max pool": (lambda x: nn.max_pool(x, (3, 2), (2, 1), ((1, 1), (0, 0))), (6, 6, 2)),
    "mean over the broadcast": (
        lambda x: jnp.broadcast_to(x[:, None], (*x.shape[:1], 5, 4)).sum(1), (4,)),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_graph_computes_what_the_function_does(name):
    """For a batch that the trace knew nothing of."""
    function, shape = FUNCTIONS[name]
    x = draw(3, *shape)
    graph = traced(function, x)
    (found,) = _graph_ops.run(graph, x)
    expected = np.asarray(function(jnp.asarray(x)))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    assert not {node.op for node in graph.nodes} - _graph_ops.FUNCTIONS.keys()


def test_specs_say_the_shape_and_dtype_of_every_value():
    x = draw(3, 4, 4)
    graph = traced(lambda x: jax.nn.softmax(x @ x.mT).reshape(x.shape[0], -1) > 0.1, x)
    values = {**graph.constants, graph.input: x}
    for node in graph.nodes:
        spec = graph.specs[node.output]
        attributes = dict(node.attributes)
        if "shape" in attributes:
            attributes["shape"] = _graph_ops.resolve(attributes["shape"], 3)
        inputs = [values[name] for name in node.inputs]
        value = _graph_ops.evaluate(node.op, inputs, attributes)
        assert value.shape == _graph_ops.resolve(spec.shape, 3)
        assert value.dtype == spec.dtype
        values[node.output] = value
    assert graph.specs[graph.outputs[0]] == (("batch", 16), np.bool_)


class Normed(nn.Module):
    """A convolution, batch norm with all its parameters, pools, a dense layer."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(4, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        halves = [x[:, i::2, j::2] for i in range(2) for j in range(2)]
        x = jnp.maximum(jnp.maximum(*halves[:2]), jnp.maximum(*halves[2:]))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


@functools.cache
def normed():
    network, x = Normed(), draw(2, 4, 4, 2)
    variables = jax.jit(network.init, static_argnames="train")(
        jax.random.key(0), x, train=False
    )
    variables = jax.tree.map(
        lambda leaf: leaf + jax.random.uniform(jax.random.key(1), leaf.shape), variables
    )
    state = {"batch_stats": variables["batch_stats"]}
    return network, variables["params"], state, x


def test_norms_are_folded_and_maxima_of_slices_are_a_pool():
    network, params, state, x = normed()
    graph = _graph.trace(network, params, state, input_shape=(4, 4, 2))
    assert [node.op for node in graph.nodes] == [
        *("conv", "mul", "add", "max", "max_pool", "reshape", "matmul", "add")
    ]
    (found,) = _graph_ops.run(graph, x)
    expected = jax.jit(network.apply, static_argnames="train")(
        {"params": params, **state}, x, train=False
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_weights_keep_their_paths_and_nodes_their_modules():
    network, params, state, _ = normed()
    graph = _graph.trace(network, params, state, input_shape=(4, 4, 2))
    conv, dense = (
        next(node for node in graph.nodes if node.op == op) for op in ("conv", "matmul")
    )
    assert conv.inputs[1] == "Conv_0/kernel"
    assert dense.inputs[1] == "Dense_0/kernel"
    assert (graph.constants["Dense_0/kernel"] == params["Dense_0"]["kernel"]).all()
    assert conv.where == "Normed/Conv_0"
    assert {"Dense_0/bias", "Conv_0/kernel"} <= graph.constants.keys()


def test_a_maximum_of_other_slices_is_no_pool():
    x = draw(2, 6, 6, 1)
    for function in (
        lambda x: jnp.maximum(x[:, 0:4:2], x[:, 2::2]),  # not neighbours
        lambda x: jnp.maximum(x[:, 0::2], x[:, 0::2] + 1),
        lambda x: jnp.maximum(x[:, 0:4:2], x[:, 1:4:2]),  # not the whole image
    ):
        graph = traced(function, x)
        assert "max_pool" not in operations(graph)
        np.testing.assert_allclose(_graph_ops.run(graph, x)[0], function(x))


def test_a_value_used_twice_keeps_its_scale_and_shift():
    x = draw(2, 3)
    graph = traced(lambda x: ((x * 2 + 1) - 3) * (x * 2), x)
    expected = (x * 2 - 2) * (x * 2)
    np.testing.assert_allclose(_graph_ops.run(graph, x)[0], expected, rtol=1e-6)

    def shared(x):
        y = x * 2 + 1
        return y * 3 + jnp.tanh(y)

    graph = traced(shared, x)
    np.testing.assert_allclose(_graph_ops.run(graph, x)[0], shared(x), rtol=1e-6)


def test_an_nnx_module_brings_its_state():
    model = nnx.Sequential(
        nnx.Linear(3, 5, rngs=nnx.Rngs(0)), nnx.BatchNorm(5, rngs=nnx.Rngs(0)), nnx.relu
    )
    x = draw(4, 3)
    graph = _graph.trace(model, nnx.state(model, nnx.Param), input_shape=(3,))
    model.eval()
    np.testing.assert_allclose(_graph_ops.run(graph, x)[0], model(x), atol=1e-6)


def test_several_outputs_and_an_output_that_is_known():
    x = draw(2, 3)
    graph = traced(lambda x: {"a": x + 1, "b": jnp.ones((x.shape[0], 2))}, x)
    first, second = _graph_ops.run(graph, x)
    np.testing.assert_allclose(first, x + 1)
    assert second.tolist() == [[1.0, 1.0]] * 2


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: jnp.sort(x, axis=-1), ("'sort'", "test_graph.py")),
        (lambda x: jnp.cumsum(x, axis=-1), ("'cumsum'", "test_graph.py")),
        (lambda x: x + jnp.arange(x.shape[0], dtype=x.dtype)[:, None], ("batch",)),
        (lambda x: x[::-1], ("batch",)),
        (lambda x: x.astype(jnp.uint8), ("uint8",)),
        (lambda x: jax.lax.conv_transpose(
            x[:, :, None], jnp.ones((2, 1, 1)), (2,), "SAME"),
         ("transposed convolution",)),
    ],
)  # fmt: skip
def test_an_unknown_operation_is_named_with_its_line(function, words):
    with pytest.raises(export.UnsupportedError) as error:
        traced(function, draw(2, 4))
    for word in words:
        assert word in str(error.value)


def test_an_unknown_operation_is_named_with_its_module():
    class Odd(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Sequential([nn.Dense(4), lambda y: jnp.sort(y, axis=-1)])(x)

    params = Odd().init(jax.random.key(0), draw(1, 3))["params"]
    with pytest.raises(export.UnsupportedError, match="'Odd/Sequential_0'"):
        _graph.trace(Odd(), params, input_shape=(3,))


@pytest.mark.parametrize(
    ("layer", "kept"),
    [
        (nn.LayerNorm(), {"layer_norm": 1, "add": 1}),
        (nn.LayerNorm(use_bias=False, use_fast_variance=False), {"layer_norm": 1}),
        (nn.LayerNorm(use_scale=False, use_bias=False, epsilon=0.1), {"layer_norm": 1}),
        (nn.LayerNorm(reduction_axes=1, feature_axes=1, use_bias=False), None),
        (nn.GroupNorm(2), None),
        (nn.RMSNorm(), None),
        (jax.nn.softmax, {"softmax": 1}),
        (jax.nn.gelu, {"gelu_tanh": 1}),
        (functools.partial(jax.nn.gelu, approximate=False), {"gelu": 1}),
        (lambda x: jax.nn.softmax(x, axis=1), None),
    ],
)
def test_gelu_and_layer_norm_and_softmax_of_the_last_axis_are_one_operation(
    layer, kept
):
    x = draw(3, 4, 6)
    params = {}
    if isinstance(layer, nn.Module):
        shapes = jax.eval_shape(layer.init, jax.random.key(0), x)
        params = jax.tree.map(lambda s: draw(*s.shape), shapes).get("params", {})
        function = lambda params, x: layer.apply({"params": params}, x)
    else:
        function = lambda _, x: layer(x)
    graph = _graph.trace(function, params, input_shape=(4, 6))
    (found,) = _graph_ops.run(graph, x)
    np.testing.assert_allclose(found, function(params, x), rtol=1e-4, atol=1e-5)
    if kept is None:
        assert not {"layer_norm", "softmax"} & operations(graph).keys()
    else:
        assert operations(graph) == kept
