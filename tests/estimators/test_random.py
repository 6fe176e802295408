"""Random weights: probabilities, samples, and what their gradients estimate."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adaste_jax
from adaste_jax import estimators
from adaste_jax.estimators import _bernoulli

# Tables are printed to six digits and computed in float64.
DIGITS = 5e-6

# latent, u, g; then probability, weight, gradient of the sigmoid and of the hard form
ROWS = [
    (0, 0.3, 0.5, 0.5, 1, 0.25, 0.5, 1, 0.5),
    (1, 0.8, 0.5, 0.731059, -1, 0.196612, 1, 1, 0.5),
    (-2, 0.05, -0.4, 0.119203, 1, -0.0839949, 0, -1, 0),
    (0.4, 0.69, 1, 0.598688, -1, 0.480521, 0.7, 1, 1),
]


@pytest.mark.parametrize(
    ("primitive", "weight_column", "gradient_column"),
    [
        (_bernoulli._pwgf, 4, 5),
        (_bernoulli._hard, 7, 8),
        (_bernoulli._straight, 4, 2),
        (_bernoulli._straight_hard, 7, 2),
    ],
)
def test_rows_with_the_uniform_numbers_given(
    float64, primitive, weight_column, gradient_column
):
    columns = [np.array(column) for column in zip(*ROWS, strict=True)]
    latent, uniform, grad = (jnp.asarray(c, jnp.float64) for c in columns[:3])
    weight, pullback = jax.vjp(lambda t: primitive(t, uniform), latent)
    np.testing.assert_array_equal(weight, columns[weight_column])
    np.testing.assert_allclose(pullback(grad)[0], columns[gradient_column], rtol=DIGITS)


def test_a_probability_of_zero_or_one_is_certain():
    """Whatever the uniform number, 0 included; u < p, not u <= p."""
    uniform = jnp.array([0.0, 0.5, 1 - 2**-24])
    for latent, weight in ((-1.0, -1.0), (-3.0, -1.0), (1.0, 1.0), (3.0, 1.0)):
        got = _bernoulli._hard(jnp.full(3, latent), uniform)
        np.testing.assert_array_equal(got, weight)


SAMPLERS = {
    "pwgf": (estimators.bernoulli_pwgf, "sigmoid"),
    "hard": (estimators.bernoulli_hard, "hard"),
    "identity": (estimators.bernoulli_identity, "sigmoid"),
    "identity_hard": (
        functools.partial(estimators.bernoulli_identity, probability="hard"),
        "hard",
    ),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_have_their_probability(name):
    """Within five standard deviations; and surely so where p is 0 or 1."""
    estimator, kind = SAMPLERS[name]
    latent = np.array([-1.0, -0.6, 0.0, 0.3, 1.0], np.float32)
    count = 20_000
    draws = estimator(jnp.tile(latent, (count, 1)), key=jax.random.key(3))
    share = np.mean(np.asarray(draws) == 1, axis=0)
    assert set(np.unique(draws)) == {-1.0, 1.0}
    if kind == "sigmoid":
        probability = 1 / (1 + np.exp(-latent))
    else:
        probability = np.array([0, 0.2, 0.5, 0.65, 1])
    deviation = np.sqrt(probability * (1 - probability) / count)
    assert (abs(share - probability) <= 5 * deviation).all()


def test_one_key_is_one_sample_in_every_precision():
    latent = jnp.linspace(-1, 1, 9)
    keys = jax.random.split(jax.random.key(0))
    first = estimators.bernoulli_pwgf(latent, key=keys[0])
    again = estimators.bernoulli_pwgf(latent.astype(jnp.bfloat16), key=keys[0])
    np.testing.assert_array_equal(first, again.astype(jnp.float32))
    assert not np.array_equal(first, estimators.bernoulli_pwgf(latent, key=keys[1]))


LINEAR = np.array([0.1, -0.4])
LATENT = np.array([0.4, -0.7])
TRUE = [0.112706, -0.212379]


@pytest.mark.parametrize(
    ("quadratic", "expected"),
    [
        ([[0, -0.2], [-0.2, 0]], TRUE),
        ([[0.3, -0.2], [-0.2, 0.5]], [0.169612, -0.361536]),
    ],
    ids=["unbiased", "biased by the diagonal"],
)
def test_expected_gradient_over_all_draws(float64, quadratic, expected):
    """Of f(w) = w A w + b w; the bias of a square is 2 A_ii E[w_i] 2 p_i (1 - p_i)."""
    matrix, latent = jnp.array(quadratic), jnp.asarray(LATENT)
    probability = 1 / (1 + np.exp(-LATENT))
    total = np.zeros(2)
    for signs in itertools.product([-1, 1], repeat=2):
        up = np.array(signs) == 1
        uniform = jnp.where(up, 0.0, 1.0)  # below p, or above it
        loss = lambda t, u=uniform: (
            (w := _bernoulli._pwgf(t, u)) @ matrix @ w + LINEAR @ w
        )
        chance = np.prod(np.where(up, probability, 1 - probability))
        total += chance * np.asarray(jax.grad(loss)(latent))
    np.testing.assert_allclose(total, expected, rtol=DIGITS)
    mean = 2 * probability - 1
    slope = 2 * probability * (1 - probability)
    off_diagonal = np.array([-0.2, -0.2])
    true = slope * (2 * off_diagonal * mean[::-1] + LINEAR)
    np.testing.assert_allclose(true, TRUE, rtol=DIGITS)
    bias = 2 * np.diag(quadratic) * mean * slope
    np.testing.assert_allclose(total, true + bias, rtol=1e-12)


def test_samples_are_averaged_by_averaging_losses():
    latent, grad = jnp.array([0.4, -0.7]), jnp.array([1.0, -2.0])
    keys = jax.random.split(jax.random.key(1), 5)

    def loss(latent):
        sample = lambda key: grad @ estimators.bernoulli_pwgf(latent, key=key)
        return jnp.mean(jax.vmap(sample)(keys))

    probability = jax.nn.sigmoid(latent)
    expected = grad * 2 * probability * (1 - probability)
    np.testing.assert_allclose(jax.grad(loss)(latent), expected, rtol=1e-5)


def test_a_tree_gets_a_key_for_each_leaf():
    latent = jnp.zeros((64,))
    params = {"a": {"kernel": latent}, "b": {"kernel": latent, "bias": latent}}
    binarize = functools.partial(adaste_jax.binarize, params, estimators.bernoulli_pwgf)
    got = binarize(key=jax.random.key(0))
    assert not np.array_equal(got["a"]["kernel"], got["b"]["kernel"])
    np.testing.assert_array_equal(got["b"]["bias"], latent)
    again = binarize(key=jax.random.key(0))
    np.testing.assert_array_equal(got["a"]["kernel"], again["a"]["kernel"])
    other = binarize(key=jax.random.key(1))
    assert not np.array_equal(got["a"]["kernel"], other["a"]["kernel"])


def test_an_unknown_probability_is_refused():
    with pytest.raises(ValueError, match=r"`probability` must be one of"):
        estimators.bernoulli_identity(
            jnp.ones(2), key=jax.random.key(0), probability="logistic"
        )


@pytest.mark.parametrize("temperature", [1.0, 0.1, 1e-10])
def test_bayesbinn_samples_have_the_sign_of_a_bernoulli(temperature):
    """P(w > 0) = sigmoid(2 t) at every temperature; near 0 they are signs."""
    latent, count = np.array([-0.8, 0.0, 0.5], np.float32), 20_000
    draws = np.asarray(
        estimators.bayesbinn_sample(
            jnp.tile(latent, (count, 1)), key=jax.random.key(5), temperature=temperature
        )
    )
    assert np.isfinite(draws).all()
    probability = 1 / (1 + np.exp(-2 * latent))
    deviation = np.sqrt(probability * (1 - probability) / count)
    assert (abs(np.mean(draws > 0, axis=0) - probability) <= 5 * deviation).all()
    if temperature < 1e-5:
        assert set(np.unique(draws)) == {-1.0, 1.0}


def test_bayesbinn_refuses_a_temperature_of_zero():
    with pytest.raises(ValueError, match="`temperature` must lie in"):
        estimators.bayesbinn_sample(jnp.ones(2), key=jax.random.key(0), temperature=0.0)
