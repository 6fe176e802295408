"""Units of the layer and of a channel, one number at a time."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import methods
from tests import reference

LATENTS = jax.random.normal(jax.random.key(0), (2, 3, 4)) * jnp.array(
    [[[1.0, 3, 0.2, 9]]]
)


def of_each_group(unit, weights):
    """A function of lists of latents, applied to each group that has a unit."""
    latents = np.asarray(LATENTS, np.float64)
    if unit == "layer":
        return np.reshape(weights(latents.ravel().tolist()), latents.shape)
    columns = latents.reshape(-1, latents.shape[-1]).T.tolist()
    return np.stack([weights(one) for one in columns], axis=-1).reshape(latents.shape)


def rms(group):
    return math.sqrt(sum(t * t for t in group) / len(group))


def size(group):
    return sum(map(abs, group)) / len(group)


def parq(group, slope):
    a = size(group)
    return [min(max(t / slope, -a), a) for t in group]


def blend(group, share):
    a = size(group)
    return [(1 - share) * t + share * math.copysign(a, t) for t in group]


STEP, STEPS = 30, 100
SHARE = STEP / 80  # of annealing, which takes 80 % of the run


def sigmoid(x):
    return 1 / (1 + math.exp(10 * (x - 0.5)))


EXPECTED = {
    "adaste": lambda group: reference.adaste_annealed(group, 0.01 * 1e4**SHARE, 0.01),
    "md_tanh_s": lambda group: [math.tanh(1e3**SHARE * t / rms(group)) for t in group],
    "blend": lambda group: blend(group, SHARE),
    "parq": lambda group: parq(
        group, (sigmoid(SHARE) - sigmoid(1)) / (sigmoid(0) - sigmoid(1))
    ),
}


@pytest.mark.parametrize("unit", ["layer", "channel"])
@pytest.mark.parametrize("name", EXPECTED)
def test_weights_are_those_of_the_formula_in_that_unit(name, unit):
    method = methods.METHODS[name](STEPS, unit=unit)
    params = {"kernel": LATENTS}
    found, pull = jax.vjp(lambda p: method.weights(p, STEP), params)
    wanted = of_each_group(unit, EXPECTED[name])
    np.testing.assert_allclose(found["kernel"], wanted, rtol=2e-4, atol=1e-6)
    (grads,) = pull({"kernel": LATENTS * 2 - 1})  # straight through, in any unit
    np.testing.assert_allclose(grads["kernel"], LATENTS * 2 - 1, rtol=1e-6)


@pytest.mark.parametrize("unit", ["layer", "channel"])
@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_shipped_has_the_scales_of_that_unit(name, unit):
    method = methods.METHODS[name](STEPS, unit=unit)
    shipped = method.deploy({"kernel": LATENTS})["kernel"]
    scaled = name in ("blend", "parq")
    wanted = of_each_group(
        unit,
        lambda group: [math.copysign(size(group) if scaled else 1, t) for t in group],
    )
    np.testing.assert_allclose(shipped, wanted, rtol=1e-6)
    assert method.scales(LATENTS.shape) == scaled * (4 if unit == "channel" else 1)
    if method.binary_from != methods.NEVER:
        after = method.weights({"kernel": LATENTS}, method.binary_from)["kernel"]
        np.testing.assert_array_equal(after, shipped)


@pytest.mark.parametrize("unit", ["layer", "channel"])
@pytest.mark.parametrize("name", ["adaste", "md_tanh_s"])
def test_units_do_not_change_with_the_size_of_the_latents(name, unit):
    method = methods.METHODS[name](STEPS, unit=unit)
    one, other = (
        method.weights({"kernel": LATENTS * factor}, STEP)["kernel"]
        for factor in (1.0, 64.0)
    )
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_published_units_are_the_default():
    params = {"kernel": LATENTS}
    for name, unit in (
        *(("adaste", "layer"), ("md_tanh_s", "absolute")),
        *(("parq", "channel"), ("blend", "channel")),
    ):
        one, other = methods.METHODS[name](9), methods.METHODS[name](9, unit=unit)
        assert jnp.array_equal(
            one.weights(params, 3)["kernel"], other.weights(params, 3)["kernel"]
        )


@pytest.mark.parametrize("name", EXPECTED)
def test_a_unit_that_there_is_not_is_named(name):
    with pytest.raises(ValueError, match=r"`unit` must be one of .*got 'tensor'"):
        methods.METHODS[name](9, unit="tensor")


@pytest.mark.parametrize("name", ["parq", "blend"])
def test_groups_have_scales_of_their_own(name):
    with pytest.raises(ValueError, match='`unit` must be "channel" where `group`'):
        methods.METHODS[name](9, unit="layer", group=2)
