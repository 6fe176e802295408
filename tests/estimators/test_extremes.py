"""What every estimator does with NaN, with no entries, and at the ends of a dtype."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adaste_jax
from adaste_jax import estimators
from tests.estimators.cases import CASES, KEY

# Those of several latents for each weight, and options of others, with the table's.
MORE = {
    "adaste_supremum": functools.partial(
        estimators.adaste_paper, mu=0.7, rule="supremum"
    ),
    "adaste": functools.partial(estimators.adaste, mu=0.7),
    "bernoulli_identity_hard": functools.partial(
        estimators.bernoulli_identity, key=KEY, probability="hard"
    ),
    "irnet_weight_whole": functools.partial(
        estimators.irnet_weight, sharpness=1.0, axis=None
    ),
    "scaled_sign_whole": functools.partial(estimators.scaled_sign, axis=None),
    "ternary_absmean_channels": functools.partial(estimators.ternary_absmean, axis=-1),
    "ternary_twn_channels": functools.partial(estimators.ternary_twn, axis=-1),
}
ALL = {
    **{name: functools.partial(c.estimator, **c.hyper) for name, c in CASES.items()},
    **MORE,
}
PAIRS = {
    "md_softmax_s": functools.partial(estimators.md_softmax_s, beta=2.0),
    "pmf": functools.partial(estimators.pmf, beta=2.0),
    "pmf_published": functools.partial(estimators.pmf, beta=2.0, jacobian="published"),
    "softmax_deploy": estimators.softmax_deploy,
    "vispa_sample": functools.partial(estimators.vispa_sample, key=KEY),
    "vispa_probability": estimators.vispa_probability,
}
DTYPES = ("bfloat16", "float16", "float32")

# Large enough for XLA's vectorised loops, in which the largest entry can miss a NaN.
SHAPE = (64, 48)
PLACES = [(0, 0), (13, 21), (63, 47)]


def _latents(seed=0):
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


every = pytest.mark.parametrize("name", ALL)


@functools.cache
def _compiled(name):
    @jax.jit
    def pull(latent, grad):
        weight, pullback = jax.vjp(ALL[name], latent)
        return weight, *pullback(grad)

    return pull


def _pull(name, latent, grad=1.0):
    """Weight and cotangent; compiled once for each name, shape and dtype."""
    latent = jnp.asarray(latent)
    return _compiled(name)(
        latent, jnp.broadcast_to(grad, latent.shape).astype(latent.dtype)
    )


@every
def test_a_latent_that_is_nan_gives_a_weight_that_is_nan(name):
    """And its group, where weights depend on a mean: never a valid weight for it."""
    for place in PLACES:
        latent = _latents()
        latent[place] = np.nan
        got = np.asarray(_pull(name, latent)[0])
        assert np.isnan(got[place])
        if name in CASES and CASES[name].elementwise:
            assert np.isnan(got).sum() == 1
    assert np.isnan(_pull(name, np.full(SHAPE, np.nan, np.float32))[0]).all()


@pytest.mark.parametrize("name", PAIRS)
def test_a_nan_among_the_latents_of_a_weight_is_a_weight_that_is_nan(name):
    for part in (0, 1):
        latent = _latents().reshape(-1, 2)
        latent[7, part] = np.nan
        got = np.asarray(jax.jit(PAIRS[name])(latent))
        assert np.isnan(got[7])
        assert np.isnan(got).sum() == 1


@every
def test_a_gradient_that_is_nan_reaches_its_latent(name):
    """Also where a number would be held back."""
    latent = _latents()
    latent[PLACES[0]], latent[PLACES[1]], latent[PLACES[2]] = 30.0, -30.0, 0.0
    for place in PLACES:
        grad = np.ones(SHAPE, np.float32)
        grad[place] = np.nan
        assert np.isnan(_pull(name, latent, grad)[1][place])


def test_binarised_and_deployed_trees_keep_a_nan():
    params = {"kernel": jnp.array([0.5, jnp.nan, -0.5]), "bias": jnp.zeros(2)}
    expected = [1.0, np.nan, -1.0]
    for tree in (
        adaste_jax.deploy(params),
        adaste_jax.binarize(params, estimators.ste_clipped),
    ):
        np.testing.assert_array_equal(tree["kernel"], expected)


def test_the_sign_of_numbers_is_what_it_was():
    """Bits, for zeros, subnormal numbers, infinities and integers too."""
    from adaste_jax import _numerics

    edge = [0.0, -0.0, 1e-40, -1e-40, 1e-38, -1e-30, 1.0, -7.0, np.inf, -np.inf]
    expected = [1, 1, 1, 1, 1, -1, 1, -1, 1, -1]
    for dtype in (np.float32, jnp.bfloat16):
        got = _numerics.sign(jnp.asarray(edge, dtype))
        assert got.dtype == dtype
        np.testing.assert_array_equal(np.float32(got), expected)
    np.testing.assert_array_equal(_numerics.sign(jnp.array([-3, 0, 2])), [-1, 1, 1])


@every
def test_a_kernel_without_entries_is_a_weight_without_entries(name):
    """And no NaN arises on the way."""
    for shape in [(0, 4), (3, 0)]:
        with jax.debug_nans(True):
            arrays = _pull(name, jnp.zeros(shape, jnp.bfloat16))
        for array in arrays:
            assert (array.shape, array.dtype) == (shape, jnp.bfloat16)


@pytest.mark.parametrize("name", PAIRS)
def test_no_pairs_are_no_weights(name):
    assert PAIRS[name](jnp.zeros((3, 0, 2))).shape == (3, 0)


@every
@pytest.mark.parametrize("dtype", DTYPES)
def test_latents_at_the_ends_of_a_dtype_give_finite_weights(name, dtype):
    """Those at the upper end the same weights as smaller ones, up to their scale."""
    signs = np.where(_latents(1) < 0, -1.0, 1.0)
    ends = [float(jnp.finfo(dtype).max), 0.7 * float(jnp.finfo(dtype).max)]
    ends.append(2 * float(jnp.finfo(dtype).tiny))
    for end in ends:
        for array in _pull(name, jnp.asarray(end * signs, dtype), 1e-3):
            assert np.isfinite(np.float32(array)).all(), end


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("factor", [2.0**120, 2.0**-110])
@pytest.mark.parametrize(
    "name",
    [
        "scaled_sign",
        "scaled_sign_whole",
        "scaled_sign_exact",
        "ternary_absmean",
        "ternary_absmean_channels",
        "ternary_twn",
        "ternary_twn_scaled",
        "ternary_twn_channels",
        "irnet_weight",
    ],
)
def test_weights_scale_with_latents_to_the_ends(name, dtype, factor):
    """By a power of two to the bit: means neither overflow nor vanish on the way."""
    estimator = ALL[name]
    if name.startswith("ternary_absmean"):  # whose smallest scale would hide it
        axis = -1 if "channels" in name else None
        estimator = functools.partial(
            estimators.ternary_absmean, axis=axis, epsilon=1e-37
        )
    latent = jnp.asarray(_latents(2), dtype)
    scale = {"ternary_twn": 1.0, "irnet_weight": 1.0}.get(name, factor)
    got = estimator(latent * jnp.asarray(factor, dtype))
    expected = estimator(latent) * jnp.asarray(scale, dtype)
    np.testing.assert_array_equal(np.float32(got), np.float32(expected))
    assert np.unique(np.float32(got)).size > 1


def test_pairs_at_the_ends_of_float32_are_finite():
    for end in (3.4e38, 2e-38):
        latent = jnp.asarray(end * np.sign(_latents(3)).reshape(-1, 2), jnp.float32)
        for name, estimator in PAIRS.items():
            got = np.asarray(estimator(latent))
            assert np.isfinite(got).all(), (name, end)
    latent = jnp.array([[3e38, 1e38], [-3e38, 1e38], [3e-37, 1e-37], [1e-37, 3e-37]])
    expected = estimators.vispa_probability(
        jnp.array([[3.0, 1], [-3, 1], [3, 1], [1, 3]])
    )
    np.testing.assert_allclose(estimators.vispa_probability(latent), expected)
