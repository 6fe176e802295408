"""Shares of the latents are measured in some steps, and repeated between them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import methods, train

NAMES = ("flip_rate", "saturated", "zero_gradient")
RNG = np.random.default_rng(0)
BATCH = {
    "image": RNG.normal(size=(8, 12)).astype(np.float32),
    "label": RNG.integers(0, 10, 8),
}
METHOD = methods.adaste(steps=8, learning_rate=0.1)


def forward(params, model_state, inputs, *, train, key):
    return inputs @ params["kernel"], model_state


def new_state(step=0):
    params = {"kernel": jnp.asarray(np.random.default_rng(1).normal(size=(12, 10)))}
    state = train.TrainState.create(params, METHOD.tx, key=jax.random.key(0))
    return train.TrainState(**{**vars(state), "step": jnp.int32(step)})


def reports(report):
    step, state = train.make_train_step(forward, METHOD, report=report), new_state()
    found = []
    for _ in range(8):
        state, shares = step(state, BATCH)
        found.append([float(shares[name]) for name in NAMES])
    return found


def test_every_fourth_step_measures_and_the_others_repeat():
    every = reports("full")
    assert len({tuple(shares) for shares in every}) > 4
    for step, shares in enumerate(reports(4)):
        assert shares == pytest.approx(every[step - step % 4], abs=1e-6)


def test_a_scan_reports_what_single_steps_do():
    many = train.make_train_step(forward, METHOD, report=4, many=True)
    batches = jax.tree.map(lambda leaf: np.stack([leaf] * 3), BATCH)
    expected, state, found = reports(4), new_state(), []
    for _ in range(2):
        state, shares = many(state, batches)
        found += np.stack([shares[name] for name in NAMES], axis=-1).tolist()
    np.testing.assert_allclose(found, expected[:6], atol=1e-6)


def test_a_state_from_elsewhere_is_measured():
    """Shares of one run are never reported as those of another."""
    step = train.make_train_step(forward, METHOD, report=100)
    _, expected = train.make_train_step(forward, METHOD, report="full")(
        new_state(step=5), BATCH
    )
    step(new_state(), BATCH)
    _, found = step(new_state(step=5), BATCH)
    for name in NAMES:
        assert float(found[name]) == pytest.approx(float(expected[name]), abs=1e-6)


@pytest.mark.parametrize("report", [0, -1, 1.5, "often"])
def test_a_report_that_is_no_number_of_steps_is_refused(report):
    with pytest.raises(ValueError, match="`report` must be one of"):
        train.make_train_step(forward, METHOD, report=report)
