"""BayesBiNN on the rows of its tables."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adaste_jax
from adaste_jax import estimators, optim
from adaste_jax.estimators import _bayesbinn

# Tables are printed to six digits and computed in float64.
DIGITS = 5e-6

# latent, mean, u, temperature, g, weight, s, G, latent after; N = 100, lr = 1e-3
ROWS = [
    (0, 0, 0.5, 1, 0.1, 0, 1, 10, -0.01),
    (0.3, 0.291313, 0.7, 1, 0.1, 0.619164, 0.673818, 6.73818, 0.292962),
    (-1.2, -0.833655, 0.4, 0.5, -0.2, -0.992711, 0.0952345, -1.90469, -1.1969),
    (0.5, 0.462117, 0.9, 0.01, 0.1, 1, 1.27154e-08, 1.27154e-07, 0.4995),
]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("row", ROWS)
def test_rows(float64, row, dtype):
    latent, mean, uniform, temperature, grad, weights, s, natural, after = row
    rtol = DIGITS if dtype == jnp.float64 else 1e-4
    latent, grad = jnp.array([latent], dtype), jnp.array([grad], dtype)
    weight = _bayesbinn._sample(latent, jnp.array([uniform], dtype), temperature)
    np.testing.assert_allclose(weight, [weights], rtol=rtol)
    np.testing.assert_allclose(jnp.tanh(latent), [mean], rtol=rtol)

    scale = optim.scale_by_bayesbinn(
        num_examples=100, temperature=temperature, decay=0.0
    )
    got, _ = scale.update(grad, scale.init(latent), latent, weights=weight)
    np.testing.assert_allclose(got, [natural], rtol=rtol)
    np.testing.assert_allclose(got / (100 * grad), [s], rtol=rtol)

    tx = optim.bayesbinn(1e-3, num_examples=100, temperature=temperature)
    updates, _ = tx.update(grad, tx.init(latent), latent, weights=weight)
    np.testing.assert_allclose(latent + updates, [after], rtol=2e-5)


# u, g, latent before, mean used, weight, s, latent after; lr = 1e-2, temperature 1
TRACE = [
    (0.7, 0.1, 0.3, 0.291313, 0.619164, 0.673818, 0.229618),
    (0.4, -0.2, 0.229618, 0.291313, 0.0268792, 1.09194, 0.445711),
    (0.5, 0.3, 0.445711, 0.225666, 0.418367, 0.869235, 0.180483),
]


def test_trace_with_the_mean_one_step_late(float64):
    tx = optim.bayesbinn(1e-2, num_examples=100, temperature=1.0)
    latent = jnp.array(TRACE[0][2])
    state = tx.init(latent)
    for uniform, grad, before, mean, weights, s, after in TRACE:
        np.testing.assert_allclose(latent, before, rtol=DIGITS)
        np.testing.assert_allclose(state[0].mean, mean, rtol=DIGITS)
        weight = _bayesbinn._sample(latent, jnp.array(uniform), 1.0)
        np.testing.assert_allclose(weight, weights, rtol=DIGITS)
        updates, state = tx.update(jnp.array(grad), state, latent, weights=weight)
        natural = -updates / 1e-2 - latent
        np.testing.assert_allclose(natural / (100 * grad), s, rtol=2e-5)
        latent = latent + updates
        np.testing.assert_allclose(latent, after, rtol=2e-5)


def test_the_paper_uses_the_mean_of_this_step():
    options = {"num_examples": 1.0, "temperature": 1.0, "decay": 0.0}
    late = optim.scale_by_bayesbinn(**options)
    now = optim.scale_by_bayesbinn(**options, stale_mean=False)
    start, moved = jnp.array([0.2]), jnp.array([1.5])
    grad, weight = jnp.array([1.0]), jnp.array([0.0])
    first = [
        tx.update(grad, tx.init(start), start, weights=weight) for tx in (late, now)
    ]
    np.testing.assert_array_equal(first[0][0], first[1][0])
    second = [
        tx.update(grad, state, moved, weights=weight)[0]
        for tx, (_, state) in zip((late, now), first, strict=True)
    ]
    np.testing.assert_allclose(second[0], np.cosh(0.2) ** 2, rtol=1e-5)
    np.testing.assert_allclose(second[1], np.cosh(1.5) ** 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "expected"), [(np.float64, 1.19838e8), (np.float32, 1e10)]
)
def test_saturated_samples_live_on_epsilon(float64, dtype, expected):
    """At the published temperature; in float32 the scale is 1 / temperature."""
    tx = optim.scale_by_bayesbinn(num_examples=1, temperature=1e-10, decay=0.0)
    latent = jnp.array([10.0, -10.0], dtype)
    weight = estimators.bayesbinn_sample(
        latent, key=jax.random.key(0), temperature=1e-10
    )
    np.testing.assert_array_equal(weight, [1, -1])
    got, _ = tx.update(jnp.ones(2, dtype), tx.init(latent), latent, weights=weight)
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_samples_are_averaged_after_their_scale():
    """Each sample has its own; the mean of gradients would not do."""
    latent = jnp.array([0.3, -0.5, 1.0])
    rng = np.random.default_rng(0)
    weights = jnp.asarray(np.tanh(rng.normal(size=(4, 3))), jnp.float32)
    grads = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
    tx = optim.scale_by_bayesbinn(num_examples=10, temperature=0.5)
    state = tx.init(latent)
    got, _ = tx.update(grads, state, latent, weights=weights)
    one_by_one = [
        tx.update(grad, state, latent, weights=weight)[0]
        for grad, weight in zip(grads, weights, strict=True)
    ]
    np.testing.assert_allclose(got, np.mean(one_by_one, axis=0), rtol=1e-5)


def test_the_prior_pulls():
    latent = jnp.array([2.0])
    tx = optim.scale_by_bayesbinn(
        num_examples=1, temperature=1.0, decay=0.5, prior=-1.0
    )
    got, _ = tx.update(0 * latent, tx.init(latent), latent, weights=0 * latent)
    np.testing.assert_allclose(got, 1.5, rtol=1e-6)


def test_it_trains_beside_real_parameters():
    """Inside a partition, which masks the samples as it masks the gradients."""
    params = {"kernel": jnp.full((3,), 0.5), "bias": jnp.zeros((1,))}
    tx = optax.partition(
        {
            "latent": optim.bayesbinn(1e-3, num_examples=10, temperature=1.0),
            "real": optax.sgd(0.1),
        },
        optim.labels(params, {"latent": adaste_jax.kernels()}),
        mask_compatible_extra_args=True,
    )
    state = tx.init(params)

    @jax.jit
    def step(params, state, key):
        weights = adaste_jax.binarize(
            params,
            functools.partial(estimators.bayesbinn_sample, temperature=1.0),
            key=key,
        )
        grads = jax.grad(lambda w: jnp.sum(w["kernel"]) + w["bias"][0])(weights)
        updates, state = tx.update(grads, state, params, weights=weights)
        return optax.apply_updates(params, updates), state

    moved, _ = step(params, state, jax.random.key(0))
    assert (moved["kernel"] < params["kernel"]).all()
    np.testing.assert_allclose(moved["bias"], -0.1, rtol=1e-6)


def test_saturated_weights_keep_their_epsilon_under_jit():
    """The factor is 1 / T where 1 - w^2 and 1 - v^2 are 0 in float32."""
    latent, weight = jnp.array([10.0, -10.0]), jnp.array([1.0, -1.0])
    tx = optim.scale_by_bayesbinn(num_examples=1, temperature=1e-10, decay=0.0)
    update = jax.jit(lambda g: tx.update(g, tx.init(latent), latent, weights=weight)[0])
    np.testing.assert_allclose(update(jnp.ones(2)), 1e10, rtol=1e-5)


def test_what_is_missing_or_out_of_range_is_refused():
    latent = jnp.ones(2)
    tx = optim.bayesbinn(1e-3, num_examples=10)
    with pytest.raises(ValueError, match=r"weights=weights\)"):
        tx.update(latent, tx.init(latent), latent)
    with pytest.raises(ValueError, match=r"tx\.update\(updates, state, params\)"):
        tx.update(latent, tx.init(latent), weights=latent)
    with pytest.raises(ValueError, match="`temperature` must lie in"):
        optim.bayesbinn(1e-3, num_examples=10, temperature=0.0)
    with pytest.raises(ValueError, match="`num_examples` must lie in"):
        optim.bayesbinn(1e-3, num_examples=0)
