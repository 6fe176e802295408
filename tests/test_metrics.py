"""The metrics of training against counts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import metrics

BEFORE = {
    "a": {"kernel": jnp.array([[0.5, -0.5, 0.0], [-0.0, 2.0, -3.0]])},
    "b": {"kernel": jnp.arange(1.0, 12.0), "bias": jnp.array([1.0])},
}
AFTER = {
    "a": {"kernel": jnp.array([[-0.5, -0.1, -1.0], [0.0, 2.0, 3.0]])},
    "b": {"kernel": jnp.arange(1.0, 12.0).at[10].set(-1.0), "bias": jnp.array([-1.0])},
}
# Signs that change: 0.5, 0.0 and -3.0 in the first kernel, one in the second, of 17.
FLIPS = 4 / 17


def test_flip_rate_counts_changed_signs_of_kernels_only():
    assert metrics.flip_rate(BEFORE, AFTER) == pytest.approx(FLIPS)
    assert metrics.flip_rate(BEFORE, AFTER, where=["bias"]) == 1.0


def test_packed_signs_give_the_same_rate():
    """Sizes 6 and 11 are not whole bytes, so the padding must not count."""
    signs = metrics.pack_signs(BEFORE)
    assert [s.nbytes for s in signs] == [1, 2]
    rate = jax.jit(metrics.flip_rate_since)(signs, AFTER)
    assert rate == pytest.approx(FLIPS)


def test_saturated_share_counts_the_largest_magnitude_of_each_tensor():
    weights = {
        "a": {"kernel": jnp.array([1.5, -1.5, 0.3, 1.4])},
        "b": {"kernel": jnp.array([-1.0, 1.0])},
    }
    assert metrics.saturated_share(weights) == pytest.approx(4 / 6)


def test_zero_share_counts_exact_zeros():
    grads = {"kernel": jnp.array([0.0, -0.0, 1e-30, 2.0])}
    assert metrics.zero_share(grads) == 0.5


def test_by_path_gives_the_metric_of_every_leaf_by_itself():
    found = metrics.by_path(metrics.flip_rate, BEFORE, AFTER)
    assert {path: float(share) for path, share in found.items()} == {
        "a/kernel": 3 / 6,
        "b/kernel": pytest.approx(1 / 11),
    }
    (only,) = metrics.by_path(metrics.zero_share, BEFORE, where="a/").items()
    assert only == ("a/kernel", pytest.approx(2 / 6))


def test_by_path_refuses_trees_of_different_structure():
    with pytest.raises(ValueError, match="one structure"):
        metrics.by_path(metrics.flip_rate, BEFORE, {"a": AFTER["b"], "b": AFTER["a"]})


def test_selecting_nothing_is_an_error():
    with pytest.raises(ValueError, match="'bias'"):
        metrics.flip_rate({"bias": np.ones(2)}, {"bias": np.ones(2)})
