"""Estimators by groups of inputs, against loops over the groups."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import estimators
from tests import reference

# Shape, size of the groups, axis, and how long a group is along each axis.
GROUPED = {
    "dense": ((12, 3), 4, -2, (4, 1)),
    "one group": ((12, 3), 12, -2, (12, 1)),
    "groups of one": ((4, 3), 1, -2, (1, 1)),
    "convolution": ((2, 3, 8, 3), 4, -2, (1, 1, 4, 1)),
    "embedding": ((5, 12), 6, -1, (1, 6)),
    "into heads": ((8, 3, 2), 4, 0, (4, 1, 1)),
    "out of heads, whole": ((6, 4, 3), 8, (0, 1), (2, 4, 1)),
    "out of heads, parts": ((6, 4, 3), 2, (0, 1), (1, 2, 1)),
    "three axes": ((2, 4, 3, 5), 6, (0, 1, 2), (1, 2, 3, 1)),
    "vector": ((8,), 4, -1, (4,)),
}
grouped = pytest.mark.parametrize(
    ("shape", "size", "axis", "block"), GROUPED.values(), ids=list(GROUPED)
)


def _drawn(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def _blocks(shape, block):
    """The places of each group."""
    starts = [range(0, n, b) for n, b in zip(shape, block, strict=True)]
    for start in itertools.product(*starts):
        yield tuple(slice(s, s + b) for s, b in zip(start, block, strict=True))


def _pull(estimator, latent, grad):
    weight, pullback = jax.vjp(estimator, jnp.asarray(latent))
    return np.asarray(weight), np.asarray(pullback(jnp.asarray(grad))[0])


@grouped
@pytest.mark.parametrize("scale_grad", ["constant", "exact", "diagonal"])
def test_scaled_signs_are_those_of_each_group(
    float64, shape, size, axis, block, scale_grad
):
    """Weights, and gradients, in which the scale is that of the group too."""
    estimator = functools.partial(estimators.scaled_sign, scale_grad=scale_grad)
    latent, grad = _drawn(shape), _drawn(shape, 1)
    got = _pull(estimators.per_group(estimator, size, axis=axis), latent, grad)
    for part in _blocks(shape, block):
        assert latent[part].size == size
        expected = reference.scaled_sign(
            latent[part].reshape(-1), grad[part].reshape(-1), scale_grad
        )
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one[part].reshape(-1), other, rtol=1e-12)


@grouped
def test_ternary_weights_are_those_of_each_group(float64, shape, size, axis, block):
    latent, grad = 0.5 * _drawn(shape), _drawn(shape, 1)
    absmean = _pull(
        estimators.per_group(estimators.ternary_absmean, size, axis=axis), latent, grad
    )
    twn = _pull(
        estimators.per_group(estimators.ternary_twn, size, axis=axis), latent, grad
    )
    np.testing.assert_array_equal(absmean[1], grad)
    np.testing.assert_array_equal(twn[1], grad * (np.abs(latent) <= 1))
    for part in _blocks(shape, block):
        one = latent[part]
        scale = np.abs(one).mean()
        expected = scale * np.clip(np.round(one / scale), -1, 1)
        np.testing.assert_allclose(absmean[0][part], expected, rtol=1e-12)
        kept = np.abs(one) > 0.7 * scale
        expected = np.where(kept, np.sign(one) * np.abs(one)[kept].mean(), 0)
        np.testing.assert_allclose(twn[0][part], expected, rtol=1e-12)


def test_it_is_the_same_under_jit_vmap_and_with_traced_keywords():
    latent, grad = (jnp.asarray(_drawn((2, 8, 3), i), jnp.float32) for i in (0, 1))
    estimator = estimators.per_group(estimators.adaste, 4)

    def pull(latent, grad, mu):
        weight, pullback = jax.vjp(lambda t: estimator(t, mu=mu), latent)
        return weight, pullback(grad)[0]

    expected = [pull(t, g, 0.5) for t, g in zip(latent, grad, strict=True)]
    got = jax.jit(jax.vmap(pull, in_axes=(0, 0, None)))(latent, grad, 0.5)
    for i in range(2):
        for one, other in zip(got, expected[i], strict=True):
            np.testing.assert_allclose(one[i], other, rtol=1e-6, atol=1e-7)
    weight = expected[0][0]
    for part in _blocks((8, 3), (4, 1)):  # units and mean of each group
        alone = estimators.adaste(latent[0][part], mu=0.5)
        np.testing.assert_allclose(weight[part], alone, rtol=1e-6)


def test_each_group_has_a_key_of_its_own():
    latent = jnp.zeros((64, 8))
    estimator = estimators.per_group(estimators.bernoulli_identity, 16)
    drawn = np.asarray(estimator(latent, key=jax.random.key(0)))
    groups = drawn.reshape(4, 16, 8).transpose(0, 2, 1).reshape(32, 16)
    assert len(np.unique(groups, axis=0)) == 32
    again = jax.jit(estimator)(latent, key=jax.random.key(0))
    np.testing.assert_array_equal(drawn, again)
    assert (drawn != estimator(latent, key=jax.random.key(1))).any()


def test_sharding_along_inputs_or_outputs_is_kept():
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    latent = jnp.asarray(_drawn((32, 8)), jnp.float32)
    estimator = jax.jit(estimators.per_group(estimators.scaled_sign, 8))
    expected = estimator(latent)
    for spec in (("x", None), (None, "x")):
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
        got = estimator(jax.device_put(latent, sharding))
        np.testing.assert_array_equal(got, expected)
        assert got.sharding.is_equivalent_to(sharding, 2)


def test_a_latent_without_entries_has_no_groups():
    estimator = estimators.per_group(estimators.ternary_absmean, 128)
    assert estimator(jnp.zeros((0, 3))).shape == (0, 3)
    with pytest.raises(ValueError, match="`epsilon` must lie"):
        estimator(jnp.zeros((0, 3)), epsilon=-1.0)


@pytest.mark.parametrize(
    ("shape", "size", "axis", "message"),
    [
        ((100, 3), 64, -2, r"do not fill 100.*Use 64 or 128 inputs"),
        ((30, 3), 64, -2, r"the last would be short\. Use 64 inputs"),
        ((8,), 4, -2, r"`axis=-2` is not an axis of a latent of shape \(8,\)"),
        ((8, 4), 4, 2, r"`axis=2` is not an axis"),
        ((8, 4), 4, (), r"is not an axis"),
        ((8, 4), 4, (1, 0), r"in rising order"),
        ((8, 4, 2), 4, (0, 2), r"must name neighbouring axes"),
        ((12, 64, 3), 96, (0, 1), r"do not fit the axes `axis=\(0, 1\)`"),
    ],
)
def test_groups_that_do_not_fit_are_refused(shape, size, axis, message):
    estimator = estimators.per_group(estimators.scaled_sign, size, axis=axis)
    with pytest.raises(ValueError, match=message):
        estimator(jnp.ones(shape))


@pytest.mark.parametrize(
    ("size", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError)]
)
def test_sizes_that_are_none_are_refused(size, error):
    with pytest.raises(error, match="`size` must be"):
        estimators.per_group(estimators.ste, size)


def test_weights_of_another_shape_are_refused():
    estimator = estimators.per_group(lambda latent: latent[..., 0], 4)
    with pytest.raises(ValueError, match=r"of latents \(4, 1\) it made \(4,\)"):
        estimator(jnp.ones((8, 3)))
