"""Estimators that are sharpened in training, on the rows of their tables."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import estimators, methods

# Tables are printed to six digits and computed in float64.
DIGITS = 5e-6

LATENT = [-1.5, -1.0, -0.4, 0.0, 0.05, 0.5, 1.0, 2.0]
GRAD = [0.2, -0.3, 0.5, -0.1, 0.4, 0.7, -0.6, 0.9]

RESTE = {
    1: [0.2, -0.3, 0.5, -0.1, 0.4, 0.7, -0.6, 0],
    2: [0.0816497, -0.15, 0.395285, -0.316228, 1.26491, 0.494975, -0.3, 0],
    3: [0.0508762, -0.1, 0.307003, -0.464159, 1.85664, 0.370394, -0.2, 0],
}
EDE = {
    0.1: [0.195567, -0.29702, 0.499201, -0.1, 0.39999, 0.698253, -0.59404, 0.864939],
    1: [
        0.0361413,
        -0.125992,
        0.427819,
        -0.1,
        0.399002,
        0.550513,
        -0.251985,
        0.0635857,
    ],
    10: [
        7.4861e-13,
        -2.47338e-08,
        0.00670475,
        -1,
        3.14579,
        0.00127108,
        -4.94677e-08,
        1.52941e-16,
    ],
}


def _pull(estimator, latent, grad):
    weight, pullback = jax.vjp(estimator, jnp.asarray(latent))
    return weight, pullback(jnp.asarray(grad))[0]


@pytest.mark.parametrize("exponent", RESTE)
def test_reste_rows(float64, exponent):
    estimator = functools.partial(estimators.reste, exponent=float(exponent))
    weight, gradient = _pull(estimator, LATENT, GRAD)
    np.testing.assert_array_equal(weight, [-1, -1, -1, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(gradient, RESTE[exponent], rtol=DIGITS)


def test_reste_guards_zero_where_the_power_is_infinite():
    estimator = functools.partial(estimators.reste, exponent=3.0)
    _, gradient = _pull(estimator, [0.0, 1e-30, -0.1, 1e30], np.ones(4, np.float32))
    np.testing.assert_allclose(gradient, [4.64159, 4.64159, 4.64159, 0], rtol=DIGITS)


@pytest.mark.parametrize("offset", [0, 2])
def test_rows_of_the_exponent_of_reste(float64, offset):
    method = methods.reste(3000, steps_per_epoch=3)
    steps = 3 * np.array([0, 250, 500, 999]) + offset
    got = jax.vmap(method.values)(steps)["exponent"]
    np.testing.assert_allclose(got, [1, 1.15224, 1.58579, 2.99686], rtol=DIGITS)


@pytest.mark.parametrize("sharpness", EDE)
def test_ede_rows(float64, sharpness):
    estimator = functools.partial(estimators.ede, sharpness=float(sharpness))
    weight, gradient = _pull(estimator, LATENT, GRAD)
    np.testing.assert_array_equal(weight, [-1, -1, -1, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(gradient, EDE[sharpness], rtol=DIGITS)


def test_ede_keeps_its_tail_in_float32():
    """1 - tanh^2 would be 0 there."""
    _, gradient = _pull(functools.partial(estimators.ede, sharpness=10.0), LATENT, GRAD)
    assert gradient.dtype == jnp.float32
    np.testing.assert_allclose(gradient, EDE[10], rtol=1e-5)


@pytest.mark.parametrize(
    ("low", "expected"),
    [(0.1, [0.1, 1, 9.88553]), (0.001, [0.001, 0.1, 9.77237])],
)
def test_rows_of_the_sharpness_of_ede(float64, low, expected):
    method = methods.ede(800, steps_per_epoch=2, sharpness_init=low)
    got = jax.vmap(method.values)(2 * np.array([0, 200, 399]) + 1)["sharpness"]
    np.testing.assert_allclose(got, expected, rtol=DIGITS)
    factors = [max(1 / value, 1) for value in expected]  # k, so that k t = max(t, 1)
    slopes = [jax.grad(lambda t, s=s: estimators.ede(t, sharpness=s))(0.0) for s in got]
    np.testing.assert_allclose(slopes, np.multiply(factors, expected), rtol=2e-5)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (functools.partial(estimators.fda, order=0), [2, 1.84776, 1.41421, 0]),
        (functools.partial(estimators.fda, order=1), [4, 2.61313, 0, 0]),
        (
            functools.partial(estimators.rbnn, sharpness=1.0),
            [1.41421, 1.16421, 0.914214, 0.414214],
        ),
    ],
)
def test_fda_and_rbnn_rows(float64, estimator, expected):
    _, slope = _pull(estimator, [0, 0.25, 0.5, 1.0], np.ones(4))
    np.testing.assert_allclose(slope, expected, rtol=DIGITS, atol=1e-12)


# beta, latent, g, weight, gradient of tanh, gradient of md_tanh_s
TANH = [
    (1, -1.5, 0.2, -0.905148, 0.0361413, 0.2),
    (1, -0.4, 0.5, -0.379949, 0.427819, 0.5),
    (1, 0, -0.1, 0, -0.1, -0.1),
    (1, 0.05, 0.4, 0.0499584, 0.399002, 0.4),
    (1, 0.5, 0.7, 0.462117, 0.550513, 0.7),
    (1, 1, -0.6, 0.761594, -0.251985, -0.6),
    (2, -1.5, 0.2, -0.995055, 0.00394641, 0.2),
    (2, -0.4, 0.5, -0.664037, 0.559055, 0.5),
    (2, 0, -0.1, 0, -0.2, -0.1),
    (2, 0.05, 0.4, 0.099668, 0.792053, 0.4),
    (2, 0.5, 0.7, 0.761594, 0.587964, 0.7),
    (2, 1, -0.6, 0.964028, -0.084781, -0.6),
    (50, -1.5, 0.2, -1, 0, 0.2),
    (50, -0.4, 0.5, -1, 0, 0.5),
    (50, 0, -0.1, 0, -5, -0.1),
    (50, 0.05, 0.4, 0.986614, 0.531845, 0.4),
    (50, 0.5, 0.7, 1, 0, 0.7),
    (50, 1, -0.6, 1, 0, -0.6),
]


@pytest.mark.parametrize(
    ("estimator", "column"), [(estimators.tanh, 0), (estimators.md_tanh_s, 1)]
)
def test_tanh_rows(float64, estimator, column):
    beta, latent, grad, weights, *gradients = map(np.float64, zip(*TANH, strict=True))
    weight, gradient = jax.vmap(
        lambda t, g, b: _pull(functools.partial(estimator, beta=b), t, g)
    )(latent, grad, beta)
    np.testing.assert_allclose(weight, weights, rtol=DIGITS)
    # A 0 in the table stands for less than 1e-14.
    np.testing.assert_allclose(gradient, gradients[column], rtol=DIGITS, atol=1e-14)


@pytest.mark.parametrize("estimator", [estimators.tanh, estimators.md_tanh_s])
@pytest.mark.parametrize("beta", [1e30, 1e35, math.inf])
def test_an_unbounded_beta_is_no_nan(estimator, beta):
    latent = np.float32([-1e10, -1e-3, 0.0, 1e-3, 1e10])
    weight, gradient = _pull(
        functools.partial(estimator, beta=beta), latent, np.float32([1, 1, 0, 1, 1])
    )
    np.testing.assert_array_equal(weight, [-1, -1, 0, 1, 1])
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: estimators.reste(t, exponent=0.5), r"`exponent` must lie in \[1,"),
        (lambda t: estimators.reste(t, exponent=2.0, floor=0.0), "`floor` must lie in"),
        (lambda t: estimators.reste(t, exponent=2.0, cut=-1.0), "`cut` must lie in"),
        (lambda t: estimators.ede(t, sharpness=-1.0), "`sharpness` must lie in"),
        (lambda t: estimators.rbnn(t, sharpness=0.0), "`sharpness` must lie in"),
        (lambda t: estimators.fda(t, order=-1), "`order` must lie in"),
        (lambda t: estimators.tanh(t, beta=-1.0), "`beta` must lie in"),
        (lambda t: estimators.md_tanh_s(t, beta=-1.0), "`beta` must lie in"),
        (lambda t: estimators.swish_sign(t, beta=-1.0), "`beta` must lie in"),
    ],
)
def test_what_is_out_of_range_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones(2))
