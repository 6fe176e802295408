"""Signs scaled by their group."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import estimators
from adaste_jax.estimators import _irnet
from tests import reference

# Tables are printed to six digits and computed in float64.
DIGITS = 5e-6

# Columns are groups; the first is the example of the table, the second has another n
# of latents beyond 1, and a 0.
LATENT = np.array([[0.5, 1.2], [-0.2, 0.0], [0.3, -0.7], [-1.4, 2.0]])
GRAD = np.array([[0.1, -0.3], [0.2, 0.5], [-0.3, 0.1], [0.4, -0.2]])
FORMS = {
    "constant": [0.06, 0.12, -0.18, 0],
    "detached": [0.1, 0.2, -0.3, 0],
    "exact": [-0.14, 0.32, -0.38, 0.2],
    "diagonal": [0.085, 0.17, -0.255, 0.1],
}


@pytest.mark.parametrize("scale_grad", FORMS)
def test_scaled_sign_rows(float64, scale_grad):
    weight, pullback = jax.vjp(
        lambda t: estimators.scaled_sign(t, scale_grad=scale_grad), jnp.asarray(LATENT)
    )
    (gradient,) = pullback(jnp.asarray(GRAD))
    np.testing.assert_allclose(weight[:, 0], [0.6, -0.6, 0.6, -0.6], rtol=1e-12)
    np.testing.assert_allclose(gradient[:, 0], FORMS[scale_grad], rtol=1e-12)
    for column in (0, 1):
        expected = reference.scaled_sign(LATENT[:, column], GRAD[:, column], scale_grad)
        np.testing.assert_allclose(weight[:, column], expected[0], rtol=1e-12)
        np.testing.assert_allclose(
            gradient[:, column], expected[1], rtol=1e-12, atol=1e-16
        )


@pytest.mark.parametrize("axis", [0, 1, 2, -2, None])
def test_groups_are_the_entries_of_the_axis(axis):
    latent = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    weight = np.asarray(estimators.scaled_sign(latent, axis=axis))
    if axis is None:
        scales = np.abs(latent).mean()
    else:
        moved = np.moveaxis(np.abs(latent), axis, -1).reshape(-1, latent.shape[axis])
        shape = np.ones(3, int)
        shape[axis] = -1
        scales = moved.mean(0).reshape(shape)
    np.testing.assert_allclose(weight, np.sign(latent) * scales, rtol=1e-6)


@pytest.mark.parametrize(
    "estimator",
    [
        functools.partial(estimators.scaled_sign, scale_grad="exact"),
        functools.partial(estimators.irnet_weight, sharpness=0.7),
    ],
)
def test_a_group_is_the_tensor_mapped_over_the_axis(estimator):
    """Weights and gradients."""
    rng = np.random.default_rng(0)
    latent, grad = jnp.asarray(rng.normal(size=(2, 5, 3)), jnp.float32)

    def pull(latent, grad, axis):
        weight, pullback = jax.vjp(functools.partial(estimator, axis=axis), latent)
        return weight, pullback(grad)[0]

    mapped = jax.vmap(pull, in_axes=(1, 1, None), out_axes=1)(latent, grad, None)
    for got, expected in zip(pull(latent, grad, -1), mapped, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_the_published_reste_scales_by_the_whole_tensor(float64):
    """The exact form, with ReSTE's slope in place of the clip."""
    sign = functools.partial(estimators.reste, exponent=3.0)
    estimator = functools.partial(
        estimators.scaled_sign, axis=None, scale_grad="exact", estimator=sign
    )
    weight, pullback = jax.vjp(estimator, jnp.asarray(LATENT))
    scale = np.abs(LATENT).mean()
    signs = np.where(LATENT >= 0, 1, -1)
    slopes = np.vectorize(lambda t: reference.reste(t, 1.0, 3.0)[1])(LATENT)
    expected = scale * slopes * GRAD + signs * np.mean(GRAD * signs)
    np.testing.assert_allclose(weight, scale * signs, rtol=1e-12)
    np.testing.assert_allclose(pullback(jnp.asarray(GRAD))[0], expected, rtol=1e-12)


