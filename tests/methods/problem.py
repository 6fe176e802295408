"""A small network, its data, and one step of a method by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adaste_jax import methods

# Short enough for a test, long enough for every schedule to move.
STEPS = 52
OPTIONS = {"steps_per_epoch": 4, "num_examples": 96, "warmup_steps": 3}
KEY = jax.random.key(5)


def network(weights, inputs):
    """Two dense layers without batch norm, and a real bias in each."""
    hidden = inputs @ weights["first"]["kernel"] + weights["first"]["bias"][None]
    return jnp.tanh(hidden) @ weights["last"]["kernel"] + weights["last"]["bias"][None]


def drawn(key=KEY):
    """Parameters as layers draw them."""
    first, last = jax.random.split(key)
    return {
        "first": {"kernel": jax.random.normal(first, (8, 6)) / 3, "bias": jnp.ones(6)},
        "last": {"kernel": jax.random.normal(last, (6, 3)) / 2, "bias": jnp.zeros(3)},
    }


def batches(number=STEPS):
    """Inputs [number, 16, 8] and labels [number, 16]."""
    rng = np.random.default_rng(11)
    inputs = rng.normal(size=(number, 16, 8)).astype(np.float32)
    labels = np.argmax(inputs[..., :3] * [1, 2, 1.5] + inputs[..., 3:6], -1)
    return jnp.asarray(inputs), jnp.asarray(labels)


def loss_of(weights, inputs, labels):
    """The mean cross-entropy."""
    logits = network(weights, inputs)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def update(method, params, state, step, batch, key):
    """One step: `(params, state)`."""
    weight_key = jax.random.split(jax.random.fold_in(key, step))[0]
    weights, pull = jax.vjp(lambda p: method.weights(p, step, weight_key), params)
    (grads,) = pull(jax.grad(loss_of)(weights, *batch))
    updates, state = method.tx.update(grads, state, params, weights=weights, step=step)
    return optax.apply_updates(params, updates), state


def small(name, **options):
    """The method of that name, for `STEPS` steps, with its defaults."""
    return methods.METHODS[name](STEPS, **{**OPTIONS, **options})


def scanned(step, carry, batches):
    """What the steps give, one after the other, in one program."""
    return jax.jit(lambda carry: jax.lax.scan(step, carry, batches))(carry)[1]


@functools.cache
def trajectory(name, options):
    """The method, and parameters after every step of a loop of one's own.

    Keys are drawn as `train_step` draws them; `options` are pairs.
    """
    method = small(name, real_learning_rate=2e-3, **dict(options))
    params = method.init(KEY, drawn())

    def step(carry, batch):
        params, opt_state, number = carry
        key = jax.random.split(jax.random.fold_in(KEY, number))[1]
        weight_key = jax.random.split(key)[0] if method.random else None
        weights, pull = jax.vjp(lambda p: method.weights(p, number, weight_key), params)
        (grads,) = pull(jax.grad(loss_of)(weights, *batch))
        updates, opt_state = method.tx.update(
            grads, opt_state, params, weights=weights, step=number
        )
        params = optax.apply_updates(params, updates)
        return (params, opt_state, number + 1), params

    start = (params, method.tx.init(params), jnp.zeros((), jnp.int32))
    return method, scanned(step, start, batches())


@functools.cache
def trained(name):
    """The method, and parameters after all the steps."""
    method, after = trajectory(name, ())
    return method, jax.tree.map(lambda leaf: leaf[-1], after)
