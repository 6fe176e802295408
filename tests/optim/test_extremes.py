"""What transformations do with NaN, with no entries, and with injected numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adaste_jax
from adaste_jax import estimators, optim

ADAM = optax.scale_by_adam()

# The maker of each transformation, numbers to inject and what is no number.
CASES = {
    "scale_by_adaste": (optim.scale_by_adaste, {"mu": 1.0}),
    "scale_by_adaste_released": (
        functools.partial(optim.scale_by_adaste, rule="released", unit="rms", away=1.0),
        {"mu": 1.0, "cap": 0.7},
    ),
    "adaste_averaged": (optim.adaste_averaged, {"learning_rate": 0.1, "mu": 1.0}),
    "adaste_released": (
        optim.adaste_released,
        {"learning_rate": 0.1, "mu": 1.0, "grad_scale": 2.0},
    ),
    "scale_by_hardtanh_adaste": (optim.scale_by_hardtanh_adaste, {}),
    "scale_by_fenbp": (optim.scale_by_fenbp, {"beta": 0.5}),
    "scale_by_fenbp_named": (
        optim.scale_by_fenbp,
        {"beta": 0.5, "squash": "hard_tanh"},
    ),
    "binary_connect": (optim.binary_connect, {"learning_rate": 0.1, "bound": 2.0}),
    "binary_connect_inner": (
        optim.binary_connect,
        {"learning_rate": 0.1, "inner": ADAM, "glorot": False},
    ),
    "clip_latents": (optim.clip_latents, {"bound": 2.0}),
    "scale_by_glorot": (optim.scale_by_glorot, {}),
    "bop": (optim.bop, {"gamma": 0.5, "tau": 0.01}),
    "apply_prox": (optim.apply_prox, {"strength": 0.1}),
    "proxquant": (optim.proxquant, {"strength": 0.1, "form": "squared", "clip": True}),
    "proxquant_ternary": (optim.proxquant, {"strength": 0.1, "form": "ternary"}),
    "md_tanh": (optim.md_tanh, {"learning_rate": 0.1, "beta": 2.0}),
    "md_softmax": (
        optim.md_softmax,
        {"learning_rate": 0.1, "beta": 2.0, "inner": ADAM},
    ),
    "scale_by_early_adam": (optim.scale_by_early_adam, {"b1": 0.8}),
    "scale_by_bayesbinn": (
        optim.scale_by_bayesbinn,
        {"num_examples": 10.0, "temperature": 1.0, "stale_mean": False},
    ),
    "bayesbinn": (
        optim.bayesbinn,
        {"learning_rate": 0.1, "num_examples": 10.0, "temperature": 1.0},
    ),
    "vispa": (optim.vispa, {"learning_rate": 0.1}),
    "scale_by_ovsw": (optim.scale_by_ovsw, {"delta": 0.9, "decay": 0.1}),
    "freeze_oscillations": (
        optim.freeze_oscillations,
        {"threshold": 0.1, "momentum": 0.2},
    ),
    "apply_cage": (
        functools.partial(optim.apply_cage, estimators.ste),
        {"strength": 0.1},
    ),
}
every = pytest.mark.parametrize("name", CASES)

LATENT = jnp.array([[0.3, -0.2], [1.1, -0.9], [0.6, -1.4]])
GRAD = jnp.array([[0.1, -0.2], [-0.3, 0.4], [0.2, 0.5]])


def _step(tx, latent, grad, state=None):
    state = tx.init(latent) if state is None else state
    # As the training step calls it: what the loss was computed with goes along.
    more = {"weights": jnp.tanh(latent)}
    return optax.with_extra_args_support(tx).update(grad, state, latent, **more)


def _start(name):
    return optim.binary_signs(LATENT) if name == "bop" else LATENT


@every
def test_a_gradient_that_is_nan_leaves_no_valid_latent_behind(name):
    """Now or ever after: what it moves is NaN, whatever comes next."""
    maker, options = CASES[name]
    tx, latent = maker(**options), _start(name)
    first, state = _step(tx, latent, GRAD.at[1, 0].set(jnp.nan))
    moved = optax.apply_updates(latent, first)
    assert np.isnan(moved[1, 0])
    second, _ = _step(tx, moved, GRAD, state)
    assert np.isnan(optax.apply_updates(moved, second)[1, 0])


@pytest.mark.parametrize("gradient", [np.inf, -np.inf])
def test_bop_does_not_freeze_a_weight_in_silence(gradient):
    """An average that is infinite would never move its weight again."""
    tx, weight = optim.bop(0.5, tau=0.01), optim.binary_signs(LATENT)
    update, _ = _step(tx, weight, GRAD.at[0, 1].set(gradient))
    np.testing.assert_array_equal(np.isnan(update), [[0, 1], [0, 0], [0, 0]])


def test_bop_refuses_weights_that_are_nan():
    with pytest.raises(ValueError, match="has others"):
        optim.bop().init(optim.binary_signs(LATENT.at[0, 0].set(jnp.nan)))


@every
def test_a_latent_that_is_nan_stays_nan(name):
    maker, options = CASES[name]
    tx, latent = maker(**options), _start(name)
    _, state = _step(tx, latent, GRAD)
    latent = latent.at[2, 1].set(jnp.nan)
    update, _ = _step(tx, latent, GRAD, state)
    assert np.isnan(optax.apply_updates(latent, update)[2, 1])


@every
@pytest.mark.parametrize("shape", [(0, 2), (0, 3, 2)])
def test_a_kernel_without_entries_is_updated_to_one(name, shape):
    maker, options = CASES[name]
    empty = jnp.zeros(shape)
    with jax.debug_nans(True):
        update, _ = _step(maker(**options), empty, empty)
    assert update.shape == shape


@every
def test_injected_hyperparameters_change_nothing(name):
    """Numbers, and schedules in their place; names, flags and optimisers go through."""
    maker, options = CASES[name]
    latent = _start(name)
    expected, _ = _step(maker(**options), latent, GRAD)
    constant = {
        key: optax.constant_schedule(value)
        for key, value in options.items()
        if isinstance(value, float)
    }
    for given in (options, {**options, **constant}):
        injected = optax.inject_hyperparams(maker)(**given)
        state = injected.init(latent)
        assert set(constant) <= set(state.hyperparams)
        update, _ = _step(injected, latent, GRAD, state)
        np.testing.assert_allclose(update, expected, rtol=2e-5, atol=1e-6)


def test_a_function_is_injected_as_a_static_argument():
    options = {"beta": 0.5, "squash": jax.nn.hard_tanh}
    expected, _ = _step(optim.scale_by_fenbp(**options), LATENT, GRAD)
    injected = optax.inject_hyperparams(optim.scale_by_fenbp, static_args="squash")
    update, _ = _step(injected(**options), LATENT, GRAD)
    np.testing.assert_array_equal(update, expected)
    with pytest.raises(TypeError, match=r'static_args=\("squash",\)'):
        optax.inject_hyperparams(optim.scale_by_fenbp)(
            beta=0.5, squash=lambda count: 1.0 * count
        ).init(LATENT)
    with pytest.raises(ValueError, match=r"'hard_tanh', 'tanh'.*got 'relu'"):
        optim.scale_by_fenbp(0.5, squash="relu")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("form", ["l1", "squared", "ternary"])
def test_the_proximal_map_is_finite_to_the_ends_of_a_dtype(dtype, form):
    signs = jnp.asarray(np.where(np.arange(600) % 7, 1, -1), dtype)
    for end in (jnp.finfo(dtype).max, 2 * jnp.finfo(dtype).tiny):
        latent = signs * jnp.asarray(end, dtype)
        got = np.float32(optim.prox(latent, 0.25, form=form))
        assert np.isfinite(got).all()
        assert (np.sign(got) == signs).all()


def test_ternary_levels_of_many_half_precision_latents():
    """More entries than float16 can count, and than it can add up."""
    latent = jnp.full((70_000,), -2.0, jnp.float16)
    got = optim.prox(latent, 1.0, form="ternary")
    np.testing.assert_array_equal(got, latent)
    lost = optim.prox(latent.at[3].set(jnp.nan), 1.0, form="ternary")
    assert np.isnan(lost).all()


def test_vispa_has_norm_one_from_latents_of_any_size():
    tx = optim.vispa(0.1)
    for size in (1e3, 1e-30):
        latent = jnp.asarray([[3.0, -4.0], [5.0, 12.0]]) * size
        update, _ = _step(tx, latent, jnp.zeros_like(latent))
        expected = [[0.6, -0.8], [5 / 13, 12 / 13]]
        np.testing.assert_allclose(latent + update, expected, rtol=1e-3)


def test_labels_serve_two_leaves_of_one_path():
    params = {
        "x/y": {"kernel": LATENT, "bias": LATENT},
        "x": {"y": {"kernel": LATENT, "bias": LATENT}},
    }
    leaf = {"kernel": "latent", "bias": "real"}
    expected = {"x/y": leaf, "x": {"y": leaf}}
    rules = {"latent": adaste_jax.kernels()}
    assert optim.labels(params, rules) == expected
    with pytest.raises(ValueError, match="'x~1y/kernel' is claimed by 'b' and by 'a'"):
        optim.labels(
            params,
            {
                "b": {"x/y": True, "x": {"y": False}},
                "a": {"x/y": {"kernel": True, "bias": False}, "x": {"y": False}},
            },
        )
