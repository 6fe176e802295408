"""Folding against the formula in float64, and against the unfolded network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import adaste_jax
from adaste_jax import export


def statistics(channels, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "mean": rng.normal(size=channels),
        "var": rng.uniform(0.1, 3.0, channels),
        "scale": rng.normal(size=channels),
        "bias": rng.normal(size=channels),
    }


@pytest.mark.parametrize("affine", [True, False])
def test_scale_and_shift_are_batch_normalisation(float64, affine):
    s = statistics(7)
    if not affine:
        s |= {"scale": None, "bias": None}
    scale, shift = export.fold_batch_norm(**s, epsilon=1e-3)
    x = np.random.default_rng(1).normal(size=(4, 7))
    for channel in range(7):
        gamma = s["scale"][channel] if affine else 1.0
        beta = s["bias"][channel] if affine else 0.0
        root = np.sqrt(s["var"][channel] + 1e-3)
        expected = gamma * (x[:, channel] - s["mean"][channel]) / root + beta
        folded = x[:, channel] * scale[channel] + shift[channel]
        np.testing.assert_allclose(folded, expected, rtol=1e-12, atol=1e-12)


def test_threshold_decides_as_the_sign_does():
    """Integers, as binary inputs give; slopes of either sign, zero, and exact ties."""
    scale = jnp.array([0.5, -0.5, 2.0, -1.0, 0.0, 0.0, 0.0])
    shift = jnp.array([1.5, 1.5, -4.0, 0.0, 0.1, 0.0, -0.1])
    threshold, direction = export.fold_threshold(scale, shift)
    np.testing.assert_array_equal(threshold, [-3, 3, 2, 0, -np.inf, -np.inf, np.inf])
    for x in range(-6, 7):
        for channel in range(7):
            value = float(scale[channel]) * x + float(shift[channel])
            distance = float(direction[channel]) * (x - float(threshold[channel]))
            assert (distance >= 0) == (value >= 0), (x, channel)


class Network(nn.Module):
    """Normalisation with and without affine, epsilon and axis of their own, nested."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(6, (3, 3))(x)
        x = nn.BatchNorm(use_running_average=not train, epsilon=0.1)(x)
        x = Block(name="block")(nn.relu(x), train)
        x = x.reshape(x.shape[0], -1)
        x = nn.Dense(5, use_bias=False)(x)
        return nn.BatchNorm(use_scale=False, use_bias=False, name="last")(
            x, use_running_average=not train
        )


class Block(nn.Module):
    """A residual block with channels on the second axis."""

    @nn.compact
    def __call__(self, x, train):
        y = nn.Conv(6, (3, 3), use_bias=False)(x)
        y = jnp.moveaxis(y, -1, 1)
        y = nn.BatchNorm(axis=1, use_bias=False)(y, not train)
        return x + jnp.moveaxis(y, 1, -1)


@pytest.fixture(scope="module")
def network():
    model = Network()
    x = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    leaves, structure = jax.tree.flatten(variables["batch_stats"])
    keys = jax.random.split(jax.random.key(2), len(leaves))
    stats = [
        jax.random.uniform(key, leaf.shape, minval=0.3)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return model, variables | {"batch_stats": jax.tree.unflatten(structure, stats)}, x


def test_a_folded_network_gives_the_same_outputs(network):
    model, variables, x = network
    variables = variables | {"params": adaste_jax.deploy(variables["params"])}
    folded = export.fold_linen(model, variables, x, train=False)
    assert set(folded) == {"params"}
    expected = model.apply(variables, x)
    outputs = export.apply_folded(model, folded, x)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-4)
    assert jnp.abs(expected).max() > 1
    np.testing.assert_array_equal(
        folded["params"]["block"]["Conv_0"]["kernel"],
        variables["params"]["block"]["Conv_0"]["kernel"],
    )


def test_folding_needs_evaluation_mode_and_something_to_fold(network):
    model, variables, x = network
    with pytest.raises(ValueError, match=r"BatchNorm_0.*evaluation mode"):
        export.fold_linen(model, variables, x, train=True, mutable=["batch_stats"])
    dense = nn.Dense(2)
    with pytest.raises(ValueError, match="nothing to fold"):
        export.fold_linen(dense, dense.init(jax.random.key(0), x), x)


def test_apply_folded_leaves_unfolded_layers_alone(network):
    model, variables, x = network
    np.testing.assert_array_equal(
        export.apply_folded(model, variables, x), model.apply(variables, x)
    )
