"""Linen layers: the tree of Flax, the arithmetic of the deployed weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import adaste_jax
from adaste_jax import estimators
from adaste_jax.nn import linen
from tests.nn import kinds

CONVOLUTIONS = kinds.CONVOLUTIONS
LATENT_INIT = nn.initializers.normal(1.0)  # latents on both sides of the clip at 1


def convolutions(kind, **options):
    """A binary convolution, and the layer of Flax that it replaces."""
    shared = dict(kind.options, kernel_init=LATENT_INIT)
    layer = linen.BinaryConv(kind.features, kind.kernel_size, **shared, **options)
    return layer, nn.Conv(kind.features, kind.kernel_size, **shared)


def layer_twin_inputs(kind, **options):
    """A binary layer, the layer of Flax that it replaces, and inputs."""
    if kind in CONVOLUTIONS:
        convolution = CONVOLUTIONS[kind]
        return *convolutions(convolution, **options), kinds.inputs(convolution)
    spec = kinds.PRODUCTS[kind]
    shared = {**spec.shared, **spec.linen_options, spec.init: LATENT_INIT}
    twin = {key: options[key] for key in ("use_bias",) if key in options}
    layer = getattr(linen, f"Binary{spec.linen}")(**shared, **options)
    return layer, getattr(nn, spec.linen)(**shared, **twin), spec.inputs


def dense(**options):
    return layer_twin_inputs("dense", **options)


every_kind = pytest.mark.parametrize("kind", [*kinds.PRODUCTS, *CONVOLUTIONS])
strict = pytest.mark.usefixtures("strict_dtypes")


def trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    return jax.tree.structure(a) == jax.tree.structure(b)


@strict
@every_kind
def test_tree_and_initial_values_are_those_of_flax(kind):
    layer, twin, inputs = layer_twin_inputs(kind, estimator=estimators.ste_clipped)
    variables = layer.init(jax.random.key(0), inputs)
    assert trees_equal(variables, twin.init(jax.random.key(0), inputs))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@strict
@every_kind
def test_outputs_and_gradients_are_those_of_flax_at_the_deployed_weights(kind):
    """The rule of `ste_clipped`: what arrives at the weight, where |latent| <= 1."""
    layer, twin, inputs = layer_twin_inputs(kind, estimator=estimators.ste_clipped)
    params = twin.init(jax.random.key(2), inputs)["params"]

    def loss(module, params, inputs):
        outputs = module.apply({"params": params}, inputs)
        ramp = jnp.arange(outputs.size, dtype=jnp.float32).reshape(outputs.shape)
        return jnp.sum(jnp.sin(ramp) * outputs), outputs

    # The gradient of tokens has no numbers, and compares equal.
    differentiate = jax.grad(loss, argnums=(1, 2), has_aux=True, allow_int=True)
    (grads, input_grad), outputs = differentiate(layer, params, inputs)
    deployed = adaste_jax.deploy(params, where=layer.latent)
    (expected, expected_input), expected_outputs = differentiate(twin, deployed, inputs)
    latent = np.asarray(params[layer.latent])
    passes = np.abs(latent) <= 1
    assert 0 < passes.sum() < passes.size
    assert set(np.unique(deployed[layer.latent])) == {-1.0, 1.0}
    np.testing.assert_array_equal(outputs, expected_outputs)
    np.testing.assert_array_equal(input_grad, expected_input)
    expected[layer.latent] = np.where(passes, expected[layer.latent], 0)
    assert trees_equal(grads, expected)


@strict
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_padding_value_against_brute_force(kind, value):
    """Integers throughout, since inputs are binary too: equal, not close."""
    kind = CONVOLUTIONS[kind]
    layer, _ = convolutions(
        kind,
        estimator=estimators.ste,
        input_estimator=estimators.ste_clipped,
        padding_value=value,
        use_bias=False,
    )
    inputs = kinds.inputs(kind)
    outputs, variables = layer.init_with_output(jax.random.key(3), inputs)
    signs = np.where(np.asarray(variables["params"]["kernel"]) >= 0, 1.0, -1.0)
    expected = kinds.convolve(np.where(inputs >= 0, 1.0, -1.0), signs, kind, value)
    np.testing.assert_array_equal(outputs, expected)


@strict
def test_padding_value_keeps_extra_and_missing_batch_axes():
    kind = CONVOLUTIONS["1d"]
    layer, _ = convolutions(kind, estimator=estimators.ste, padding_value=1.0)
    inputs = kinds.inputs(kind)
    variables = layer.init(jax.random.key(0), inputs)
    outputs = layer.apply(variables, inputs)
    np.testing.assert_allclose(
        layer.apply(variables, inputs[0]), outputs[0], rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(
        layer.apply(variables, inputs[:, None])[:, 0], outputs, rtol=1e-6, atol=1e-6
    )


def test_input_estimator_has_its_own_backward_rule():
    layer, twin, inputs = dense(
        estimator=estimators.ste, input_estimator=estimators.ste_clipped
    )
    variables = twin.init(jax.random.key(0), inputs)
    grads = jax.grad(lambda x: layer.apply(variables, x).sum())(jnp.asarray(inputs))
    signs = np.asarray(adaste_jax.deploy(variables["params"])["kernel"])
    expected = signs.sum(axis=1) * (np.abs(inputs) <= 1)
    np.testing.assert_allclose(grads, expected, rtol=1e-6)


@strict
@pytest.mark.parametrize("kind", ["dense", "2d", "general", "embed"])
def test_estimator_sees_the_latents_in_float32_before_the_cast_to_bfloat16(kind):
    """1 + 2^-10 is 1 in bfloat16, so an estimator that sees the cast would be told."""
    seen = []

    def above_one(latent):
        seen.append(latent.dtype)
        return jnp.where(latent > 1, 1.0, -1.0).astype(latent.dtype)

    layer, twin, inputs = layer_twin_inputs(kind, estimator=above_one)
    init = "embedding_init" if kind == "embed" else "kernel_init"
    layer = layer.clone(
        dtype=jnp.bfloat16, **{init: nn.initializers.constant(1 + 2**-10)}
    )
    outputs, variables = layer.init_with_output(jax.random.key(0), inputs)
    latent = variables["params"][layer.latent]
    assert seen == [jnp.float32]
    assert latent.dtype == jnp.float32
    assert outputs.dtype == jnp.bfloat16
    ones = {"params": variables["params"] | {layer.latent: jnp.ones_like(latent)}}
    expected = twin.clone(dtype=jnp.bfloat16).apply(ones, inputs)
    np.testing.assert_array_equal(outputs, expected)


@strict
@pytest.mark.parametrize(
    "kind", ["dense", "general", "grouped", "transposed_kernel", "embed"]
)
def test_scale_is_one_more_leaf_and_multiplies_output_features(kind):
    options = {} if kind == "embed" else {"use_bias": False}
    layer, twin, inputs = layer_twin_inputs(
        kind, estimator=estimators.ste, use_scale=True, **options
    )
    params = layer.init(jax.random.key(0), inputs)["params"]
    assert sorted(params) == sorted([layer.latent, "scale"])
    np.testing.assert_array_equal(params["scale"], np.ones(layer.features))
    scale = np.arange(1, params["scale"].size + 1, dtype=np.float32) / 4
    scale = scale.reshape(params["scale"].shape)
    weights = {layer.latent: jnp.where(params[layer.latent] >= 0, 1.0, -1.0)}
    twin = twin.clone(**options)
    plain = np.asarray(twin.apply({"params": weights}, inputs))
    scaled, pullback = jax.vjp(
        lambda scale: layer.apply({"params": params | {"scale": scale}}, inputs), scale
    )
    np.testing.assert_allclose(scaled, plain * scale, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        pullback(jnp.ones_like(scaled))[0],
        plain.reshape(-1, *scale.shape).sum(0),
        rtol=1e-4,
        atol=1e-4,
    )


def test_masked_weights_are_zero():
    """The mask comes after the estimator, which has no zero."""
    kind = CONVOLUTIONS["1d"]
    mask = np.random.default_rng(0).integers(0, 2, (3, 3, 4)).astype(np.float32)
    layer, _ = convolutions(kind, estimator=estimators.ste, use_bias=False)
    inputs = kinds.inputs(kind)
    outputs, variables = layer.clone(mask=mask).init_with_output(
        jax.random.key(0), inputs
    )
    signs = np.where(np.asarray(variables["params"]["kernel"]) >= 0, 1.0, -1.0)
    expected = kinds.convolve(inputs, signs * mask, kind)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "CIRCULAR"}, "got 'CIRCULAR'"),
        ({"padding": "CAUSAL"}, "got 'CAUSAL'"),
        ({"padding": ((1, 1), (1, 1))}, "must have 1 entries"),
        ({"input_dilation": 2}, "needs `input_dilation=1`"),
    ],
)
def test_padding_value_refuses_other_paddings(options, message):
    layer = linen.BinaryConv(
        4, (3,), estimator=estimators.ste, padding_value=1.0, **options
    )
    with pytest.raises(ValueError, match=message):
        layer.init(jax.random.key(0), jnp.ones((2, 7, 3)))


def test_estimator_has_no_default():
    with pytest.raises(TypeError, match="estimator"):
        linen.BinaryDense(4)


def test_layer_is_hashable_and_captured_once():
    layer, _, inputs = dense(
        estimator=estimators.adaste_paper, hyperparameters={"mu": 1.0}
    )
    assert hash(layer) == hash(layer.clone())
    variables = layer.init(jax.random.key(0), inputs)
    _, captured = layer.apply(
        variables, inputs, capture_intermediates=True, mutable=["intermediates"]
    )
    assert len(captured["intermediates"]["__call__"]) == 1


ANNEALED = {"estimator": estimators.adaste_paper, "hyperparameters": {"mu": 0.01}}


class Block(nn.Module):
    """Two binary layers that keep the shape [batch, 5, 3]."""

    @nn.compact
    def __call__(self, inputs, _=None):
        hidden = linen.BinaryConv(3, (3,), padding_value=1.0, **ANNEALED)(inputs)
        return linen.BinaryDense(3, **ANNEALED)(hidden), None


class Stack(nn.Module):
    """Three blocks: written out, or scanned; rematerialised, or not."""

    scan: bool
    remat: bool

    @nn.compact
    def __call__(self, inputs):
        block = nn.remat(Block) if self.remat else Block
        if self.scan:
            block = nn.scan(
                block,
                variable_axes={"params": 0},
                variable_broadcast="hyperparameters",
                split_rngs={"params": True},
                length=3,
            )
            return block(name="blocks")(inputs, None)[0]
        for index in range(3):
            inputs, _ = block(name=f"block{index}")(inputs)
        return inputs


@pytest.fixture(scope="module")
def written_out():
    """Inputs, three blocks of parameters, and outputs and gradients at two values."""
    inputs = np.random.default_rng(4).normal(0.3, 1.2, (2, 5, 3)).astype(np.float32)
    variables = Stack(scan=False, remat=False).init(jax.random.key(0), inputs)

    def loss(params, hyperparameters):
        variables = {"params": params, "hyperparameters": hyperparameters}
        return jnp.sum(jnp.sin(Stack(scan=False, remat=False).apply(variables, inputs)))

    step = jax.jit(jax.value_and_grad(loss))
    results = {
        mu: step(
            variables["params"],
            linen.set_hyperparameters(variables, mu=mu)["hyperparameters"],
        )
        for mu in (0.01, 3.0)
    }
    return inputs, variables, results


@pytest.mark.parametrize(
    ("scan", "remat"), [(False, False), (False, True), (True, False), (True, True)]
)
def test_annealing_reaches_every_layer_and_does_not_recompile(written_out, scan, remat):
    inputs, variables, results = written_out
    network = Stack(scan=scan, remat=remat)
    if scan:
        blocks = [variables["params"][f"block{index}"] for index in range(3)]
        params = {"blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)}
        hyperparameters = {"blocks": variables["hyperparameters"]["block0"]}
        variables = {"params": params, "hyperparameters": hyperparameters}
        fresh = jax.eval_shape(network.init, jax.random.key(0), inputs)
        assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, variables)
    traces = []

    @jax.jit
    def step(params, hyperparameters):
        def loss(params):
            traces.append(1)
            variables = {"params": params, "hyperparameters": hyperparameters}
            return jnp.sum(jnp.sin(network.apply(variables, inputs)))

        return jax.value_and_grad(loss)(params)

    for mu, (expected_loss, expected_grads) in results.items():
        variables = linen.set_hyperparameters(variables, mu=mu)
        loss, grads = step(variables["params"], variables["hyperparameters"])
        np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
        if scan:
            blocks = [
                jax.tree.map(lambda leaf, i=i: leaf[i], grads["blocks"])
                for i in range(3)
            ]
            grads = {f"block{index}": block for index, block in enumerate(blocks)}
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
            grads,
            expected_grads,
        )
    assert len(traces) == 1
    losses = [float(loss) for loss, _ in results.values()]
    assert abs(losses[0] - losses[1]) > 0.1  # mu is seen at all


def test_layer_called_twice_shares_its_parameters():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            layer = linen.BinaryConv(3, (3,), padding_value=1.0, **ANNEALED)
            return layer(layer(inputs))

    inputs = kinds.inputs(CONVOLUTIONS["1d"])
    outputs, variables = Twice().init_with_output(jax.random.key(0), inputs)
    layer = linen.BinaryConv(3, (3,), padding_value=1.0, **ANNEALED)
    once = {name: tree["BinaryConv_0"] for name, tree in variables.items()}
    expected = layer.apply(once, layer.apply(once, inputs))
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)


def test_stacked_hyperparameters_keep_their_shape():
    stacked = nn.vmap(
        linen.BinaryDense,
        variable_axes={"params": 0, "hyperparameters": 0},
        split_rngs={"params": True},
    )(3, **ANNEALED)
    variables = stacked.init(jax.random.key(0), jnp.ones((2, 5, 3)))
    new = linen.set_hyperparameters(variables, mu=0.5)["hyperparameters"]["mu"]
    np.testing.assert_array_equal(new, [0.5, 0.5])
    assert new.dtype == jnp.float32


def test_set_hyperparameters_leaves_its_argument_alone():
    variables = {"hyperparameters": {"mu": jnp.float32(1.0), "alpha": jnp.float32(0.1)}}
    new = linen.set_hyperparameters(variables, mu=2.0)
    assert float(variables["hyperparameters"]["mu"]) == 1.0
    assert jax.tree.map(float, new) == {
        "hyperparameters": {"mu": 2.0, "alpha": float(jnp.float32(0.1))}
    }


@pytest.mark.parametrize("variables", [{}, {"hyperparameters": {"mu": 1.0}}])
def test_set_hyperparameters_refuses_a_name_that_no_layer_has(variables):
    names = r"\['mu'\]" if variables else r"\[\]"
    with pytest.raises(ValueError, match=f"`beta`. The names there are: {names}"):
        linen.set_hyperparameters(variables, beta=1.0)


class Network(nn.Module):
    """What the training step meets: batch norm, dropout and a hyperparameter."""

    @nn.compact
    def __call__(self, inputs, *, train):
        hidden = linen.BinaryDense(4, **ANNEALED)(inputs)
        hidden = nn.BatchNorm(use_running_average=not train, momentum=0.5)(hidden)
        return nn.Dropout(0.5, deterministic=not train)(hidden)


def test_functional_tells_training_from_evaluation():
    inputs = np.random.default_rng(5).normal(0.3, 1.2, (6, 3)).astype(np.float32)
    variables = Network().init(jax.random.key(0), inputs, train=False)
    params = variables["params"]
    state = {name: tree for name, tree in variables.items() if name != "params"}
    forward = jax.jit(linen.functional(Network()), static_argnames="train")

    outputs, same = forward(params, state, inputs, train=False, key=None)
    assert trees_equal(same, state)
    np.testing.assert_array_equal(
        outputs,
        jax.jit(Network().apply, static_argnames="train")(
            variables, inputs, train=False
        ),
    )

    key = jax.random.key(7)
    outputs, new = forward(params, state, inputs, train=True, key=key)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    hidden = linen.BinaryDense(4, **ANNEALED).apply(
        {
            "params": params["BinaryDense_0"],
            "hyperparameters": state["hyperparameters"]["BinaryDense_0"],
        },
        inputs,
    )
    np.testing.assert_allclose(
        new["batch_stats"]["BatchNorm_0"]["mean"], hidden.mean(0) / 2, rtol=1e-5
    )
    assert trees_equal(new["hyperparameters"], state["hyperparameters"])
    assert 0 < np.sum(np.asarray(outputs) == 0) < outputs.size  # dropped by half
    again, _ = forward(params, state, inputs, train=True, key=key)
    other, _ = forward(params, state, inputs, train=True, key=jax.random.key(8))
    np.testing.assert_array_equal(outputs, again)
    assert not np.array_equal(outputs, other)


def test_functional_of_a_module_without_state():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, inputs, *, train):
            del train
            return nn.Dense(2)(inputs)

    inputs = jnp.ones((1, 3))
    params = Plain().init(jax.random.key(0), inputs, train=False)["params"]
    outputs, state = linen.functional(Plain())(params, {}, inputs, train=True, key=None)
    assert outputs.shape == (1, 2)
    assert state == {}


class _Normalised(nn.Module):
    """Knows of no axis; the inner batch norm is of a subclass, as users write them."""

    @nn.compact
    def __call__(self, inputs, *, train):
        class Norm(nn.BatchNorm):
            use_scale: bool = False

        hidden = nn.Dense(3)(inputs)
        hidden = Norm(use_running_average=not train, name="norm")(hidden)
        return nn.BatchNorm(use_running_average=not train, momentum=0.5)(hidden)


def test_batch_norm_averages_over_the_axis_that_functional_is_given():
    """The module is unchanged, and so are its variables and its evaluation."""
    module = _Normalised()
    inputs = jax.random.normal(jax.random.key(0), (8, 4))
    variables = dict(module.init(jax.random.key(1), inputs, train=False))
    params = variables.pop("params")

    def apply(forward, inputs):
        return forward(params, variables, inputs, train=True, key=None)

    whole = apply(linen.functional(module), inputs)
    parts = inputs.reshape(4, 2, 4)
    split = jax.vmap(
        functools.partial(apply, linen.functional(module, axis_name="data")),
        axis_name="data",
        out_axes=(0, None),
    )(parts)
    assert jax.tree.structure(split[1]) == jax.tree.structure(whole[1])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(split[0].reshape(8, 3), whole[0])
    jax.tree.map(close, split[1], whole[1])
    alone = jax.vmap(functools.partial(apply, linen.functional(module)))(parts)
    assert not np.allclose(alone[0].reshape(8, 3), whole[0], atol=1e-2)
    evaluate = functools.partial(
        linen.functional(module, axis_name="data"), train=False, key=None
    )
    assert evaluate(params, variables, inputs)[0].shape == (8, 3)
