"""One name means one thing: in `methods`, in `estimators` and in `optim`."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adaste_jax
from adaste_jax import estimators, methods, optim

STEPS = 10
KEY = jax.random.key(3)
DRAWN = {"kernel": jax.random.normal(jax.random.key(1), (6, 5)) * 1.3}
GRAD = jax.random.normal(jax.random.key(2), (6, 5))
ESTIMATORS = sorted(methods.METHODS.keys() & set(estimators.__all__))
TRANSFORMATIONS = sorted(methods.METHODS.keys() & set(optim.__all__))

# What an estimator has no default for, or leaves to a transformation.
BOUND = {
    "fda": {"order": 2},
    "fenbp": {"beta": 100.0, "straight_through": True},
    "hardtanh_adaste": {"straight_through": True},
}
MU = optax.exponential_decay(0.01, 8, 1e4, end_value=100.0)
BETA = optax.exponential_decay(1.0, 8, 100.0, end_value=100.0)
# What a transformation is given for a run of 10 steps on 7 examples.
GIVEN = {
    "adaste_averaged": {"mu": MU},
    "adaste_released": {
        "mu": optim.per_epoch(
            optax.exponential_decay(0.0105, 1, 1.05, end_value=100.0), 1
        ),
        "grad_scale": 70.0**2,
    },
    "bayesbinn": {"num_examples": 7.0},
    "bop": {
        "tau": 1e-7
    },  # with the rate of a short run; published are both for 500 epochs
    "md_softmax": {"beta": BETA},
    "md_tanh": {"beta": BETA},
    "proxquant": {  # from scratch, so latents are kept in [-1, 1]
        "strength": optax.linear_schedule(0.0, 0.8, 10),
        "clip": True,
    },
}
RUN = {
    "adaste_released": {"num_examples": 7},
    "bayesbinn": {"num_examples": 7, "multiplier": 1.0},
}


def test_there_are_names_in_two_places():
    assert {"adaste", "adaste_paper", "ste", "scaled_sign"} <= set(ESTIMATORS)
    assert {"adaste_averaged", "adaste_released", "bop"} <= set(TRANSFORMATIONS)
    assert "adaste" not in TRANSFORMATIONS  # it would be Adam


@pytest.mark.parametrize("step", [0, 5, 9])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_method_sees_the_weights_of_the_estimator_of_its_name(name, step):
    method = methods.METHODS[name](STEPS)
    params = method.init(KEY, DRAWN)
    own = functools.partial(
        getattr(estimators, name), **method.values(step), **BOUND.get(name, {})
    )
    key = KEY if method.random else None
    found, pull = jax.vjp(lambda p: method.weights(p, step, key), params)
    expected, other = jax.vjp(lambda p: adaste_jax.binarize(p, own, key=key), params)
    cotangent = {"kernel": GRAD}
    np.testing.assert_array_equal(found["kernel"], expected["kernel"])
    np.testing.assert_array_equal(
        pull(cotangent)[0]["kernel"], other(cotangent)[0]["kernel"]
    )


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_a_method_updates_by_the_transformation_of_its_name(name):
    rate = lambda step: jnp.asarray(0.02, jnp.float32)
    method = methods.METHODS[name](STEPS, learning_rate=rate, **RUN.get(name, {}))
    own = getattr(optim, name)(rate, **GIVEN.get(name, {}))
    own = optax.with_extra_args_support(own)
    params = method.init(KEY, DRAWN)
    state, other = method.tx.init(params), own.init(params)
    for step in range(3):
        key = KEY if method.random else None
        weights, pull = jax.vjp(
            lambda p, s=step, k=key: method.weights(p, s, k), params
        )
        (grads,) = pull({"kernel": GRAD * (1 + step)})
        given = {"weights": weights, "step": step}
        found, state = method.tx.update(grads, state, params, **given)
        expected, other = own.update(grads, other, params, **given)
        np.testing.assert_array_equal(found["kernel"], expected["kernel"])
        params = optax.apply_updates(params, found)
    moved = params["kernel"] - method.init(KEY, DRAWN)["kernel"]
    assert jnp.any(moved != 0) or name == "bop"


@pytest.mark.parametrize("name", [*ESTIMATORS, *TRANSFORMATIONS])
def test_what_both_take_has_one_default(name):
    room = estimators if name in ESTIMATORS else optim
    empty = inspect.Parameter.empty
    own = inspect.signature(getattr(room, name)).parameters
    of_method = inspect.signature(methods.METHODS[name]).parameters
    rates = {"learning_rate", "tau"}  # they depend on the length of the run
    both = own.keys() & of_method.keys() - rates
    for option in both:
        if own[option].default is not empty:
            assert own[option].default == of_method[option].default, option
