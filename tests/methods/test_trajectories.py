"""Every method takes the steps that the experiments' own takes, bit for bit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adaste_jax
from adaste_jax import methods, optim, train
from experiments import methods as own
from experiments.training import seeds
from tests.methods import problem

OWN_NAMES = {"adaste_paper": "adaste_literal"}
LENGTH = own.Length(
    num_epochs=problem.STEPS // problem.OPTIONS["steps_per_epoch"], **problem.OPTIONS
)


def _own(name, options=None):
    defaults = own.defaults()
    name = OWN_NAMES.get(name, name)
    defaults[name].update(options or {})
    return own.create(name, defaults, LENGTH)


def _own_tx(method):
    """As `experiments.training.run.Run` makes it, with its own learning rate."""
    if method.estimator is None:
        return method.tx
    rate = own.warmed_up(optax.cosine_decay_schedule(2e-3, problem.STEPS), LENGTH)
    return optax.partition(
        {"latent": method.tx, "real": optax.adam(rate)},
        functools.partial(optim.labels, rules={"latent": adaste_jax.kernels()}),
        mask_compatible_extra_args=True,
    )


def _start(method, params, latents):
    if method.estimator is None or latents is None:
        return params
    labels = optim.labels(params, {"latent": adaste_jax.kernels()})
    return seeds.replaced(problem.KEY, params, labels, latents)


def _forward(params, model_state, inputs, *, train, key):
    return problem.network(params, inputs), model_state


def _trajectory(step, state, batch):
    return jax.jit(lambda state: jax.lax.scan(step, state, batch))(state)[1]


def _expected(name, options):
    """Parameters after every step of `train_step` with the experiments' method."""
    method = _own(name, options)
    params = _start(method, problem.drawn(), method.initial_latents)
    tx = _own_tx(method)
    step = train.train_step(
        _forward,
        tx,
        estimator=method.estimator,
        hyperparameters=method.hyperparameters,
        deployed_pass=method.deployed_pass,
        deploy=method.deploy,
        random_weights=method.random_weights,
        shares=False,
    )
    state = train.TrainState.create(params, tx, key=problem.KEY)

    def both(state, batch):
        state, _ = step(state, dict(zip(("image", "label"), batch, strict=True)), None)
        return state, state.params

    return _trajectory(both, state, problem.batches())


def _got(name, options):
    """The same with the library's, keys drawn as `train_step` draws them."""
    method = problem.small(name, real_learning_rate=2e-3, **options)
    params = method.init(problem.KEY, problem.drawn())

    def step(carry, batch):
        params, opt_state, number = carry
        key = jax.random.split(jax.random.fold_in(problem.KEY, number))[1]
        weight_key = jax.random.split(key)[0] if method.random else None
        weights, pull = jax.vjp(lambda p: method.weights(p, number, weight_key), params)
        (grads,) = pull(jax.grad(problem.loss_of)(weights, *batch))
        updates, opt_state = method.tx.update(
            grads, opt_state, params, weights=weights, step=number
        )
        params = optax.apply_updates(params, updates)
        return (params, opt_state, number + 1), params

    start = (params, method.tx.init(params), jnp.zeros((), jnp.int32))
    return _trajectory(step, start, problem.batches())


VARIANTS = [
    *((name, {}) for name in methods.METHODS),
    ("adaste_paper", {"rule": "supremum", "alpha": 0.2, "mu_end": 3.0}),
    ("adaste_released", {"deployed_pass": False, "mu_rate": 8.0, "momentum": 0.0}),
    ("vispa", {"rank": 2}),
]


@pytest.mark.parametrize(
    ("name", "options"), VARIANTS, ids=lambda value: str(value) if value else ""
)
def test_every_step_is_that_of_the_experiments(name, options):
    expected, got = _expected(name, options), _got(name, options)
    assert jax.tree.structure(expected) == jax.tree.structure(got)
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
        assert one.shape[0] == problem.STEPS
        np.testing.assert_array_equal(one, other)
        assert np.any(np.asarray(one[0]) != np.asarray(one[-1]))


@pytest.mark.parametrize("name", methods.METHODS)
def test_latents_start_where_those_of_the_experiments_do(name):
    method = _own(name)
    for trained, latents in (
        (False, method.initial_latents),
        (True, method.loaded_latents),
    ):
        expected = _start(method, problem.drawn(), latents)
        got = problem.small(name).init(problem.KEY, problem.drawn(), trained=trained)
        jax.tree.map(np.testing.assert_array_equal, expected, got)
