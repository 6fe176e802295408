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


def test_nonfinite_names_the_leaves_and_counts_their_entries():
    """Every floating dtype, on the host too; what holds no real numbers is passed."""
    wrong = np.array([[1.0, np.nan, np.inf], [-np.inf, 0.0, 2.0]])
    tree = {
        "float32": jnp.asarray(wrong, jnp.float32),
        "bfloat16": jnp.asarray(wrong, jnp.bfloat16),
        "float16": jnp.asarray(wrong, jnp.float16),
        "complex": jnp.asarray(wrong + 0j),
        "host": [wrong, np.float32(np.nan), float("inf")],
        "large": [np.array([1e300]), jnp.full((2, 3), jnp.finfo(jnp.float32).max)],
        "scalar": jnp.asarray(-jnp.inf),
        "none": [None, jnp.zeros((0, 4)), jnp.arange(3), np.True_, 7, "nan"],
        "key": jax.random.key(0),
        "shape": jax.ShapeDtypeStruct((2,), jnp.float32),
    }
    assert metrics.nonfinite(tree) == {
        "bfloat16": 3,
        "complex": 3,
        "float16": 3,
        "float32": 3,
        "host/0": 3,
        "host/1": 1,
        "host/2": 1,
        "scalar": 1,
    }


def test_nonfinite_finds_one_entry_wherever_it_is():
    for place in (0, 6, 7, 8, 12):
        array = jnp.ones(13).at[place].set(jnp.nan)
        assert metrics.nonfinite([array]) == {"0": 1}
    assert metrics.nonfinite({}) == {}


def test_nonfinite_keeps_two_leaves_of_one_path_apart():
    nan = jnp.array(jnp.nan)
    tree = {"a": {"b": nan, "c": nan}, "a/b": nan}
    assert metrics.nonfinite(tree) == {"a/b": 1, "a/c": 1, "a~1b": 1}


def _shares(before, after):
    """Every share, of trees that have what it looks for in `after`."""
    signs = metrics.pack_signs(before)
    return {
        "flip_rate": metrics.flip_rate(before, after),
        "flip_rate_since": metrics.flip_rate_since(signs, after),
        "saturated_share": metrics.saturated_share(after),
        "zero_share": metrics.zero_share(after),
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_nan_makes_every_share_nan(dtype):
    """In a large leaf too, where XLA's largest entry may miss it."""
    for shape, place in (((13,), 8), ((64, 48), (63, 1)), ((), ())):
        before = {
            "a": {"kernel": jnp.ones(shape, dtype)},
            "b": {"kernel": jnp.ones(3, dtype)},
        }
        lost = before["a"]["kernel"].at[place].set(jnp.nan)
        after = {**before, "a": {"kernel": lost}}
        for name, share in jax.jit(_shares)(before, after).items():
            assert np.isnan(share), name
        assert np.isnan(metrics.flip_rate(after, before))
        by_leaf = metrics.by_path(metrics.zero_share, after)
        assert np.isnan(by_leaf["a/kernel"])
        assert by_leaf["b/kernel"] == 0


def test_infinite_latents_have_a_sign():
    tree = {"kernel": jnp.array([jnp.inf, -jnp.inf, 1.0, 0.0])}
    negated = {"kernel": -tree["kernel"]}
    shares = _shares(tree, negated)
    assert {name: float(share) for name, share in shares.items()} == {
        "flip_rate": 0.75,
        "flip_rate_since": 0.75,
        "saturated_share": 0.5,
        "zero_share": 0.25,
    }


def test_leaves_without_entries_count_for_nothing():
    empty = {"kernel": jnp.zeros((0, 4))}
    for share in _shares(empty, empty).values():
        assert share == 0
    assert metrics.by_path(metrics.saturated_share, empty) == {"kernel": 0}
    both = {"a": empty, "b": {"kernel": jnp.array([0.0, 1.0])}}
    negated = jax.tree.map(lambda leaf: -leaf - 1, both)
    assert metrics.flip_rate(both, negated) == 1
    assert metrics.zero_share(both) == 0.5
    assert [bits.nbytes for bits in metrics.pack_signs(both)] == [0, 1]


def test_by_path_keeps_two_leaves_of_one_path_apart():
    before = {"x/y": {"kernel": jnp.ones(2)}, "x": {"y": {"kernel": jnp.ones(2)}}}
    after = {**before, "x/y": {"kernel": -jnp.ones(2)}}
    found = metrics.by_path(metrics.flip_rate, before, after)
    assert found == {"x/y/kernel": 0, "x~1y/kernel": 1}
