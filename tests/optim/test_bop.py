"""Bop on the rows of its tables."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaste_jax import optim

# weight, average before, gradient, average after, weight after; gamma 0.1, tau 0.001
ROWS = [
    (1, 0, 0.05, 0.005, -1),
    (1, 0, -0.05, -0.005, 1),
    (-1, 0, -0.05, -0.005, 1),
    (1, 0, 0.005, 0.0005, 1),
    (1, 0.002, -0.01, 0.0008, 1),
    (-1, -0.002, 0.1, 0.0082, -1),
]


def test_rows():
    """A flip needs weight and average of one sign."""
    weight, before, grad, after, flipped = map(np.float32, zip(*ROWS, strict=True))
    tx = optim.bop(0.1, tau=0.001)
    state = tx.init(jnp.asarray(weight))._replace(momentum=jnp.asarray(before))
    updates, state = tx.update(jnp.asarray(grad), state, jnp.asarray(weight))
    assert set(np.unique(updates)) <= {-2.0, 0.0, 2.0}
    np.testing.assert_array_equal(weight + updates, flipped)
    np.testing.assert_allclose(state.momentum, after, rtol=1e-5)


def test_trace():
    tx = optim.bop(0.5, tau=0.005)
    weight = jnp.array(1.0)
    state, trace = tx.init(weight), []
    for grad in (0.02, -0.04, -0.04):
        updates, state = tx.update(jnp.array(grad), state, weight)
        weight = optax.apply_updates(weight, updates)
        trace.append((float(weight), float(state.momentum)))
    np.testing.assert_allclose(
        trace, [(-1, 0.01), (1, -0.015), (1, -0.0275)], rtol=1e-6
    )


@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_a_tie_keeps_the_weight(weight):
    """The inequality is strict, and the weight is not made +1."""
    tx = optim.bop(0.5, tau=0.25)
    start = jnp.array([weight])
    updates, _ = tx.update(jnp.array([0.5 * weight]), tx.init(start), start)
    np.testing.assert_array_equal(updates, 0.0)


def test_gamma_and_tau_may_be_schedules():
    tx = optim.bop(
        lambda step: 0.5 / (1 + step), tau=lambda step: jnp.where(step == 0, 1.0, 0.0)
    )
    weight, grad = jnp.array([1.0]), jnp.array([1.0])
    updates, state = tx.update(grad, tx.init(weight), weight)
    assert updates == 0
    updates, state = tx.update(grad, state, weight)
    assert updates == -2
    np.testing.assert_allclose(state.momentum, 0.75 * 0.5 + 0.25, rtol=1e-6)


def test_it_is_a_momentum_of_signs_at_tau_zero():
    """The weight has, after a step, the sign of minus the average, up to ties."""
    rng = np.random.default_rng(0)
    weight = optim.binary_signs(jnp.asarray(rng.normal(size=20)))
    tx = optim.bop(0.2, tau=0.0)
    state, average = tx.init(weight), np.zeros(20)
    for _ in range(5):
        grad = rng.normal(size=20)
        average = 0.8 * average + 0.2 * grad
        updates, state = tx.update(jnp.asarray(grad, jnp.float32), state, weight)
        weight = optax.apply_updates(weight, updates)
        np.testing.assert_array_equal(weight, -np.sign(average))


def test_half_precision_weights_keep_their_average_in_float32():
    weight = jnp.array([1.0, -1.0], jnp.bfloat16)
    tx = optim.bop(1e-4, tau=1e-8)
    updates, state = tx.update(jnp.ones(2, jnp.bfloat16), tx.init(weight), weight)
    assert updates.dtype == jnp.bfloat16
    assert state.momentum.dtype == jnp.float32
    np.testing.assert_array_equal(np.float32(weight + updates), -1.0)


def test_binary_signs_are_never_zero():
    got = optim.binary_signs({"a": jnp.array([-2.0, 0.0, -0.0, 3.0])})
    np.testing.assert_array_equal(got["a"], [-1, 1, 1, 1])


def test_other_weights_are_refused_by_name():
    params = {"kernel": jnp.array([1.0, -1.0]), "bias": jnp.array([0.0])}
    with pytest.raises(ValueError, match=r"\['bias'\] has others.*binary_signs"):
        optim.bop().init(params)
    with pytest.raises(ValueError, match="the array has others"):
        optim.bop().init(jnp.array([0.5]))
    tx = optax.masked(optim.bop(), {"kernel": True, "bias": False})
    tx.init(params)
    jax.jit(optim.bop().init)(params)  # what is traced cannot be looked at


@pytest.mark.parametrize(
    ("options", "message"),
    [({"gamma": 1.5}, "`gamma` must lie in"), ({"tau": -1.0}, "`tau` must lie in")],
)
def test_what_is_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        optim.bop(**options)
    weight = jnp.ones(2)
    tx = optim.bop()
    with pytest.raises(ValueError, match=r"tx\.update\(updates, state, params\)"):
        tx.update(weight, tx.init(weight))
