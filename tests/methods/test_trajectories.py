"""A loop of one's own takes the same steps as `train_step`, bit for bit."""

import jax
import numpy as np
import pytest

from adaste_jax import methods, train
from tests.methods import problem


def _forward(params, model_state, inputs, *, train, key):
    return problem.network(params, inputs), model_state


def _expected(name, options):
    """Parameters after every step of `train_step`."""
    method = problem.small(name, real_learning_rate=2e-3, **options)
    params = method.init(problem.KEY, problem.drawn())
    step = train.train_step(_forward, method, shares=False)
    state = train.TrainState.create(params, method.tx, key=problem.KEY)

    def both(state, batch):
        state, _ = step(state, dict(zip(("image", "label"), batch, strict=True)), None)
        return state, state.params

    return problem.scanned(both, state, problem.batches())


VARIANTS = [
    *((name, {}) for name in methods.METHODS),
    ("adaste_paper", {"rule": "supremum", "alpha": 0.2, "mu_end": 3.0}),
    ("adaste_released", {"deployed_pass": False, "mu_rate": 8.0, "momentum": 0.0}),
    ("vispa", {"rank": 2}),
]


@pytest.mark.parametrize(
    ("name", "options"), VARIANTS, ids=lambda value: str(value) if value else ""
)
def test_a_loop_of_ones_own_takes_the_same_steps(name, options):
    expected = _expected(name, options)
    _, got = problem.trajectory(name, tuple(options.items()))
    assert jax.tree.structure(expected) == jax.tree.structure(got)
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
        assert one.shape[0] == problem.STEPS
        np.testing.assert_array_equal(one, other)
        assert np.any(np.asarray(one[0]) != np.asarray(one[-1]))