IRNET_LATENT = [0.4, -0.2, 0.1, 0.9]
IRNET_GRAD = [0.1, 0.2, -0.3, 0.4]


def test_irnet_rows(float64):
    latent = jnp.array(IRNET_LATENT)[:, None]
    weight, pullback = jax.vjp(
        lambda t: estimators.irnet_weight(t, sharpness=1.0), latent
    )
    (gradient,) = pullback(jnp.array(IRNET_GRAD)[:, None])
    np.testing.assert_array_equal(weight[:, 0], [1, -1, -1, 1])
    expected = [0.161801, 0.286285, -0.494767, 0.0466817]
    np.testing.assert_allclose(gradient[:, 0], expected, rtol=DIGITS)
    *both, z = reference.irnet_weight(IRNET_LATENT, IRNET_GRAD, 1.0)
    np.testing.assert_allclose(z, [0.213201, -1.066, -0.426401, 1.2792], rtol=2e-5)
    np.testing.assert_allclose(gradient[:, 0], both[1], rtol=1e-12)
    # The gradient is orthogonal to shifts and to scalings of the group.
    np.testing.assert_allclose(gradient.sum(), 0, atol=1e-15)
    np.testing.assert_allclose(gradient[:, 0] @ np.array(z), 0, atol=1e-15)


@pytest.mark.parametrize("axis", [-1, 0, None])
def test_irnet_is_the_reference_in_every_group(float64, axis):
    rng = np.random.default_rng(2)
    latent, grad = rng.normal(size=(2, 7, 3))
    weight, pullback = jax.vjp(
        lambda t: estimators.irnet_weight(t, sharpness=2.5, axis=axis),
        jnp.asarray(latent),
    )
    got = np.array([weight, pullback(jnp.asarray(grad))[0]])
    groups = {-1: (2, 3, 7), 0: (2, 7, 3), None: (2, 1, 21)}[axis]
    if axis == -1:
        got, latent, grad = got.swapaxes(1, 2), latent.T, grad.T
    got = got.reshape(groups)
    rows = zip(latent.reshape(groups[1:]), grad.reshape(groups[1:]), strict=True)
    for i, (thetas, grads) in enumerate(rows):
        expected = reference.irnet_weight(thetas.tolist(), grads.tolist(), 2.5)
        np.testing.assert_array_equal(got[0, i], expected[0])
        np.testing.assert_allclose(got[1, i], expected[1], rtol=1e-10, atol=1e-14)


def test_irnet_does_not_see_scale_or_shift():
    latent = jnp.array(IRNET_LATENT)[:, None]
    weight = estimators.irnet_weight(latent, sharpness=1.0)
    for changed in (3 * latent + 5, 1e-25 * latent, 1e30 * latent):
        np.testing.assert_array_equal(
            estimators.irnet_weight(changed, sharpness=1.0), weight
        )


def test_the_scale_of_irnet_is_the_nearest_power_of_two():
    got = _irnet.power_of_two(jnp.array([0.7, 0.71, 1.41, 1.42]))
    np.testing.assert_array_equal(got, [0.5, 1, 1, 2])


@pytest.mark.parametrize(
    "latent", [np.zeros((3, 2)), np.full((3, 2), 0.5), np.ones((1, 2))]
)
def test_a_constant_channel_is_no_division_by_zero(latent):
    latent = jnp.asarray(latent, jnp.float32)
    weight, pullback = jax.vjp(
        lambda t: estimators.irnet_weight(t, sharpness=1.0), latent
    )
    np.testing.assert_array_equal(weight, 1.0)
    assert np.isfinite(pullback(jnp.ones_like(latent))[0]).all()


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match=r"`scale_grad` must be one of .*'exact'"):
        estimators.scaled_sign(jnp.ones((2, 2)), scale_grad="exakt")
    for estimator in (
        estimators.scaled_sign,
        functools.partial(estimators.irnet_weight, sharpness=1.0),
    ):
        with pytest.raises(
            ValueError, match=r"`axis=2` is not an axis .*shape \(2, 2\)"
        ):
            estimator(jnp.ones((2, 2)), axis=2)
