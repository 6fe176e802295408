"""What every estimator must do, one row for each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adaste_jax
from tests.estimators.cases import CASES

every = pytest.mark.parametrize("name", CASES)
elementwise = pytest.mark.parametrize(
    "name",
    [name for name, case in CASES.items() if case.elementwise and not case.random],
)

# Both sides of every threshold of every rule above, and no threshold itself.
LATENTS = np.array(
    [-7.0, -2.5, -1.01, -0.85, -0.3, -1e-4, 1e-4, 0.2, 0.55, 0.87, 1.2, 9.0]
)
GRADS = np.array([-3.0, -0.2, -5e-4, 5e-4, 0.2, 0.4, 3.0])
# Of all arrays below, so that a rule is compiled once for a dtype.
SHAPE = (len(LATENTS), len(GRADS))


def _grid(dtype=np.float32):
    latent, grad = np.meshgrid(LATENTS, GRADS, indexing="ij")
    return jnp.asarray(latent, dtype), jnp.asarray(grad, dtype)


@functools.cache
def _compiled(name):
    """Weight, and cotangents of latent and hyperparameters; and how often it traced."""
    case = CASES[name]
    traces = []

    @jax.jit
    def pull(latent, grad, hyper):
        traces.append(latent.shape)
        weight, pullback = jax.vjp(
            lambda latent, hyper: case.estimator(latent, **hyper), latent, hyper
        )
        return weight, *pullback(grad)

    return pull, traces


def _pull(name, latent, grad, **changes):
    pull, _ = _compiled(name)
    return pull(latent, grad, {**CASES[name].hyper, **changes})


@every
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_keeps_shape_and_dtype_and_the_sign_of_the_latent(name, dtype):
    """Never zero, also where the latent is; 0 and -0.0 are positive."""
    with jax.enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("strict"):
        values = np.resize([-3.0, -0.5, -1e-4, -0.0, 0.0, 1e-4, 0.5, 3.0], SHAPE)
        latent = jnp.asarray(values, dtype)
        weight, cotangent, _ = _pull(name, latent, jnp.full(SHAPE, 0.25, dtype))
        assert (weight.shape, weight.dtype) == (latent.shape, latent.dtype)
        assert (cotangent.shape, cotangent.dtype) == (latent.shape, latent.dtype)
        assert np.isfinite(np.float64(weight)).all()
        assert np.isfinite(np.float64(cotangent)).all()
        expected = np.where(values >= 0, 1, -1)
        if CASES[name].sign == "nonzero":
            expected = np.sign(np.float64(latent))
        if CASES[name].sign != "no":
            np.testing.assert_array_equal(np.sign(np.float64(weight)), expected)


@every
def test_is_the_same_outside_jit(name):
    latent, grad = _grid()
    weight, pullback = jax.vjp(
        lambda latent: CASES[name].estimator(latent, **CASES[name].hyper), latent
    )
    expected = _pull(name, latent, grad)
    np.testing.assert_allclose(weight, expected[0], rtol=1e-6)
    np.testing.assert_allclose(pullback(grad)[0], expected[1], rtol=1e-5, atol=1e-6)


@elementwise
def test_is_the_same_under_vmap(name):
    latent, grad = _grid()
    pull, _ = _compiled(name)
    got = jax.vmap(pull, in_axes=(0, 0, None))(latent, grad, CASES[name].hyper)
    expected = _pull(name, latent, grad)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])


@every
def test_a_traced_hyperparameter_changes_the_result_without_compiling_again(name):
    case = CASES[name]
    latent, grad = _grid()
    before = _pull(name, latent, grad)
    traces = len(_compiled(name)[1])
    after = _pull(name, latent, grad, **case.other)
    assert len(_compiled(name)[1]) == traces
    if case.other:
        changed = [
            not np.array_equal(a, b) for a, b in zip(before[:2], after[:2], strict=True)
        ]
        assert any(changed)


@every
def test_hyperparameters_get_no_gradient(name):
    latent, grad = _grid()
    cotangents = _pull(name, latent, grad)[2]
    assert set(cotangents) == set(CASES[name].hyper)
    for cotangent in cotangents.values():
        np.testing.assert_array_equal(cotangent, 0.0)


@every
def test_no_gradient_gives_no_gradient(name):
    latent, grad = _grid()
    np.testing.assert_array_equal(_pull(name, latent, 0 * grad)[1], 0.0)


@every
def test_extreme_values_stay_finite(name):
    sizes = [0.0, 1e-30, 1e-7, 1.0, 1e6, 1e30]
    latent, grad = np.meshgrid(
        [*sizes, *(-size for size in sizes)],
        [0.0, 1e-30, 1.0, 1e6, -1e-30, -1.0, -1e6],
        indexing="ij",
    )
    assert latent.shape == SHAPE
    latent, grad = jnp.asarray(latent, jnp.float32), jnp.asarray(grad, jnp.float32)
    for hyper in (CASES[name].hyper, {**CASES[name].hyper, **CASES[name].other}):
        weight, cotangent, _ = _pull(name, latent, grad, **hyper)
        assert np.isfinite(weight).all()
        if CASES[name].sign == "always":
            assert (np.asarray(weight) != 0).all()
        assert np.isfinite(cotangent).all()
        np.testing.assert_array_equal(np.asarray(cotangent)[np.asarray(grad) == 0], 0)


@every
def test_odd_but_for_the_released_rule(name):
    latent, grad = _grid()
    weight, cotangent, _ = _pull(name, latent, grad)
    mirror_weight, mirror_cotangent, _ = _pull(name, -latent, -grad)
    if not CASES[name].random:
        np.testing.assert_allclose(mirror_weight, -weight, rtol=1e-6, atol=1e-7)
    same = np.allclose(mirror_cotangent, -cotangent, rtol=1e-6, atol=1e-7)
    assert same == CASES[name].odd


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case.reference]
)
@pytest.mark.parametrize("set_of", ["hyper", "other"])
def test_float64_is_the_closed_form(name, set_of):
    case = CASES[name]
    hyper = {**case.hyper, **getattr(case, set_of)}
    with jax.enable_x64(True):
        latent, grad = _grid(np.float64)
        got = _pull(name, latent, grad, **hyper)
    expected = np.vectorize(lambda t, g: case.reference(t, g, **hyper))(latent, grad)
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-12, atol=1e-14)


@every
def test_float32_is_close_to_float64(name):
    with jax.enable_x64(True):
        expected = _pull(name, *_grid(np.float64))
    got = _pull(name, *_grid())
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-5, atol=1e-6)


@every
def test_integers_are_refused_with_a_way_out(name):
    case = CASES[name]
    with pytest.raises(
        TypeError, match=r"got int32 of shape \(2,\).*astype\(jnp.float32"
    ):
        case.estimator(jnp.array([1, -1]), **case.hyper)


@every
def test_hyperparameters_may_be_arrays_of_another_dtype(name, strict_dtypes):
    hyper = {key: jnp.float32(value) for key, value in CASES[name].hyper.items()}
    expected = _pull(name, *_grid(jnp.bfloat16))
    got = _pull(name, *_grid(jnp.bfloat16), **hyper)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


@every
def test_a_sharded_batch_gives_the_gradient_of_one_device(name, mesh):
    """With latents on every device; and in parts, where a rule could tell."""
    case = CASES[name]
    rng = np.random.default_rng(0)
    latent = jnp.asarray(rng.normal(size=(8, 3)), jnp.float32)
    inputs = jnp.asarray(rng.normal(size=(16, 8)), jnp.float32)
    targets = jnp.asarray(rng.normal(size=(16, 3)), jnp.float32)

    def loss(latent, inputs, targets):
        weight = case.estimator(latent, **case.hyper)
        return jnp.mean(jnp.square(inputs @ weight - targets))

    gradient = jax.jit(jax.grad(loss))
    expected = gradient(latent, inputs, targets)
    spec = jax.sharding.PartitionSpec
    by_batch = jax.sharding.NamedSharding(mesh, spec("data"))
    data = jax.device_put((inputs, targets), by_batch)
    additive = case.elementwise and not name.startswith("adaste")
    for latent_spec in [spec()] if additive else [spec(), spec("data")]:
        sharding = jax.sharding.NamedSharding(mesh, latent_spec)
        got = gradient(jax.device_put(latent, sharding), *data)
        assert len(got.devices()) == 4
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@every
def test_a_tree_is_binarised_leaf_by_leaf(name):
    """Through an Optax-style mask; the leaves that are not chosen are untouched."""
    case = CASES[name]
    latent, _ = _grid()
    params = {"body": {"kernel": latent, "bias": latent}}
    got = adaste_jax.binarize(
        params,
        functools.partial(case.estimator, **case.hyper),
        where=lambda tree: {"body": {"kernel": True, "bias": False}},
    )
    assert got["body"]["bias"] is latent
    np.testing.assert_array_equal(
        got["body"]["kernel"], case.estimator(latent, **case.hyper)
    )
