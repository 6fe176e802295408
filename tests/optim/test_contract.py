"""What every transformation must do, one row for each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adaste_jax
from adaste_jax import estimators, optim

LEARNING_RATE = 0.03

# Complete optimisers of latents, and the estimator that the loss uses with each. Some
# want a start of their own.
STRAIGHT = estimators.ste
GROWING = optim.per_epoch(optax.exponential_decay(1.02, 1, 1.02, end_value=100.0), 5)
STARTS = {
    "bop": optim.binary_signs,
    "md_softmax": lambda latent: jnp.stack([-latent, latent], -1),
    "vispa": lambda latent: jnp.stack([latent, 0.1 * latent, 0.1 * latent**2], -1),
}
RANDOM = ("binary_connect_stochastic", "bayesbinn", "vispa")
CASES = {
    "scale_by_adaste": (
        optax.chain(optim.scale_by_adaste(1.0), optax.scale(-LEARNING_RATE)),
        functools.partial(estimators.adaste_paper, mu=1.0, rule="identity"),
    ),
    "scale_by_adaste_after_momentum": (
        optax.chain(
            optax.ema(0.9),
            optim.scale_by_adaste(GROWING, unit="rms"),
            optax.scale(-LEARNING_RATE),
        ),
        STRAIGHT,
    ),
    "adaste_averaged": (optim.adaste_averaged(LEARNING_RATE, mu=5.0), STRAIGHT),
    "adaste_released": (
        optim.adaste_released(
            optim.per_epoch(optax.cosine_decay_schedule(LEARNING_RATE, 20), 2),
            mu=100.0,
            grad_scale=1.0,
        ),
        STRAIGHT,
    ),
    "hardtanh_adaste": (
        optax.chain(
            optax.ema(0.9), optim.scale_by_hardtanh_adaste(), optax.scale(-0.1)
        ),
        functools.partial(estimators.hardtanh_adaste, straight_through=True),
    ),
    "fenbp": (
        optax.chain(optax.ema(0.9), optim.scale_by_fenbp(0.5), optax.scale(-0.1)),
        functools.partial(estimators.fenbp, beta=0.5, straight_through=True),
    ),
    "binary_connect": (optim.binary_connect(LEARNING_RATE), estimators.ste_clipped),
    "binary_connect_stochastic": (
        optim.binary_connect(LEARNING_RATE),
        estimators.bernoulli_hard,
    ),
    "bop": (optim.bop(0.1, tau=0.05), lambda weight: weight),
    "bayesbinn": (
        optim.bayesbinn(0.01, num_examples=10, temperature=1.0, momentum=0.5),
        functools.partial(estimators.bayesbinn_sample, temperature=1.0),
    ),
    "proxquant": (
        optim.proxquant(
            LEARNING_RATE,
            strength=optim.per_epoch(lambda epoch: 1e-6 * epoch, 5),
            clip=True,
        ),
        lambda latent: latent,
    ),
    "proxquant_ternary": (
        optim.proxquant(LEARNING_RATE, strength=1e-3, form="ternary"),
        lambda latent: latent,
    ),
    "md_tanh": (
        optim.md_tanh(LEARNING_RATE, beta=GROWING),
        functools.partial(estimators.md_tanh_s, beta=1.0),
    ),
    "md_softmax": (
        optim.md_softmax(LEARNING_RATE, beta=GROWING),
        functools.partial(estimators.md_softmax_s, beta=1.0),
    ),
    "vispa": (optim.vispa(), estimators.vispa_sample),
    "scale_by_ovsw": (
        optax.chain(optim.scale_by_ovsw(0.1), optax.sgd(0.1, momentum=0.9)),
        STRAIGHT,
    ),
    "freeze_oscillations": (
        optax.chain(
            optax.adam(LEARNING_RATE), optim.freeze_oscillations(0.05, momentum=0.01)
        ),
        STRAIGHT,
    ),
    "apply_cage": (
        optax.chain(optax.adam(LEARNING_RATE), optim.apply_cage(STRAIGHT, 0.01)),
        STRAIGHT,
    ),
}

every = pytest.mark.parametrize("name", CASES)


@pytest.fixture
def problem(name):
    """Least squares whose solution is binary; and latents to start from."""
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(32, 6))
    solution = rng.choice([-1.0, 1.0], size=(6, 4))
    latent = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)
    params = {
        "kernel": STARTS.get(name, lambda latent: latent)(latent),
        "bias": jnp.zeros((4,), jnp.float32),
    }
    data = jnp.asarray(inputs, jnp.float32), jnp.asarray(inputs @ solution, jnp.float32)
    return params, data


@functools.cache
def _compiled(name):
    latents, estimator = CASES[name]
    tx = optax.with_extra_args_support(
        optax.partition(
            {"latent": latents, "real": optax.sgd(0.1)},
            lambda params: optim.labels(params, {"latent": adaste_jax.kernels()}),
            mask_compatible_extra_args=True,
        )
    )
    traces = []

    def loss_of(weights, data):
        inputs, targets = data
        predictions = inputs @ weights["kernel"] + weights["bias"][None]
        return jnp.mean(jnp.square(predictions - targets))

    @jax.jit
    def step(params, state, data):
        traces.append(name)
        # A fresh key in every step, made from what changes in every step.
        seed = jax.lax.bitcast_convert_type(params["bias"].sum(), jnp.int32)
        key = jax.random.key(seed) if name in RANDOM else None
        weights, pullback = jax.vjp(
            lambda params: adaste_jax.binarize(params, estimator, key=key), params
        )
        loss, grads = jax.value_and_grad(loss_of)(weights, data)
        (grads,) = pullback(grads)
        updates, state = tx.update(
            grads, state, params, weights=weights, unused_argument=loss
        )
        return optax.apply_updates(params, updates), state, loss

    return tx, step, traces


@every
def test_state_has_a_fixed_structure_and_the_second_call_does_not_compile(
    name, problem
):
    params, data = problem
    tx, step, traces = _compiled(name)
    before = tx.init(params)
    params, state, _ = step(params, before, data)
    compilations = len(traces)
    params, state, _ = step(params, state, data)
    assert len(traces) == compilations
    describe = lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf))
    assert jax.tree.map(describe, before) == jax.tree.map(describe, state)


@every
def test_steps_lower_the_loss(name, problem):
    """With arguments for other transformations of the chain passing by."""
    params, data = problem
    tx, step, _ = _compiled(name)
    state, losses = tx.init(params), []
    for _ in range(60):
        params, state, loss = step(params, state, data)
        losses.append(float(loss))
    assert np.mean(losses[-5:]) < 0.7 * losses[0]


@every
def test_sharded_data_and_latents_are_one_device(name, problem):
    params, data = problem
    tx, step, _ = _compiled(name)
    expected, _, expected_loss = step(params, tx.init(params), data)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    by_batch = jax.sharding.NamedSharding(mesh, spec("data"))
    by_column = jax.sharding.NamedSharding(mesh, spec(None, "data"))
    everywhere = jax.sharding.NamedSharding(mesh, spec())
    params = {
        "kernel": jax.device_put(params["kernel"], by_column),
        "bias": jax.device_put(params["bias"], everywhere),
    }
    got, _, loss = step(params, tx.init(params), jax.device_put(data, by_batch))
    assert len(got["kernel"].devices()) == 4
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    for key in ("kernel", "bias"):
        np.testing.assert_allclose(got[key], expected[key], rtol=1e-5, atol=1e-6)
