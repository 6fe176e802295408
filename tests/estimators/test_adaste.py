"""AdaSTE on the rows of its tables, and the laws its rule must keep."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaste_jax import estimators, optim
from tests import reference

# Tables are printed to six digits and computed in float64.
DIGITS = 5e-6


# The weights of half a batch each, the gradients there, and what comes of them.
LATENT = [2.0, 4.0, -8.0]
GRAD_A = [0.5, 0.5, -0.9]
GRAD_B = [-0.3, -0.3, 0.1]
RULE_OF_MEAN = [0.05, 0.05, -0.1]
MEAN_OF_RULES = [0.125, 0.125, -0.1125]
EXAMPLES = [GRAD_A, GRAD_A, GRAD_B, GRAD_B]
quantised = functools.partial(estimators.adaste_paper, mu=100.0)


def _loss(latent, examples, estimator=quantised):
    """Its gradient at the weights is the mean of the examples."""
    return jnp.mean(examples @ estimator(latent))


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def test_rule_of_the_mean_and_mean_of_the_rules():
    """The table that tells right from wrong; the next tests ask for its columns."""
    rule = jax.jit(
        functools.partial(
            estimators.adaste_gradient, jnp.array(LATENT), mu=100.0, alpha=0.01
        )
    )
    a, b = jnp.array(GRAD_A), jnp.array(GRAD_B)
    np.testing.assert_allclose(rule((a + b) / 2), RULE_OF_MEAN, rtol=1e-6)
    np.testing.assert_allclose((rule(a) + rule(b)) / 2, MEAN_OF_RULES, rtol=1e-6)


def test_jit_over_a_sharded_batch_takes_the_mean_before_the_rule(mesh):
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    examples = jax.device_put(jnp.array(EXAMPLES), sharding)
    got = jax.jit(jax.grad(_loss))(jnp.array(LATENT), examples)
    np.testing.assert_allclose(got, RULE_OF_MEAN, rtol=1e-6)


def test_pmap_needs_the_name_of_its_axis():
    batch = jnp.array(EXAMPLES)[:, None]

    def gradient(axis_name):
        estimator = functools.partial(quantised, axis_name=axis_name)
        mapped = jax.pmap(
            lambda examples: jax.lax.pmean(
                jax.grad(_loss)(jnp.array(LATENT), examples, estimator), "data"
            ),
            axis_name="data",
        )
        return mapped(batch)[0]

    np.testing.assert_allclose(gradient("data"), RULE_OF_MEAN, rtol=1e-6)
    np.testing.assert_allclose(gradient(None), MEAN_OF_RULES, rtol=1e-6)


def _shard_map(mesh, gradient, *, check_vma):
    spec = jax.sharding.PartitionSpec
    mapped = jax.shard_map(
        gradient,
        mesh=mesh,
        in_specs=(spec(), spec("data")),
        out_specs=spec(),
        check_vma=check_vma,
    )
    return jax.jit(mapped)(jnp.array(LATENT), jnp.array(EXAMPLES))


@pytest.mark.parametrize(
    ("axis_name", "expected"), [("data", RULE_OF_MEAN), (None, MEAN_OF_RULES)]
)
def test_unchecked_shard_map_needs_the_name_of_its_axis(mesh, axis_name, expected):
    estimator = functools.partial(quantised, axis_name=axis_name)

    def gradient(latent, examples):
        return jax.lax.pmean(jax.grad(_loss)(latent, examples, estimator), "data")

    got = _shard_map(mesh, gradient, check_vma=False)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_checked_shard_map_takes_the_mean_of_the_loss(mesh):
    def gradient(latent, examples):
        return jax.grad(lambda latent: jax.lax.pmean(_loss(latent, examples), "data"))(
            latent
        )

    got = _shard_map(mesh, gradient, check_vma=True)
    np.testing.assert_allclose(got, RULE_OF_MEAN, rtol=1e-6)


def test_checked_shard_map_refuses_the_name_of_its_axis(mesh):
    """The cotangent is summed there already; a mean would be of equal sums."""
    estimator = functools.partial(quantised, axis_name="data")

    def gradient(latent, examples):
        return jax.grad(
            lambda latent: jax.lax.pmean(_loss(latent, examples, estimator), "data")
        )(latent)

    with pytest.raises(ValueError, match=r"summed over that axis already\. Drop it"):
        _shard_map(mesh, gradient, check_vma=True)


def test_accumulation_needs_the_transform():
    """Microbatches through the estimator give the wrong column, `MultiSteps` not."""
    latent = jnp.array(LATENT)

    def accumulated(tx, estimator):
        tx = optax.MultiSteps(tx, every_k_schedule=2)
        state = tx.init(latent)
        for half in (EXAMPLES[:2], EXAMPLES[2:]):
            grad = jax.grad(_loss)(latent, jnp.array(half), estimator)
            updates, state = tx.update(grad, state, latent)
        return updates

    straight = functools.partial(quantised, rule="identity")
    transform = accumulated(optim.scale_by_adaste(100.0), straight)
    np.testing.assert_allclose(transform, RULE_OF_MEAN, rtol=1e-6)
    estimator = accumulated(optax.identity(), quantised)
    np.testing.assert_allclose(estimator, MEAN_OF_RULES, rtol=1e-6)


# mu, alpha, latent, w*
FORWARD = [
    (0.01, 0.01, -2, -1),
    (0.01, 0.01, -0.3, -0.30703),
    (0.01, 0.01, 0.05, 0.059505),
    (0.01, 0.01, 0.4, 0.40604),
    (0.01, 0.01, 0.9, 0.901089),
    (0.5, 0.2, -0.3, -0.6),
    (0.5, 0.2, 0, 0.4),
    (0.5, 0.2, 0.4, 0.666667),
    (0.5, 0.2, 0.9, 1),
    (1, 0.5, -0.3, -0.9),
    (1, 0.5, 0.05, 0.775),
    (1, 0.5, 0.4, 0.95),
    (100, 0.01, -0.3, -1),
    (100, 0.01, 0.05, 1),
]


def test_forward_rows(float64):
    mu, alpha, latent, weight = map(jnp.array, zip(*FORWARD, strict=True))
    got = jax.vmap(lambda t, m, a: estimators.adaste_paper(t, mu=m, alpha=a))(
        latent, mu, alpha
    )
    np.testing.assert_allclose(got, weight, rtol=DIGITS)
    plain = jax.vmap(lambda t, m, a: estimators.adaste_forward(t, mu=m, alpha=a))
    np.testing.assert_array_equal(plain(latent, mu, alpha), got)


# mu, alpha, latent, g, then slope and gradient of `adaptive`, and of `released`
SLOPES = [
    (0.01, 0.01, 10, 0.2, 0.101, 0.0202, 0.101, 0.0202),
    (0.01, 0.01, 10, -0.2, 0, 0, 0, 0),
    (0.01, 0.01, 10, 0.0005, 0.101, 5.05e-05, 0.990099, 0.00049505),
    (0.01, 0.01, 0.5, 0.2, 0.5, 0.1, 0, 0),
    (0.01, 0.01, -0.5, -0.2, 0.5, -0.1, 0.5, -0.1),
    (0.01, 0.01, 0.5, -0.2, 0.990099, -0.19802, 0.990099, -0.19802),
    (0.5, 0.2, 3, 0.2, 0.466667, 0.0933333, 0.466667, 0.0933333),
    (0.5, 0.2, -8, -0.4, 0.175, -0.07, 0.175, -0.07),
    (0.5, 0.2, 0.3, -0.4, 0.666667, -0.266667, 0.666667, -0.266667),
    (0.5, 0.2, 0, 0.2, 0.5, 0.1, 0.666667, 0.133333),
    (0.5, 0.2, 0, -0.2, 0.5, -0.1, 0.666667, -0.133333),
    (10, 0.01, 0.5, 0.2, 0.5, 0.1, 0.5, 0.1),
    (10, 0.01, 100, 0.2, 0.0191818, 0.00383636, 0.0191818, 0.00383636),
    (10, 0.01, -100, -0.2, 0.0191818, -0.00383636, 0.0191818, -0.00383636),
    (10, 0.01, -40, 0.3, 0, 0, 0, 0),
    (100, 0.01, 100, 0.2, 0.02, 0.004, 0.01, 0.002),
    (100, 0.01, -100, -0.2, 0.02, -0.004, 0.01, -0.002),
    (100, 0.01, 100, -0.2, 0, 0, 0, 0),
    (100, 0.01, 100, 0.0005, 0.02, 1e-05, 1, 0.0005),
    (100, 0.01, 1.2, 0.2, 0.5, 0.1, 0.5, 0.1),
    (100, 0.01, 0.0005, 0.2, 0.5, 0.1, 1, 0.2),
    (100, 0.01, 0, 0.2, 0.5, 0.1, 1, 0.2),
    (100, 0.01, 0, -0.2, 0.5, -0.1, 1, -0.2),
]
# mu, alpha, latent, g, then the slopes of `adaptive` and of `supremum`
SUPREMUM = [
    (0.01, 0.01, 10, 0.2, 0.101, 0.18182),
    (0.5, 0.2, -8, -0.4, 0.175, 0.224719),
    (10, 0.01, 100, 0.2, 0.0191818, 0.0198216),
    (10, 0.01, 15, 0.2, 0.127879, 0.127879),
]


@functools.cache
def _vectorised(rule, face):
    """`face` of the rule, for arrays of latents, gradients, mu and alpha."""
    return jax.jit(
        jax.vmap(
            lambda t, g, m, a, cap: face(t, g, mu=m, alpha=a, rule=rule, cap=cap),
            in_axes=(0, 0, 0, 0, None),
        )
    )


@pytest.mark.parametrize(("rule", "column"), [("adaptive", 0), ("released", 2)])
def test_slope_and_gradient_rows(float64, rule, column):
    mu, alpha, latent, grad, *columns = map(jnp.array, zip(*SLOPES, strict=True))
    args = (latent.astype(float), grad, mu, alpha, 0.5)
    slope = _vectorised(rule, estimators.adaste_slope)(*args)
    np.testing.assert_allclose(slope, columns[column], rtol=DIGITS)
    gradient = _vectorised(rule, estimators.adaste_gradient)(*args)
    np.testing.assert_allclose(gradient, columns[column + 1], rtol=DIGITS)


def test_supremum_rows(float64):
    mu, alpha, latent, grad, *columns = map(jnp.array, zip(*SUPREMUM, strict=True))
    args = (latent.astype(float), grad, mu, alpha, 0.5)
    for rule, column in zip(("adaptive", "supremum"), columns, strict=True):
        slope = _vectorised(rule, estimators.adaste_slope)(*args)
        np.testing.assert_allclose(slope, column, rtol=DIGITS)


def _uncapped(rule, *args):
    with jax.enable_x64(True):
        slope = _vectorised(rule, estimators.adaste_slope)
        return float(slope(*(np.array([x]) for x in args), np.inf)[0])


finite = functools.partial(st.floats, allow_subnormal=False)
mus = st.one_of(st.just(0.0), finite(0.01, 500.0))
alphas = finite(0.001, 0.999)
latents = st.builds(
    lambda size, s: s * size, finite(1e-3, 50.0), st.sampled_from([-1, 1])
)
sizes = finite(1e-6, 1e3)


@hypothesis.given(mus, alphas, latents, sizes)
@hypothesis.settings(deadline=None, derandomize=True)
def test_adaptive_is_the_quotient_of_the_step_that_just_crosses_zero(
    mu, alpha, latent, size
):
    """For a gradient toward zero, with no cap; the oracle knows only w*."""
    grad = size * np.sign(latent)
    beta = abs(latent / grad) * (1 + 1e-9)
    expected = reference.adaste_quotient(latent, grad, beta, mu, alpha)
    got = _uncapped("adaptive", latent, grad, mu, alpha)
    # Near mu alpha = 1 the library takes the limit.
    np.testing.assert_allclose(got, expected, rtol=2e-6)


@hypothesis.given(mus, alphas, latents, sizes, st.booleans(), finite(1e-3, 1e3))
@hypothesis.settings(deadline=None, derandomize=True)
def test_supremum_is_above_the_quotient_of_every_step(
    mu, alpha, latent, size, toward, step
):
    grad = size * np.sign(latent) * (1 if toward else -1)
    beta = step * abs(latent / grad)
    quotient = reference.adaste_quotient(latent, grad, beta, mu, alpha)
    bound = _uncapped("supremum", latent, grad, mu, alpha)
    assert quotient <= bound * (1 + 1e-6) + 1e-6


@hypothesis.given(mus, alphas, latents, sizes, st.booleans())
@hypothesis.settings(deadline=None, derandomize=True)
def test_adaptive_depends_on_the_gradient_through_its_sign(
    mu, alpha, latent, size, toward
):
    grad = np.sign(latent) * (1 if toward else -1)
    rule = _vectorised("adaptive", estimators.adaste_gradient)
    args = [np.array([x], np.float32) for x in (latent, grad, mu, alpha)]
    one = rule(*args, 0.5)
    args[1] = np.array([size * grad], np.float32)
    np.testing.assert_allclose(rule(*args, 0.5), np.float32(size) * one, rtol=1e-6)


def test_released_is_neither_odd_nor_homogeneous_but_adaptive_is():
    latent, grad = jnp.array([0.5, -0.5, 10.0]), jnp.array([0.2, -0.2, 0.2])
    slope = functools.partial(estimators.adaste_slope, mu=0.01, alpha=0.01)
    released = slope(latent, grad, rule="released")
    np.testing.assert_array_equal(released[:2], [0.0, 0.5])  # not to be mended
    small = slope(latent, 0.001 * grad, rule="released")
    np.testing.assert_allclose([released[2], small[2]], [0.101, 0.990099], rtol=DIGITS)
    adaptive = slope(latent, grad)
    assert adaptive[0] == adaptive[1] == 0.5
    np.testing.assert_array_equal(adaptive, slope(latent, 0.001 * grad))


def test_adaptive_and_released_agree_on_saturated_latents_while_annealing(float64):
    """Where mu alpha < 1 and |g| > 0.001."""
    size, grad, mu = (
        array.ravel()
        for array in np.meshgrid(
            [1.3, 2.0, 7.0, 1e4], [-3.0, -0.002, 0.002, 3.0], [0.01, 1.0, 99.0]
        )
    )
    for latent in (size, -size):
        args = (latent, grad, mu, np.full_like(mu, 0.01), 0.5)
        np.testing.assert_allclose(
            _vectorised("adaptive", estimators.adaste_slope)(*args),
            _vectorised("released", estimators.adaste_slope)(*args),
            rtol=1e-13,
        )


def test_without_annealing_the_map_is_hard_tanh(float64):
    """Away from zero its slope, toward it min(1, a) / a up to the cap."""
    latent = jnp.array([-3.0, -0.5, 0.5, 1.5, 4.0])
    np.testing.assert_array_equal(
        estimators.adaste_paper(latent, mu=0.0), jnp.clip(latent, -1, 1)
    )
    slope = functools.partial(estimators.adaste_slope, latent, mu=0.0, alpha=0.01)
    np.testing.assert_array_equal(slope(-latent), [0, 1, 1, 0, 0])
    np.testing.assert_allclose(
        slope(latent, cap=jnp.inf), [1 / 3, 1, 1, 1 / 1.5, 1 / 4], rtol=1e-12
    )
    np.testing.assert_allclose(slope(latent), [1 / 3, 0.5, 0.5, 0.5, 0.25], rtol=1e-12)


def test_the_estimator_is_the_rule_and_the_transform_is_the_rule():
    """The two faces, for every rule, option and branch, on one grid."""
    latent, grad = jnp.meshgrid(
        jnp.array([-5.0, -1.2, -0.3, 0.0, 1e-4, 0.4, 1.0, 40.0]),
        jnp.array([-2.0, -5e-4, 0.0, 1e-4, 0.3]),
        indexing="ij",
    )
    for options in (
        {"rule": "adaptive"},
        {"rule": "supremum", "cap": 3.0},
        {"rule": "released"},
        {"rule": "identity"},
        {"rule": "adaptive", "threshold": 1e-3},
    ):
        hyper = {"mu": 0.7, "alpha": 0.2, **options}
        tx = optim.scale_by_adaste(**hyper)
        estimator = functools.partial(estimators.adaste_paper, **hyper)

        @jax.jit
        def faces(latent, grad, tx=tx, estimator=estimator, hyper=hyper):
            transformed, _ = tx.update(grad, tx.init(latent), latent)
            pulled = jax.vjp(estimator, latent)[1](grad)[0]
            return (
                transformed,
                pulled,
                estimators.adaste_gradient(latent, grad, **hyper),
            )

        transformed, pulled, plain = faces(latent, grad)
        np.testing.assert_array_equal(pulled, transformed)
        np.testing.assert_array_equal(plain, transformed)


@pytest.mark.parametrize(("mu", "soft"), [(4.0, 0.2), (100.0, 1.0)])
def test_the_threshold_lets_small_gradients_skip_the_rule(mu, soft):
    latent = jnp.array([30.0, 30.0, -30.0, -30.0])
    grad = jnp.array([0.01, 0.02, 0.01, 0.02])
    slope = functools.partial(estimators.adaste_slope, latent, grad, mu=mu, alpha=0.01)
    with_threshold = slope(threshold=0.015)
    np.testing.assert_allclose(with_threshold[::2], soft, rtol=1e-6)
    np.testing.assert_array_equal(with_threshold[1::2], slope()[1::2])
    assert slope()[2] == 0  # away, where the rule never lets a latent grow
    released = slope(rule="released", threshold=0.0)
    assert released[2] == 0


@pytest.mark.parametrize("mu", [0.01, 0.7, 5.0, 100.0])
def test_the_recommended_map_is_the_measured_one(float64, mu):
    """Units of the layer, mean magnitude 1, straight-through."""
    latent = np.random.default_rng(1).normal(size=(4, 5)) * 0.03
    weight, pullback = jax.vjp(
        lambda t: estimators.adaste(t, mu=mu),
        jnp.asarray(latent),
    )
    expected = reference.adaste_annealed(latent.ravel().tolist(), mu, 0.01)
    np.testing.assert_allclose(weight.ravel(), expected, rtol=1e-12)
    np.testing.assert_allclose(jnp.mean(jnp.abs(weight)), 1.0, rtol=1e-12)
    grad = jnp.asarray(latent[::-1])
    np.testing.assert_array_equal(pullback(grad)[0], grad)


def test_units_of_the_tensor_make_the_map_free_of_scale(float64):
    latent, grad = jnp.array([-3.0, 0.2, 1.0]), jnp.array([-1.0, 0.5, -0.2])
    rms = np.sqrt(np.mean(np.square(latent)))
    weight = estimators.adaste(1e-3 * latent, mu=0.5)
    literal = estimators.adaste_paper(latent / rms, mu=0.5)
    np.testing.assert_allclose(weight, literal / jnp.mean(jnp.abs(literal)), rtol=1e-12)
    rule = functools.partial(estimators.adaste_gradient, mu=0.5, alpha=0.01)
    expected = rule(latent / rms, grad)
    for scale in (1.0, 1e-3):
        got = rule(scale * latent, grad, unit="rms")
        np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("alpha", [0.01, 0.03, 0.13, 0.3])
def test_weights_are_exactly_binary_once_mu_is_one_over_alpha(dtype, alpha):
    """Although mu alpha need not round to 1: it does not for 0.03 and 0.13."""
    latent = jnp.array([-1e-6, -0.0, 0.0, 1e-6, 3.0], dtype)
    for estimator in (estimators.adaste, estimators.adaste_paper):
        weight = estimator(latent, mu=1 / alpha, alpha=alpha)
        np.testing.assert_array_equal(np.float32(weight), [-1, 1, 1, 1, 1])
    slope = functools.partial(estimators.adaste_slope, mu=1 / alpha, alpha=alpha)
    away = slope(jnp.float32(1e-8), jnp.float32(-1.0))
    assert away == 0  # nothing is left of the range in which w* is not saturated


def test_all_latents_zero_is_not_a_division_by_zero():
    zeros = jnp.zeros((2, 2))
    weight, pullback = jax.vjp(lambda t: estimators.adaste(t, mu=0.0), zeros)
    np.testing.assert_allclose(weight, 1.0)
    np.testing.assert_array_equal(pullback(jnp.ones((2, 2)))[0], 1.0)
    slope = estimators.adaste_gradient(zeros, zeros + 1, mu=0.0, alpha=0.01, unit="rms")
    np.testing.assert_array_equal(slope, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mu": -0.1}, r"`mu` must lie in \[0, inf\], got -0.1"),
        ({"mu": float("nan")}, r"`mu` must lie in \[0, inf\], got nan"),
        ({"alpha": 0.0}, r"`alpha` must lie in \(0, 1\), got 0"),
        ({"alpha": 1.0}, r"`alpha` must lie in \(0, 1\), got 1"),
        ({"cap": -1.0}, r"`cap` must lie in \[0, inf\], got -1"),
        ({"threshold": -1.0}, r"`threshold` must lie in \[0, inf\], got -1"),
        ({"rule": "adaptve"}, r"`rule` must be one of .*'adaptive'.*got 'adaptve'"),
    ],
)
def test_what_is_out_of_range_is_refused(options, message):
    hyper = {"mu": 1.0, **options}
    with pytest.raises(ValueError, match=message):
        estimators.adaste_paper(jnp.ones(2), **hyper)
    with pytest.raises(ValueError, match=message):
        optim.scale_by_adaste(**hyper)
    if hyper.keys() <= {"mu", "alpha"}:
        with pytest.raises(ValueError, match=message):
            estimators.adaste(jnp.ones(2), **hyper)


def test_a_unit_that_is_unknown_is_refused():
    with pytest.raises(ValueError, match=r"`unit` must be one of .*'rms'.*got 'max'"):
        optim.scale_by_adaste(1.0, unit="max")


def test_a_keyword_that_is_unknown_is_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'ruel'"):
        estimators.adaste(jnp.ones(2), mu=1.0, ruel="identity")


def test_an_axis_name_that_is_not_hashable_is_refused():
    with pytest.raises(TypeError, match=r"`axis_name` must be hashable"):
        estimators.adaste_paper(jnp.ones(2), mu=1.0, axis_name=["data"])


def test_the_slope_away_from_zero_may_be_given():
    """Toward zero, at zero and below the threshold nothing changes."""
    latent = jnp.array([2.0, 2.0, -2.0, -2.0, 0.3, 0.3, 0.0])
    grad = jnp.array([1.0, -1.0, 1.0, -1.0, -1.0, 1e-4, 1.0])
    slope = functools.partial(
        estimators.adaste_slope, latent, grad, mu=0.5, alpha=0.2, threshold=1e-3
    )
    given, default = slope(away=0.25), slope()
    np.testing.assert_allclose(default[jnp.array([1, 2, 4])], [0.0, 0.0, 1 / 1.5])
    np.testing.assert_allclose(given[jnp.array([1, 2, 4])], 0.25)
    kept = jnp.array([0, 3, 5, 6])
    np.testing.assert_array_equal(given[kept], default[kept])
    with pytest.raises(ValueError, match=r"`away` must lie in \[0, inf\], got -1"):
        slope(away=-1.0)
