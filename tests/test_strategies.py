"""The same steps on one device, on many, and in microbatches, by every strategy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adaste_jax
from adaste_jax import estimators, optim, train

BATCH, INPUTS, HIDDEN, CLASSES, STEPS = 32, 6, 8, 3, 5
THRESHOLD = 1e-3  # of `released`, on the gradient

MU = optax.exponential_decay(0.5, 1, 2.0)


def forward(params, model_state, inputs, *, train, key):
    """Two binary layers, the first of which is used twice."""
    del train, key
    kernel = params["tied"]["kernel"]
    hidden = jax.nn.relu(jnp.tanh(inputs @ kernel) @ kernel.T)
    logits = hidden @ params["last"]["kernel"] + params["last"]["bias"][None]
    return logits, model_state


@pytest.fixture(scope="module")
def params():
    keys = jax.random.split(jax.random.key(1))
    draw = lambda key, shape: jax.device_get(jax.random.normal(key, shape))
    return {
        "tied": {"kernel": draw(keys[0], (INPUTS, HIDDEN))},
        "last": {
            "kernel": draw(keys[1], (INPUTS, CLASSES)),
            "bias": np.linspace(-0.2, 0.3, CLASSES, dtype=np.float32),
        },
    }


@pytest.fixture(scope="module")
def batches():
    keys = jax.random.split(jax.random.key(2))
    images = 0.3 * jax.random.normal(keys[0], (STEPS, BATCH, INPUTS))
    labels = jax.random.randint(keys[1], (STEPS, BATCH), 0, CLASSES)
    images, labels = np.asarray(images), np.asarray(labels)
    return [{"image": images[i], "label": labels[i]} for i in range(STEPS)]


def hard_tanh(threshold=1.0):
    """The rule of `ste_clipped` as a transformation."""
    return optax.stateless(
        lambda grads, params: jax.tree.map(
            lambda g, t: jnp.where(jnp.abs(t) <= threshold, g, 0.0), grads, params
        )
    )


SGD = functools.partial(optax.sgd, 0.3, momentum=0.9)


def rule_first(rule):
    return optax.chain(optax.masked(rule, adaste_jax.kernels()), SGD())


def annealed(rule):
    return {
        "estimator": functools.partial(estimators.adaste, rule=rule),
        "hyperparameters": {"mu": MU},
    }


def scaled(rule):
    return optim.scale_by_adaste(MU, rule=rule)


METHODS = {
    ("adaptive", "estimator"): (SGD(), annealed("adaptive")),
    ("adaptive", "transform"): (rule_first(scaled("adaptive")), annealed("identity")),
    ("released", "estimator"): (SGD(), annealed("released")),
    ("released", "transform"): (rule_first(scaled("released")), annealed("identity")),
    ("ste", "estimator"): (SGD(), {"estimator": estimators.ste_clipped}),
    ("ste", "transform"): (
        rule_first(hard_tanh()),
        {"estimator": estimators.ste_identity},
    ),
}


def new_state(params, tx, model_state=None):
    # The step donates its state, so every run gets arrays of its own.
    params = jax.tree.map(jnp.array, params)
    key = jax.random.key(3)
    return train.TrainState.create(params, tx, key=key, model_state=model_state)


def run(step, state, batches):
    for batch in batches:
        state, report = step(state, batch)
    return jax.device_get((state.params, state.opt_state)), jax.device_get(report)


@pytest.fixture(scope="module")
def one_device(params, batches):
    """Latents and moments after five steps on one device, one big batch; by method."""
    mesh = train.data_mesh(jax.devices()[:1])

    @functools.cache
    def take(method):
        tx, options = METHODS[method]
        step = train.make_train_step(forward, tx, mesh=mesh, **options)
        return run(step, new_state(params, tx), batches)

    return take


def differing(found, expected, rtol=1e-5):
    """Entries that are not the same, float32 rounding aside."""
    close = jax.tree.map(
        lambda a, b: np.isclose(a, b, rtol=rtol, atol=1e-6), found, expected
    )
    return sum(int((~leaf).sum()) for leaf in jax.tree.leaves(close))


def bits_equal(found, expected):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@functools.cache
def entries_at_the_threshold(batches_key):
    raise NotImplementedError


@pytest.mark.parametrize("microbatches", [1, 4])
@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("strategy", ["jit", "shard_map", "pmap"])
@pytest.mark.parametrize("method", METHODS, ids="-".join)
def test_every_way_takes_the_steps_of_one_device(
    method, strategy, count, microbatches, params, batches, one_device
):
    tx, options = METHODS[method]
    step = train.make_train_step(
        forward,
        tx,
        strategy=strategy,
        microbatches=microbatches,
        mesh=train.data_mesh(jax.devices()[:count]),
        **options,
    )
    found, report = run(step, new_state(params, tx), batches)
    expected, expected_report = one_device(method)
    print("BITS", strategy, count, microbatches, method, bits_equal(found, expected))
    assert differing(found, expected) == 0
    assert differing(report, expected_report) == 0
