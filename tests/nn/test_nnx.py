"""NNX layers: the state of Flax, the results of Linen, the transformations of NNX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import adaste_jax
from adaste_jax import estimators
from adaste_jax.nn import linen
from adaste_jax.nn import nnx as layers
from tests.nn import kinds

CONVOLUTIONS = kinds.CONVOLUTIONS
LATENT_INIT = nnx.initializers.normal(1.0)
ANNEALED = {"estimator": estimators.adaste_paper, "hyperparameters": {"mu": 0.01}}

every_kind = pytest.mark.parametrize("kind", [*kinds.PRODUCTS, *CONVOLUTIONS])
strict = pytest.mark.usefixtures("strict_dtypes")


def inputs_of(kind):
    if kind in CONVOLUTIONS:
        return kinds.inputs(CONVOLUTIONS[kind])
    return kinds.PRODUCTS[kind].inputs


def make(kind, **options):
    """A binary layer, and the layer of Flax that it replaces, with other latents."""
    if kind in CONVOLUTIONS:
        spec = CONVOLUTIONS[kind]
        name, given = "Conv", (spec.channels, spec.features, spec.kernel_size)
        shared = dict(spec.options, kernel_init=LATENT_INIT)
    else:
        product = kinds.PRODUCTS[kind]
        name, given = product.nnx, ()
        shared = {**product.shared, **product.nnx_options, product.init: LATENT_INIT}
    layer = getattr(layers, f"Binary{name}")(
        *given, **shared, **options, rngs=nnx.Rngs(0)
    )
    return layer, getattr(nnx, name)(*given, **shared, rngs=nnx.Rngs(1))


def make_linen(kind, **options):
    if kind in CONVOLUTIONS:
        spec = CONVOLUTIONS[kind]
        return linen.BinaryConv(
            spec.features, spec.kernel_size, **spec.options, **options
        )
    product = kinds.PRODUCTS[kind]
    layer = getattr(linen, f"Binary{product.linen}")
    return layer(**product.shared, **product.linen_options, **options)


@strict
@every_kind
def test_state_is_that_of_flax_and_a_float_checkpoint_loads(kind):
    layer, twin = make(kind, estimator=estimators.ste)
    state, checkpoint = nnx.state(layer), nnx.state(twin)
    assert jax.tree.structure(nnx.to_pure_dict(state)) == jax.tree.structure(
        nnx.to_pure_dict(checkpoint)
    )
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, checkpoint)
    nnx.update(layer, checkpoint)
    inputs = inputs_of(kind)
    nnx.update(twin, adaste_jax.deploy(checkpoint, where=layer.latent))
    np.testing.assert_array_equal(layer(inputs), twin(inputs))


@strict
@pytest.mark.parametrize("use_scale", [False, True])
@pytest.mark.parametrize(
    ("kind", "padding_value"),
    [
        *((kind, 0.0) for kind in (*kinds.PRODUCTS, *CONVOLUTIONS)),
        *((kind, 1.0) for kind in CONVOLUTIONS),
    ],
)
def test_outputs_and_gradients_are_those_of_linen(kind, use_scale, padding_value):
    options = {
        "estimator": estimators.adaste_paper,
        "hyperparameters": {"mu": 0.5},
        "use_scale": use_scale,
    }
    if kind != "embed":
        options["input_estimator"] = estimators.ste_clipped
    if kind in CONVOLUTIONS:
        options["padding_value"] = padding_value
    layer, _ = make(kind, **options)
    inputs = inputs_of(kind)
    params = nnx.to_pure_dict(nnx.state(layer, nnx.Param))

    def linen_outputs(params, inputs):
        variables = {"params": params, "hyperparameters": {"mu": jnp.float32(0.5)}}
        return make_linen(kind, **options).apply(variables, inputs)

    graphdef, state, rest = nnx.split(layer, nnx.Param, ...)
    outputs, pullback = jax.vjp(
        lambda state, inputs: nnx.merge(graphdef, state, rest)(inputs), state, inputs
    )
    expected, expected_pullback = jax.vjp(linen_outputs, params, inputs)
    cotangent = np.random.default_rng(2).normal(size=outputs.shape).astype(np.float32)
    grads, input_grad = pullback(jnp.asarray(cotangent))
    expected_grads, expected_input_grad = expected_pullback(jnp.asarray(cotangent))
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_array_equal(input_grad, expected_input_grad)
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(grads), expected_grads)
    assert np.any(expected_grads[layer.latent])


@strict
@pytest.mark.parametrize("kind", ["dense", "2d"])
def test_estimator_sees_the_latents_in_float32_before_the_cast_to_bfloat16(kind):
    """1 + 2^-10 is 1 in bfloat16, so an estimator that sees the cast would be told."""
    seen = []

    def above_one(latent):
        seen.append(latent.dtype)
        return jnp.where(latent > 1, 1.0, -1.0).astype(latent.dtype)

    layer, twin = make(kind, estimator=above_one, dtype=jnp.bfloat16)
    layer.kernel[...] = jnp.full_like(layer.kernel[...], 1 + 2**-10)
    twin.kernel[...] = jnp.ones_like(twin.kernel[...])
    twin.dtype = jnp.bfloat16
    outputs = layer(inputs_of(kind))
    assert seen == [jnp.float32]
    assert outputs.dtype == jnp.bfloat16
    np.testing.assert_array_equal(outputs, twin(inputs_of(kind)))


def test_scale_is_one_more_parameter():
    layer, _ = make("grouped", estimator=estimators.ste, use_scale=True)
    params = nnx.to_pure_dict(nnx.state(layer, nnx.Param))
    assert sorted(params) == ["bias", "kernel", "scale"]
    np.testing.assert_array_equal(params["scale"], np.ones(6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "REFLECT"}, "got 'REFLECT'"),
        ({"input_dilation": 2}, "needs `input_dilation=1`"),
    ],
)
def test_padding_value_refuses_other_paddings(options, message):
    layer = layers.BinaryConv(
        3,
        4,
        3,
        estimator=estimators.ste,
        padding_value=1.0,
        rngs=nnx.Rngs(0),
        **options,
    )
    with pytest.raises(ValueError, match=message):
        layer(jnp.ones((2, 7, 3)))


def test_estimator_has_no_default():
    with pytest.raises(TypeError, match="estimator"):
        layers.BinaryLinear(3, 4, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("kind", ["dense", "1d"])
def test_a_call_leaves_no_trace_in_the_layer(kind):
    """Neither in its attributes, nor in the static part that compiled code holds."""
    layer, _ = make(kind, **ANNEALED)
    graphdef, state = nnx.split(layer)
    attributes = dict(vars(layer))
    jax.jit(lambda x: layer(x))(inputs_of(kind))
    assert nnx.graphdef(layer) == graphdef
    assert dict(vars(layer)) == attributes
    jax.tree.map(np.testing.assert_array_equal, nnx.state(layer), state)


class Block(nnx.Module):
    """Two binary layers that keep the shape [batch, 5, 3]."""

    def __init__(self, rngs):
        self.conv = layers.BinaryConv(
            3, 3, (3,), padding_value=1.0, **ANNEALED, rngs=rngs
        )
        self.dense = layers.BinaryLinear(3, 3, **ANNEALED, rngs=rngs)

    def __call__(self, inputs):
        return self.dense(self.conv(inputs))


STACKED = nnx.StateAxes({layers.Hyperparameter: None, ...: 0})


@nnx.vmap(in_axes=0, out_axes=STACKED)
def make_stack(key):
    return Block(nnx.Rngs(key))


def through_scan(stack, inputs):
    @nnx.scan(in_axes=(STACKED, nnx.Carry), out_axes=nnx.Carry)
    def apply(block, hidden):
        return block(hidden)

    return apply(stack, inputs)


def through_remat(stack, inputs):
    @nnx.scan(in_axes=(STACKED, nnx.Carry), out_axes=nnx.Carry)
    @nnx.remat
    def apply(block, hidden):
        return block(hidden)

    return apply(stack, inputs)


def through_vmap(stack, inputs):
    @nnx.vmap(in_axes=(STACKED, None), out_axes=0)
    def apply(block, hidden):
        return block(hidden)

    return apply(stack, inputs).sum(0)


def block_by_block(stack, combine, inputs):
    graphdef, hyperparameters, rest = nnx.split(stack, layers.Hyperparameter, ...)
    blocks = [
        nnx.merge(graphdef, hyperparameters, jax.tree.map(lambda x, i=i: x[i], rest))
        for i in range(3)
    ]
    return combine(blocks, inputs)


def chained(blocks, hidden):
    for block in blocks:
        hidden = block(hidden)
    return hidden


def summed(blocks, inputs):
    return sum(block(inputs) for block in blocks)


@pytest.mark.parametrize(
    ("apply", "combine"),
    [(through_scan, chained), (through_remat, chained), (through_vmap, summed)],
)
def test_annealing_reaches_every_layer_and_does_not_recompile(apply, combine):
    inputs = np.random.default_rng(4).normal(0.3, 1.2, (2, 5, 3)).astype(np.float32)
    stack = make_stack(jax.random.split(jax.random.key(0), 3))
    assert stack.dense.kernel.shape == (3, 3, 3)
    traces = []

    @nnx.jit
    def step(stack, inputs):
        traces.append(1)
        return nnx.value_and_grad(lambda s: jnp.sin(apply(s, inputs)).sum())(stack)

    @nnx.jit
    def expected_step(stack, inputs):
        return nnx.value_and_grad(
            lambda s: jnp.sin(block_by_block(s, combine, inputs)).sum()
        )(stack)

    losses = []
    for mu in (0.01, 3.0):
        assert layers.set_hyperparameters(stack, mu=mu) is stack
        loss, grads = step(stack, inputs)
        expected, expected_grads = expected_step(stack, inputs)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            grads,
            expected_grads,
        )
        losses.append(float(loss))
    assert len(traces) == 1
    assert abs(losses[0] - losses[1]) > 0.1  # mu is seen at all


def test_set_hyperparameters_of_a_state_returns_a_copy():
    """What a training step does, under `jax.jit` and without a module at hand."""
    block = Block(nnx.Rngs(0))
    forward, params, state = layers.functional(block)
    traces = []

    @jax.jit
    def step(params, state, inputs, mu):
        traces.append(1)
        state = layers.set_hyperparameters(state, mu=mu)
        return forward(params, state, inputs, train=True, key=None)

    inputs = np.random.default_rng(4).normal(0.3, 1.2, (2, 5, 3)).astype(np.float32)
    for mu in (0.01, 3.0):
        outputs, new = step(params, state, inputs, mu)
        assert float(new["conv"]["hyperparameters"]["mu"][...]) == jnp.float32(mu)
        layers.set_hyperparameters(block, mu=mu)
        np.testing.assert_allclose(outputs, block(inputs), rtol=1e-5)
    assert float(state["conv"]["hyperparameters"]["mu"][...]) == jnp.float32(0.01)
    assert len(traces) == 1


def test_stacked_hyperparameters_keep_their_shape():
    @nnx.vmap(in_axes=0, out_axes=0)
    def make_all_stacked(key):
        return Block(nnx.Rngs(key))

    stack = make_all_stacked(jax.random.split(jax.random.key(0), 3))
    layers.set_hyperparameters(stack, mu=0.5)
    mu = stack.conv.hyperparameters["mu"][...]
    np.testing.assert_array_equal(mu, [0.5, 0.5, 0.5])
    assert mu.dtype == jnp.float32


@pytest.mark.parametrize("of_state", [False, True])
def test_set_hyperparameters_refuses_a_name_that_no_layer_has(of_state):
    block = Block(nnx.Rngs(0))
    model = nnx.state(block) if of_state else block
    with pytest.raises(ValueError, match=r"`beta`. The names there are: \['mu'\]"):
        layers.set_hyperparameters(model, beta=1.0)


class Network(nnx.Module):
    """What the training step meets: batch norm, dropout and a hyperparameter."""

    def __init__(self, rngs):
        self.dense = layers.BinaryLinear(3, 4, **ANNEALED, rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, inputs):
        return self.dropout(self.norm(self.dense(inputs)))


def test_functional_tells_training_from_evaluation():
    inputs = np.random.default_rng(5).normal(0.3, 1.2, (6, 3)).astype(np.float32)
    model = Network(nnx.Rngs(0))
    pure, params, state = layers.functional(model)
    forward = jax.jit(pure, static_argnames="train")

    outputs, same = forward(params, state, inputs, train=False, key=None)
    assert jax.tree.structure(same) == jax.tree.structure(state)
    hidden = model.dense(inputs)
    np.testing.assert_allclose(outputs, hidden / np.sqrt(1 + 1e-5), rtol=1e-5)

    key = jax.random.key(7)
    outputs, new = forward(params, state, inputs, train=True, key=key)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    np.testing.assert_allclose(new["norm"]["mean"], hidden.mean(0) / 2, rtol=1e-5)
    assert 0 < np.sum(np.asarray(outputs) == 0) < outputs.size  # dropped by half
    again, _ = forward(params, state, inputs, train=True, key=key)
    other, _ = forward(params, state, inputs, train=True, key=jax.random.key(8))
    np.testing.assert_array_equal(outputs, again)
    assert not np.array_equal(outputs, other)

    # Without a key the streams of the state go on.
    first, state_1 = forward(params, state, inputs, train=True, key=None)
    second, _ = forward(params, state_1, inputs, train=True, key=None)
    assert not np.array_equal(first, second)


def test_functional_shares_no_variable_with_the_module():
    """NNX passes variables by reference, so a slip here changes numbers silently."""
    inputs = np.random.default_rng(5).normal(0.3, 1.2, (6, 3)).astype(np.float32)
    model = Network(nnx.Rngs(0))
    forward, params, state = layers.functional(model)
    outputs, new = forward(params, state, inputs, train=True, key=None)
    assert np.any(new["norm"]["mean"][...] != 0)
    for mean in (state["norm"]["mean"], model.norm.mean):
        np.testing.assert_array_equal(mean[...], np.zeros(4))
    model.dense.kernel[...] = -model.dense.kernel[...]
    model(inputs)
    again, _ = forward(params, state, inputs, train=True, key=None)
    np.testing.assert_array_equal(outputs, again)
