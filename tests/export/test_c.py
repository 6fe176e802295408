"""C sources compute what JAX does: compiled, with every warning, by gcc."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import adaste_jax
from adaste_jax import estimators, export, methods
from adaste_jax.nn import linen
from tests.export import compilers, test_graph, test_onnx

pytestmark = compilers.needs_gcc
REAL = methods.full_precision(steps=1)


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def signs(*shape):
    return np.random.default_rng(1).choice([-1.0, 1.0], shape).astype(np.float32)


def agrees(function, x, folder, *, params=None, method=REAL, atol=2e-6):
    """Compiles a function of one argument, or of parameters too; returns its sources.

    The tolerance is that of sums of float32 in another order, relative to the largest
    output.
    """
    call = (lambda _, x: function(x)) if params is None else function
    sources = export.to_c(
        call, params, input_shape=x.shape[1:], input_dtype=x.dtype, method=method
    )
    weights = params if params is None or method is None else method.deploy(params)
    wanted = np.asarray(jax.jit(call)(weights, x), np.float32)
    wanted = wanted.reshape(-1, wanted.shape[-1] if wanted.ndim > 1 else 1)
    index, found = compilers.outputs(sources, x, folder)
    assert found.shape == wanted.shape
    finite = wanted[np.isfinite(wanted)]
    scale = np.abs(finite).max(initial=1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol * scale)
    np.testing.assert_array_equal(index, found.argmax(-1))
    return sources


def defined(sources, name):
    """The number that a header defines."""
    lines = map(str.split, sources["network.h"].splitlines())
    (found,) = [int(line[2]) for line in lines if line[1:2] == [f"NETWORK_{name}"]]
    return found


@pytest.mark.parametrize("name", test_onnx.NETWORKS)
def test_every_network_of_the_experiments_gives_its_logits(name, tmp_path):
    module, params, state, inputs = test_onnx.network(name)
    weights = adaste_jax.deploy(params)
    sources = export.to_c(
        module,
        params,
        state,
        method=methods.adaste(steps=10),
        input_shape=inputs.shape[1:],
        input_dtype=inputs.dtype,
    )
    wanted = test_onnx.expected(module, weights, state, inputs)
    wanted = wanted.reshape(-1, wanted.shape[-1])
    index, found = compilers.outputs(sources, inputs, tmp_path)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())
    np.testing.assert_array_equal(index, wanted.argmax(-1))


KNOWN = set(test_graph.FUNCTIONS) - {"activations", "numbers", "logic", "remat"}


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_operations(name, tmp_path):
    function, shape = test_graph.FUNCTIONS[name]
    agrees(function, draw(3, *shape), tmp_path)


def test_activations(tmp_path):
    x = np.concatenate([3 * draw(3, 300), 40 * draw(3, 300)], axis=1)
    functions = (
        nn.relu, nn.hard_tanh, nn.sigmoid, nn.tanh, nn.gelu, nn.silu, nn.relu6,
        nn.leaky_relu, nn.hard_swish, nn.elu, jnp.sign, jnp.round, jnp.floor, jnp.ceil,
        lambda x: jnp.where(x >= 0, 1.0, -1.0), lambda x: jnp.abs(x) ** 2,
        lambda x: jnp.clip(x, -0.5, 0.25), lambda x: jnp.minimum(x, 1 - x),
        lambda x: jnp.maximum(2 * x, x), lambda x: -x / 3,
    )  # fmt: skip
    agrees(lambda x: jnp.stack([f(x) for f in functions], axis=1), x, tmp_path)


def test_numbers_at_the_ends_of_float32(tmp_path):
    """The functions of libm are the exporter's own: they end as those of JAX do."""
    ends = [0.0, -0.0, 1e-45, 1e-38, 0.5, 1.5, 2.5, -0.5, -2.5, 8388609.0, 1e30, 3e38]
    ends += [88.7, 89.5, -87.3, -103.9, -110.0, np.inf, -np.inf, np.nan, -1e30, 2e9]
    x = np.array([ends], np.float32)
    functions = {  # in JAX, and a reference in float64
        "exp": (jnp.exp, np.exp),
        "sqrt": (jnp.sqrt, np.sqrt),
        "tanh": (jnp.tanh, np.tanh),
        "sigmoid": (nn.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
        "round": (jnp.round, np.rint),
        "floor": (jnp.floor, np.floor),
        "relu": (lambda x: jnp.maximum(x, 0.0), lambda x: np.maximum(x, 0)),
        "smaller": (lambda x: jnp.minimum(x, -x), lambda x: np.minimum(x, -x)),
        "integer": (
            lambda x: x.astype(jnp.int32).astype(jnp.float32),
            lambda x: np.trunc(np.clip(np.nan_to_num(x, nan=0), -(2**31), 2**31)),
        ),
    }
    sources = export.to_c(
        lambda _, x: jnp.stack([f(x) for f, _ in functions.values()], axis=1),
        {},
        input_shape=x.shape[1:],
    )
    _, found = compilers.outputs(sources, x, tmp_path)
    found = found.reshape(len(functions), -1)
    for (name, (_, reference)), one in zip(functions.items(), found, strict=True):
        with np.errstate(all="ignore"):
            wanted = reference(x[0].astype(np.float64)).astype(np.float32)
        np.testing.assert_allclose(one, wanted, rtol=3e-6, atol=2e-7, err_msg=name)


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int16", "int32", "float64"]
)
def test_inputs_of_other_types(dtype, tmp_path):
    x = (100 * draw(4, 24)).astype(dtype)
    weights = signs(24, 5)
    agrees(
        lambda weights, x: (x.astype(jnp.float32) / 16 - 0.5) @ weights,
        x,
        tmp_path,
        params=weights,
        method=None,
    )


