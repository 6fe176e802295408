"""Layers of several kernels: each is estimated once, whatever loops there are inside.

The rule here is AdaSTE's adaptive one, which is not additive: applied in every step of
a loop it gives another gradient.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import adaste_jax
from adaste_jax import estimators
from adaste_jax.nn import linen
from adaste_jax.nn import nnx as layers

MU = 0.5
RULE = functools.partial(estimators.adaste_paper, mu=MU, cap=2.0)
SEQUENCES = np.random.default_rng(0).normal(0.3, 1.2, (4, 3, 5)).astype(np.float32)
WHOLE = ["OptimizedLSTMCell", "GRUCell", "attention"]
close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5)


def trees_close(a, b):
    jax.tree.map(close, a, b)
    assert jax.tree.structure(a) == jax.tree.structure(b)


def linen_pair(kind, **options):
    """A binary layer and the layer of Flax that it replaces."""
    if kind == "attention":
        return (
            linen.BinaryMultiHeadAttention(2, qkv_features=6, **options),
            nn.MultiHeadAttention(2, qkv_features=6),
        )
    cell = getattr(nn, kind)
    return linen.BinaryRNN(cell(2), **options), nn.RNN(cell(2))


def nnx_pair(kind, **options):
    if kind == "attention":
        arguments = {"num_heads": 2, "in_features": 5, "qkv_features": 6}
        return (
            layers.BinaryMultiHeadAttention(
                **arguments, decode=False, **options, rngs=nnx.Rngs(0)
            ),
            nnx.MultiHeadAttention(**arguments, decode=False, rngs=nnx.Rngs(1)),
        )
    cell = getattr(nnx, kind)
    return (
        layers.BinaryRNN(cell(5, 2, rngs=nnx.Rngs(0)), **options),
        nnx.RNN(cell(5, 2, rngs=nnx.Rngs(1))),
    )


def objective(outputs):
    ramp = jnp.arange(outputs.size, dtype=jnp.float32).reshape(outputs.shape)
    return jnp.sum(jnp.sin(ramp) * outputs)


@pytest.mark.parametrize("kind", WHOLE)
def test_linen_tree_is_that_of_flax_and_the_rule_sees_the_whole_gradient(kind):
    layer, twin = linen_pair(kind, estimator=RULE)
    params, expected_params = jax.jit(
        lambda key: [m.init(key, SEQUENCES)["params"] for m in (layer, twin)]
    )(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, params, expected_params)

    def value_and_grad(module, params):
        return jax.value_and_grad(
            lambda p: objective(module.apply({"params": p}, SEQUENCES))
        )(params)

    @jax.jit
    def found_and_expected(params):
        """The latter: the gradient at the weights by Flax alone, and then the rule."""
        weights, rule = jax.vjp(lambda p: adaste_jax.binarize(p, RULE), params)
        value, grads = value_and_grad(twin, weights)
        return value_and_grad(layer, params), (value, rule(grads)[0])

    trees_close(*found_and_expected(params))


@pytest.mark.parametrize("kind", WHOLE)
def test_nnx_state_is_that_of_flax_and_results_are_those_of_binarize(kind):
    layer, twin = nnx_pair(kind, estimator=RULE)
    checkpoint = nnx.state(twin, nnx.Param)
    pure = nnx.to_pure_dict(checkpoint)
    assert jax.tree.map(jnp.shape, pure) == jax.tree.map(
        jnp.shape, nnx.to_pure_dict(nnx.state(layer, nnx.Param))
    )
    nnx.update(layer, checkpoint)

    graphdef, params, rest = nnx.split(layer, nnx.Param, ...)
    twin_graphdef, _, twin_rest = nnx.split(twin, nnx.Param, ...)

    @jax.jit
    def found_and_expected(params):
        def loss(params, of_flax):
            if not of_flax:
                return objective(
                    nnx.merge(graphdef, params, rest, copy=True)(SEQUENCES)
                )
            weights = adaste_jax.binarize(params, RULE)
            network = nnx.merge(twin_graphdef, weights, twin_rest, copy=True)
            return objective(network(SEQUENCES))

        return [jax.value_and_grad(loss)(params, of_flax) for of_flax in (False, True)]

    trees_close(*found_and_expected(params))


def unrolled_lstm(weights, inputs):
    """By the equations, step after step; each step may have weights of its own."""
    cell = hidden = jnp.zeros((len(inputs), 2))
    outputs = []
    for step, w in enumerate(weights):
        gate = {
            g: inputs[:, step] @ w[f"i{g}"]["kernel"]
            + hidden @ w[f"h{g}"]["kernel"]
            + w[f"h{g}"]["bias"][None]
            for g in "ifgo"
        }
        i, f, o = (jax.nn.sigmoid(gate[g]) for g in "ifo")
        cell = f * cell + i * jnp.tanh(gate["g"])
        hidden = o * jnp.tanh(cell)
        outputs.append(hidden)
    return jnp.stack(outputs, axis=1)


def test_lstm_gradient_is_the_rule_of_the_sum_and_not_the_sum_of_the_rules():
    layer, _ = linen_pair("LSTMCell", estimator=RULE)
    params = jax.jit(layer.init)(jax.random.key(0), SEQUENCES)["params"]
    steps = SEQUENCES.shape[1]

    @jax.jit
    def found_and_by_hand(params):
        found = jax.grad(lambda p: objective(layer.apply({"params": p}, SEQUENCES)))
        latents = params["cell"]
        weights, rule = jax.vjp(lambda p: adaste_jax.binarize(p, RULE), latents)
        grads = jax.grad(lambda ws: objective(unrolled_lstm(ws, SEQUENCES)))(
            [weights] * steps
        )
        summed = jax.tree.map(lambda *leaves: sum(leaves), *grads)
        rules = [rule(grad)[0] for grad in grads]
        sum_of_the_rules = jax.tree.map(lambda *leaves: sum(leaves), *rules)
        return found(params)["cell"], rule(summed)[0], sum_of_the_rules

    found, rule_of_the_sum, sum_of_the_rules = found_and_by_hand(params)
    trees_close(found, rule_of_the_sum)
    right, wrong = (
        np.concatenate([np.ravel(gate["kernel"]) for gate in grads.values()])
        for grads in (rule_of_the_sum, sum_of_the_rules)
    )
    assert np.linalg.norm(wrong - right) > 0.1 * np.linalg.norm(right)


@pytest.mark.parametrize("kind", ["GRUCell", "attention"])
def test_mu_is_one_variable_of_the_layer_and_changing_it_does_not_recompile(kind):
    options = {"estimator": estimators.adaste_paper, "hyperparameters": {"mu": 0.01}}
    layer, twin = linen_pair(kind, **options)
    variables = jax.jit(layer.init)(jax.random.key(0), SEQUENCES)
    assert jax.tree.map(jnp.shape, variables["hyperparameters"]) == {"mu": ()}
    traces = []

    @jax.jit
    def apply(variables):
        traces.append(1)
        return layer.apply(variables, SEQUENCES)

    soft, binary = (
        apply(linen.set_hyperparameters(variables, mu=mu)) for mu in (0.01, 100.0)
    )
    assert len(traces) == 1
    assert not np.allclose(soft, binary, atol=1e-2)
    deployed = {"params": adaste_jax.deploy(variables["params"])}
    close(binary, twin.apply(deployed, SEQUENCES))


def test_mu_of_an_nnx_layer():
    options = {"estimator": estimators.adaste_paper, "hyperparameters": {"mu": 0.01}}
    layer, twin = nnx_pair("attention", **options)
    checkpoint = nnx.state(twin, nnx.Param)
    nnx.update(layer, checkpoint)
    soft = layer(SEQUENCES)
    binary = layers.set_hyperparameters(layer, mu=100.0)(SEQUENCES)
    assert not np.allclose(soft, binary, atol=1e-2)
    nnx.update(twin, adaste_jax.deploy(checkpoint))
    close(binary, twin(SEQUENCES))


def test_cell_made_outside_of_the_layer_is_reached():
    """In a compact module the cell belongs to the module, beside the layer."""

    class Network(nn.Module):
        binary: bool

        @nn.compact
        def __call__(self, inputs):
            cell = nn.GRUCell(2)
            if self.binary:
                return linen.BinaryRNN(cell, estimator=RULE)(inputs)
            return nn.RNN(cell)(inputs)

    variables = jax.jit(Network(binary=True).init)(jax.random.key(0), SEQUENCES)
    assert list(variables["params"]) == ["GRUCell_0"]
    weights = adaste_jax.binarize(variables, RULE)
    close(
        Network(binary=True).apply(variables, SEQUENCES),
        Network(binary=False).apply(weights, SEQUENCES),
    )


def test_both_directions():
    rnn = functools.partial(linen.BinaryRNN, estimator=RULE)
    both = nn.Bidirectional(rnn(nn.GRUCell(2)), rnn(nn.GRUCell(2)))
    twin = nn.Bidirectional(nn.RNN(nn.GRUCell(2)), nn.RNN(nn.GRUCell(2)))
    variables = jax.jit(both.init)(jax.random.key(0), SEQUENCES)
    weights = adaste_jax.binarize(variables, RULE)
    close(both.apply(variables, SEQUENCES), twin.apply(weights, SEQUENCES))


def test_random_streams_of_nnx_go_on():
    """The copy that a call works on shares them with the layer."""
    options = {"dropout_rate": 0.5, "deterministic": False, "decode": False}
    layer = layers.BinaryMultiHeadAttention(
        2, 6, **options, estimator=estimators.ste_clipped, rngs=nnx.Rngs(0)
    )
    twin = nnx.MultiHeadAttention(2, 6, **options, rngs=nnx.Rngs(0))
    nnx.update(twin, adaste_jax.deploy(nnx.state(twin, nnx.Param)))
    inputs = np.random.default_rng(1).normal(size=(2, 3, 6)).astype(np.float32)
    first, second = layer(inputs), layer(inputs)
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, twin(inputs))
    np.testing.assert_array_equal(second, twin(inputs))


def test_sown_attention_weights_are_captured():
    rule = functools.partial(estimators.adaste_paper, cap=2.0)
    layer, twin = nnx_pair("attention", estimator=rule, hyperparameters={"mu": MU})
    nnx.update(twin, adaste_jax.binarize(nnx.state(layer, nnx.Param), RULE))
    captured = nnx.capture(lambda m: m(SEQUENCES, sow_weights=True), nnx.Intermediate)
    (_, found), (_, expected) = captured(layer), captured(twin)
    assert jax.tree.leaves(expected)[0].shape == (4, 2, 3, 3)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


class _Kernelless(nn.SimpleCell):
    """A cell whose parameter has another name."""

    @nn.compact
    def __call__(self, carry, inputs):
        hidden = carry * self.param("decay", nn.initializers.ones, (2,))[None]
        return hidden, hidden


def test_cell_without_a_kernel_is_refused():
    layer = linen.BinaryRNN(_Kernelless(2), estimator=RULE)
    variables = layer.init(jax.random.key(0), SEQUENCES)
    with pytest.raises(ValueError, match="called `kernel`, so nothing is estimated"):
        layer.apply(variables, SEQUENCES)
    model, _ = nnx_pair("GRUCell", estimator=RULE)
    model.cell = nnx.LayerNorm(5, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="called `kernel`, so nothing is estimated"):
        model(SEQUENCES)


def test_tied_embedding_of_linen_passes_the_rule_once():
    """The table is looked up and attended to; NNX has no place to keep the weights."""

    class Tied(nn.Module):
        binary: bool

        @nn.compact
        def __call__(self, tokens):
            table = (
                linen.BinaryEmbed(7, 4, estimator=RULE, name="table")
                if self.binary
                else nn.Embed(7, 4, name="table")
            )
            return table.attend(jnp.tanh(table(tokens)))

    tokens = np.array([[3, 0, 6], [3, 3, 1]])
    params = Tied(binary=True).init(jax.random.key(0), tokens)["params"]

    def value(params, binary):
        if not binary:
            params = adaste_jax.binarize(params, RULE, where="embedding")
        return objective(Tied(binary=binary).apply({"params": params}, tokens))

    differentiate = jax.jit(jax.grad(value), static_argnums=1)
    trees_close(differentiate(params, True), differentiate(params, False))
