"""Schedules of a run, and where an epoch begins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import methods, optim


def _mu(method, step):
    return float(method.values(step)["mu"])


def test_per_epoch_is_constant_within_an_epoch():
    schedule = jax.jit(jax.vmap(optim.per_epoch(lambda epoch: 10.0 * epoch, 3)))
    np.testing.assert_array_equal(schedule(jnp.arange(7)), [0, 0, 0, 10, 10, 10, 20])
    with pytest.raises(ValueError, match="steps_per_epoch >= 1, got 0"):
        optim.per_epoch(lambda epoch: epoch, 0)


def test_mu_rises_geometrically_to_its_end_and_stays():
    method = methods.adaste(50, mu_init=0.01, mu_end=100.0, anneal_fraction=0.8)
    assert _mu(method, 0) == pytest.approx(0.01)
    assert _mu(method, 20) == pytest.approx(1.0, rel=1e-5)
    assert _mu(method, 40) == _mu(method, 49) == pytest.approx(100.0, rel=1e-6)


@pytest.mark.parametrize(
    ("steps", "options", "moves"),
    [
        (9, {"steps_per_epoch": 3}, [3, 6]),
        (8, {"steps_per_epoch": 3}, [3, 6]),  # the last epoch is cut short
        (4, {}, [1, 2, 3]),
        (4, {"steps_per_epoch": 9}, []),
    ],
)
def test_schedules_of_epochs_move_between_epochs(steps, options, moves):
    values = jax.vmap(methods.ede(steps, **options).values)(jnp.arange(steps))
    sharpness = np.asarray(values["sharpness"])
    assert list(1 + np.flatnonzero(np.diff(sharpness))) == moves
    assert sharpness[0] == pytest.approx(0.1)
    epochs = len(moves) + 1
    assert sharpness[-1] == pytest.approx(0.1 * 100 ** ((epochs - 1) / epochs))


@pytest.mark.parametrize(("steps", "epoch"), [(1400, 2), (700, 1), (2099, 2), (50, 1)])
def test_released_schedules_count_700_epochs_where_none_are_given(steps, epoch):
    method = methods.adaste_released(steps)
    assert _mu(method, epoch - 1) == pytest.approx(0.0105)
    assert _mu(method, epoch) == pytest.approx(0.0105 * 1.05)
    assert method.binary_from == 188 * epoch


def test_reports_have_what_the_weights_read():
    names = {name: list(f(9).values(0)) for name, f in methods.METHODS.items()}
    read = {name: found for name, found in names.items() if found}
    growing = ["tanh", "md_tanh_s", "md_softmax_s", "pmf", "ternary_tanh"]
    assert read == {
        **{name: ["mu"] for name in ("adaste", "adaste_paper", "adaste_released")},
        **{name: ["beta"] for name in growing},
        **{name: ["sharpness"] for name in ("ede", "rbnn", "irnet")},
        "progressive": ["sharpness"],
        "biper": ["stage"],
        "blend": ["share"],
        "reste": ["exponent"],
        "parq": ["inverse_slope"],
    }
