"""Mirror descent in its direct form, on the rows of its tables."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adaste_jax import estimators, optim

# Tables are printed to six digits and computed in float64.
DIGITS = 5e-6


def _given(factory, learning_rate=1.0, beta=1.0):
    """The optimiser, with the direction given instead of the gradient."""
    return factory(learning_rate, beta=beta, inner=optax.identity())


# weight, step, weight after
TANH = [
    (0.5, 0.1, 0.421328),
    (-0.2, 0.1, -0.293811),
    (0.9, -0.3, 0.943852),
    (0, 0.25, -0.244919),
]


def test_tanh_rows(float64):
    weight, step, after = map(np.float64, zip(*TANH, strict=True))
    dual = jnp.arctanh(weight)
    tx = _given(optim.md_tanh)
    updates, _ = tx.update(jnp.asarray(step), tx.init(dual), dual)
    got = estimators.md_tanh_s(dual + updates, beta=1.0)
    np.testing.assert_allclose(got, after, rtol=DIGITS)


# direction; then dual and weight of the direct form, latent and weight of the stable
FORMS = [
    (0.3, 0.172733, 0.171035, 0.172733, 0.171035),
    (-0.1, 0.192733, 0.190381, 0.182733, 0.350019),
    (0.2, 0.112733, 0.112257, 0.162733, 0.572296),
]


def test_the_direct_form_is_not_the_stable_form(float64):
    """Raising beta (1, 2, 4) changes later steps in the one, all steps in the other."""
    betas = jnp.array([1.0, 2.0, 4.0])
    direct, stable = (
        _given(optim.md_tanh, 0.1, lambda step: betas[step]),
        optax.sgd(0.1),
    )
    dual = latent = jnp.arctanh(0.2)
    states = direct.init(dual), stable.init(latent)
    for beta, (direction, *expected) in zip(betas, FORMS, strict=True):
        direction = jnp.float64(direction)
        move, first = direct.update(direction, states[0], dual)
        shift, second = stable.update(direction, states[1], latent)
        states, dual, latent = (first, second), dual + move, latent + shift
        got = [
            dual,
            estimators.md_tanh_s(dual, beta=1.0),
            latent,
            estimators.md_tanh_s(latent, beta=beta),
        ]
        np.testing.assert_allclose(got, expected, rtol=DIGITS)


def test_early_adam_rows(float64):
    """Gradient, both moments, and the direction times a learning rate of 0.1."""
    tx = optim.scale_by_early_adam()
    latent = jnp.array(0.0)
    state, later = tx.init(latent), optax.scale_by_adam()
    other = later.init(latent)
    for grad, m, v, step in (
        (0.5, 0.05, 0.00025, 0.0999999),
        (-0.25, 0.02, 0.00031225, 0.0266337),
        (0.1, 0.028, 0.000321938, 0.0315243),
    ):
        direction, state = tx.update(jnp.array(grad), state)
        got = [state.mu, state.nu, 0.1 * direction]
        np.testing.assert_allclose(got, [m, v, step], rtol=DIGITS)
        usual, other = later.update(jnp.array(grad), other)
        np.testing.assert_allclose(direction, usual, rtol=1e-5)
        assert abs(direction - usual) > 1e-8  # the epsilon


def test_by_default_the_direction_is_early_adam(float64):
    latent, grad = jnp.array([0.3]), jnp.array([0.5])
    tx = optim.md_tanh(0.1, beta=lambda step: 1.5)
    updates, _ = tx.update(grad, tx.init(latent), latent)
    np.testing.assert_allclose(updates, [-1.5 * 0.0999999], rtol=DIGITS)


# probabilities, step, probabilities after, weight after
SOFTMAX = [
    ([0.5, 0.5], [-0.1, 0.1], [0.549834, 0.450166], -0.099668),
    ([0.2, 0.8], [-0.3, 0.3], [0.312965, 0.687035], 0.37407),
    ([0.9, 0.1], [0.2, -0.2], [0.857811, 0.142189], -0.715621),
]


def test_softmax_rows(float64):
    levels, step, after, weights = (np.array(c) for c in zip(*SOFTMAX, strict=True))
    logits = jnp.log(levels)
    tx = _given(optim.md_softmax)
    updates, _ = tx.update(jnp.asarray(step), tx.init(logits), logits)
    np.testing.assert_allclose(jax.nn.softmax(logits + updates), after, rtol=DIGITS)
    weight = estimators.md_softmax_s(logits + updates, beta=1.0)
    np.testing.assert_allclose(weight, weights, rtol=DIGITS)


def test_softmax_with_opposite_steps_is_tanh(float64):
    """In w = u_+ - u_-, the step (-x, x) is that of md_tanh with x."""
    weight, step = np.float64([0.5, -0.2, 0.9]), np.float64([0.1, 0.3, -0.2])
    logits = jnp.stack([jnp.log((1 - weight) / 2), jnp.log((1 + weight) / 2)], -1)
    tx = _given(optim.md_softmax)
    updates, _ = tx.update(jnp.stack([-step, step], -1), tx.init(logits), logits)
    got = estimators.md_softmax_s(logits + updates, beta=1.0)
    np.testing.assert_allclose(got, np.tanh(np.arctanh(weight) - step), rtol=1e-12)


def test_a_weight_can_leave_minus_one():
    """In float32 w is -1 already; its dual is finite, and a step moves it back."""
    dual = jnp.array([-9.5])
    assert jnp.tanh(dual) == -1
    tx = _given(optim.md_tanh)
    updates, _ = tx.update(jnp.array([-9.0]), tx.init(dual), dual)
    np.testing.assert_allclose(jnp.tanh(dual + updates), np.tanh(-0.5), rtol=1e-5)