def test_whole_numbers_wrap_as_those_of_jax(tmp_path):
    def function(x):
        parts = [x + x, x * x, -x, jnp.abs(x), jnp.sign(x), jnp.maximum(x, -x), x - 3]
        parts += [x @ jnp.full((4, 4), 3)]
        parts += [jnp.broadcast_to(x.sum(-1, keepdims=True), x.shape)]
        return jnp.stack(parts, axis=1) == jnp.stack(parts[::-1], axis=1) + 7

    x = np.array([[2**31 - 1, -(2**31), 5, -7], [7, 14, 0, 3]], np.int32)
    agrees(function, x, tmp_path)


CONVOLUTIONS = {
    "same": ((9, 7, 3), (3, 3, 3, 8), {}),
    "valid": ((9, 7, 3), (3, 3, 3, 8), {"padding": "VALID"}),
    "stride": ((9, 7, 3), (3, 3, 3, 8), {"window_strides": (2, 3)}),
    "dilation": ((9, 9, 2), (3, 2, 2, 5), {"rhs_dilation": (2, 3)}),
    "groups": ((6, 6, 8), (3, 3, 2, 12), {"feature_group_count": 4}),
    "large padding": ((2, 2, 3), (3, 3, 3, 4), {"padding": ((3, 2), (0, 4))}),
    "1 x 1": ((5, 5, 16), (1, 1, 16, 33), {"window_strides": (2, 2)}),
    "one pixel": ((1, 1, 8), (3, 3, 8, 8), {}),
    "one dimension": ((12, 3), (5, 3, 4), {"window_strides": (2,)}),
    "three dimensions": ((4, 5, 3, 2), (3, 3, 2, 2, 4), {}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name, tmp_path):
    image, kernel, options = CONVOLUTIONS[name]
    rank = len(image) - 1
    options = {"window_strides": (1,) * rank, "padding": "SAME", **options}
    spatial = "DHW"[-rank:]
    layout = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")

    def function(kernel, x):
        found = jax.lax.conv_general_dilated(
            x, kernel, dimension_numbers=layout, **options
        )
        return nn.relu(found * 0.5 + 0.25)

    agrees(function, draw(2, *image), tmp_path, params=signs(*kernel), method=None)


def test_pools(tmp_path):
    pools = (
        lambda x: nn.max_pool(x, (2, 2), (2, 2)),
        lambda x: nn.max_pool(x, (3, 3), (2, 2), "SAME"),
        lambda x: nn.avg_pool(x, (3, 2), (1, 2), "SAME"),
        lambda x: nn.avg_pool(x, (2, 2), (2, 2), "VALID"),
        lambda x: x.mean((1, 2), keepdims=True),
    )
    agrees(
        lambda x: jnp.concatenate(
            [p(x).reshape(x.shape[0], -1) for p in pools], axis=1
        ),
        draw(2, 7, 5, 3),
        tmp_path,
    )


def residual(kernels, x):
    convolution = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    for kernel in kernels:
        x = nn.relu(0.1 * convolution(x, kernel) + x)
        x = nn.relu(
            0.1 * convolution(nn.relu(0.1 * convolution(x, kernel)), kernel) + x
        )
    return x.mean((1, 2))


def test_memory_is_used_in_turn(tmp_path):
    """A residual addition overwrites what it adds to, unless that is still read."""
    kernels = [signs(3, 3, 8, 8), -signs(3, 3, 8, 8)]
    sources = agrees(
        residual, draw(2, 6, 6, 8), tmp_path, params=kernels, method=None, atol=1e-5
    )
    assert defined(sources, "MEMORY") == 2 * 6 * 6 * 8 * 4


WEIGHTS = {  # shape, shape of the scales, levels
    "one": ((64, 32), None, 2),
    "tensor": ((64, 32), (1, 1), 2),
    "output": ((64, 32), (1, 32), 2),
    "group": ((64, 32), (4, 32), 2),
    "ternary": ((50, 30), (1, 1), 3),
    "ternary group": ((64, 10), (2, 10), 3),
    "convolution": ((3, 3, 16, 8), (1, 1, 1, 8), 2),
    "convolution, group": ((3, 3, 16, 8), (3, 3, 2, 8), 2),
    "convolution, group of two places": ((2, 2, 8, 8), (2, 1, 1, 8), 2),
    "group of outputs": ((32, 16), (32, 2), 2),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_take_one_bit_or_two_and_their_scales(name, tmp_path):
    shape, counts, levels = WEIGHTS[name]
    rng = np.random.default_rng(0)
    weights = rng.choice([-1.0, 1.0, 0.0][:levels], shape).astype(np.float32)
    if counts:
        scale = rng.uniform(0.5, 2, counts).astype(np.float32)
        for axis, (whole, count) in enumerate(zip(shape, counts, strict=True)):
            scale = np.repeat(scale, whole // count, axis)
        weights *= scale
    image = (5, 4, shape[-2]) if len(shape) == 4 else shape[:1]
    layer = nn.Conv(shape[-1], shape[:2]) if len(shape) == 4 else nn.Dense(shape[-1])
    layer = layer.clone(use_bias=False)
    sources = agrees(
        lambda kernel, x: layer.apply({"params": {"kernel": kernel}}, x),
        draw(3, *image),
        tmp_path,
        params=weights,
        method=None,
    )
    words = -(-weights.size * (levels - 1) // 32)
    scales = np.prod(counts) if counts else 1
    assert defined(sources, "CONSTANTS") == 4 * words + (4 * scales) * (scales > 1)


def test_scales_of_outputs_are_in_the_norm_that_follows(tmp_path):
    class Normed(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(32, use_bias=False)(x)
            return nn.relu(nn.BatchNorm(use_running_average=True)(x))

    x, scale = draw(3, 64), np.linspace(0.5, 1, 32, dtype=np.float32)
    norm = {"scale": scale, "bias": -scale}
    params = {"Dense_0": {"kernel": signs(64, 32) * scale}, "BatchNorm_0": norm}
    state = {"batch_stats": {"BatchNorm_0": {"mean": scale, "var": scale}}}
    sources = agrees(
        lambda params, x: Normed().apply({"params": params, **state}, x),
        x,
        tmp_path,
        params=params,
        method=None,
    )
    assert defined(sources, "CONSTANTS") == 64 * 32 // 8 + 2 * 4 * 32


def test_real_weights_are_stored_as_they_are(tmp_path):
    weights = draw(24, 5)
    sources = agrees(
        lambda weights, x: x @ weights, draw(3, 24), tmp_path, params=weights
    )
    assert defined(sources, "CONSTANTS") == weights.nbytes


def test_an_nnx_module_with_its_method(tmp_path):
    model = nnx.Sequential(nnx.Linear(32, 48, rngs=nnx.Rngs(0)), nnx.relu)
    x, params = draw(3, 32), nnx.state(model, nnx.Param)
    method = methods.scaled_sign(steps=5, group=16)
    sources = export.to_c(model, params, method=method, input_shape=(32,))
    nnx.update(model, method.deploy(params))
    _, found = compilers.outputs(sources, x, tmp_path)
    np.testing.assert_allclose(found, np.asarray(model(x)), rtol=0, atol=1e-5)


def test_layers_that_hold_their_estimator_are_packed(tmp_path):
    class Binary(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = linen.BinaryDense(64, estimator=estimators.scaled_sign)(x)
            x = nn.relu(nn.LayerNorm()(x))
            return linen.BinaryDense(32, estimator=estimators.ternary_absmean)(x)

    x, ones = draw(2, 48), np.ones(64, np.float32)
    params = {
        "BinaryDense_0": {"kernel": draw(48, 64), "bias": ones},
        "LayerNorm_0": {"scale": ones, "bias": -ones},
        "BinaryDense_1": {"kernel": draw(64, 32), "bias": ones[:32]},
    }
    sources = agrees(
        lambda params, x: Binary().apply({"params": params}, x),
        x,
        tmp_path,
        params=params,
        method=None,
    )
    packed = [
        line for line in sources["network.h"].splitlines() if "uint32_t c_" in line
    ]
    assert len(packed) == 2


@pytest.mark.parametrize("function", [lambda x: x, lambda x: x.reshape(-1, 6)[:, None]])
def test_outputs_that_are_the_input(function, tmp_path):
    agrees(function, draw(4, 2, 3), tmp_path)
