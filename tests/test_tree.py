"""Choosing leaves, and mapping latents to weights over trees of every kind."""

import collections
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adaste_jax
from adaste_jax import _paths, estimators


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["kernel", "bias"], meta_fields=[]
)
@dataclasses.dataclass
class Layer:
    """A layer of some other library."""

    kernel: Any
    bias: Any


LATENT = jnp.array([-0.5, 0.0, 2.0])
REAL = jnp.array([0.3])


def _dict():
    layer = lambda: {"kernel": LATENT, "bias": REAL}
    return {"body": layer(), "head": layer(), "stem": layer()}


def _leaves(tree):
    """Path to leaf."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _binary(tree):
    """Paths of the leaves that hold signs; the others must be as they were."""
    return {
        path for path, leaf in _leaves(tree).items() if set(leaf.tolist()) <= {-1, 1}
    }


MASK = {
    name: {"kernel": name == "body", "bias": False} for name in ("body", "head", "stem")
}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, {"body/kernel", "head/kernel", "stem/kernel"}),
        (adaste_jax.kernels(), {"body/kernel", "head/kernel", "stem/kernel"}),
        (adaste_jax.kernels(exclude="^stem/"), {"body/kernel", "head/kernel"}),
        (adaste_jax.kernels(exclude=("^stem/", "^head/")), {"body/kernel"}),
        ("body/kernel", {"body/kernel"}),
        ("^(body|head)/k", {"body/kernel", "head/kernel"}),
        (["body/kernel", "^head/kernel$"], {"body/kernel", "head/kernel"}),
        (("body/kernel",), {"body/kernel"}),
        (MASK, {"body/kernel"}),
        (lambda params: MASK, {"body/kernel"}),
        (jax.tree.map(np.bool_, MASK), {"body/kernel"}),
        (
            {"body": {"kernel": True, "bias": False}, "head": False, "stem": False},
            {"body/kernel"},
        ),
    ],
    ids=lambda where: type(where).__name__,
)
def test_the_forms_of_where(where, expected):
    for function in (
        functools.partial(adaste_jax.binarize, estimator=estimators.ste),
        adaste_jax.deploy,
    ):
        params = _dict()
        got = function(params, where=where)
        assert _binary(got) == expected
        for path, leaf in _leaves(got).items():
            if path not in expected:
                assert leaf is _leaves(params)[path]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"kernel": LATENT}, {"kernel"}),
        (
            ({"kernel": LATENT}, [{"bias": REAL, "kernel": LATENT}]),
            {"0/kernel", "1/0/kernel"},
        ),
        (Layer(LATENT, REAL), {"kernel"}),
        (
            {"layers": [Layer(LATENT, REAL), Layer(LATENT, None)]},
            {"layers/0/kernel", "layers/1/kernel"},
        ),
        ({"kernel": {"value": LATENT}, "kernel_scale": REAL}, {"kernel/value"}),
    ],
)
def test_kernels_are_found_in_every_kind_of_tree(params, expected):
    """A path component, not the end of the path and not a part of a name."""
    got = adaste_jax.binarize(params, estimators.ste)
    assert jax.tree.structure(got) == jax.tree.structure(params)
    assert _binary(got) == expected


def test_a_tuple_of_arrays_has_paths_too():
    got = adaste_jax.deploy((LATENT, REAL), where="^0$")
    assert _binary(got) == {"0"}


LISTED = (
    r"The paths there are: 'body/bias', 'body/kernel', 'head/bias', .*'stem/kernel'"
)


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ("^tail/", ValueError, rf"pattern '\^tail/' matches nothing. {LISTED}"),
        (["kernel", "nope"], ValueError, rf"pattern 'nope' matches nothing. {LISTED}"),
        ("(", ValueError, r"pattern '\(' is not a regular expression"),
        (
            adaste_jax.kernels(exclude=("^stem/", "^tail/")),
            ValueError,
            r"`exclude` pattern '\^tail/' matches nothing. "
            r"The paths there are: 'body/kernel', 'head/kernel', 'stem/kernel'\.",
        ),
        (
            adaste_jax.kernels(exclude="bias"),
            ValueError,
            r"`exclude` pattern 'bias' matches nothing",
        ),
        (
            adaste_jax.kernels(exclude="["),
            ValueError,
            r"`exclude` pattern '\[' is not a regular expression",
        ),
        (
            adaste_jax.kernels(exclude="kernel"),
            ValueError,
            f"selects nothing. {LISTED}",
        ),
        (
            lambda params: jax.tree.map(lambda _: False, params),
            ValueError,
            f"selects nothing. {LISTED}",
        ),
        ([], ValueError, LISTED),
        ({"body": True}, ValueError, f"does not have the structure.*{LISTED}"),
        (
            lambda params: {"nobody": True},
            ValueError,
            f"does not have the structure.*{LISTED}",
        ),
        (
            jax.tree.map(lambda chosen: "latent" if chosen else "real", MASK),
            TypeError,
            r"must give booleans; at 'body/bias' it gave 'real'",
        ),
        (
            jax.tree.map(int, MASK),
            TypeError,
            r"must give booleans; at 'body/bias' it gave 0",
        ),
    ],
)
def test_a_choice_that_cannot_be_meant_is_refused(where, error, message):
    """The paths are listed, so that the right choice can be made from the message."""
    for function in (
        functools.partial(adaste_jax.binarize, estimator=estimators.ste),
        adaste_jax.deploy,
    ):
        with pytest.raises(error, match=message):
            function(_dict(), where=where)


def test_a_tree_without_kernels_says_what_to_pass():
    with pytest.raises(
        ValueError, match=r"no leaf is called `kernel`.*pass `where`.*'w'"
    ):
        adaste_jax.binarize({"w": LATENT}, estimators.ste)


def test_an_empty_tree_says_so():
    with pytest.raises(ValueError, match="The tree is empty"):
        adaste_jax.deploy({})


def test_a_long_list_of_paths_is_cut():
    params = {f"w{i:02}": LATENT for i in range(50)}
    with pytest.raises(ValueError, match=r"'w39' and 10 more"):
        adaste_jax.deploy(params, where="nope")


@pytest.mark.parametrize(
    "function",
    [adaste_jax.deploy, lambda p: adaste_jax.binarize(p, estimators.ste)],
)
def test_integers_are_refused_and_their_leaf_is_named(function):
    params = {"body": {"kernel": jnp.array([1, 2])}}
    with pytest.raises(TypeError, match="got int32") as caught:
        function(params)
    assert any(
        "'body'" in note and "'kernel'" in note for note in caught.value.__notes__
    )


def test_deploy_gives_the_sign_of_training():
    """+1 at 0 and at -0.0; and of a number that compiled code flushes to zero."""
    params = {"kernel": jnp.array([-0.0, 0.0, -1e-40, -1e-30, 1e-30, -2.0])}
    deployed = adaste_jax.deploy(params)["kernel"]
    np.testing.assert_array_equal(deployed, [1, 1, 1, -1, 1, -1])
    for estimator in (
        estimators.ste,
        functools.partial(estimators.adaste_paper, mu=0.5),
        functools.partial(estimators.adaste_paper, mu=100.0),
    ):
        trained = adaste_jax.binarize(params, estimator)["kernel"]
        np.testing.assert_array_equal(np.sign(trained), deployed)


def test_deployed_weights_have_no_gradient():
    gradient = jax.grad(lambda p: adaste_jax.deploy(p)["kernel"].sum())
    np.testing.assert_array_equal(gradient({"kernel": LATENT})["kernel"], 0.0)


def test_a_tied_weight_passes_the_rule_once_with_the_sum_of_its_gradients():
    """Binarised at each use instead, the rule sees the parts, which is wrong."""
    latent = jnp.array([2.0, 4.0, -8.0])
    first, second = jnp.array([0.5, 0.5, -0.9]), jnp.array([-0.3, -0.3, 0.1])
    estimator = functools.partial(estimators.adaste_paper, mu=100.0)

    def tied(params):
        weight = adaste_jax.binarize(params, estimator)["kernel"]
        return first @ weight + second @ weight

    def twice(params):
        return first @ estimator(params["kernel"]) + second @ estimator(
            params["kernel"]
        )

    rule = functools.partial(estimators.adaste_gradient, latent, mu=100.0, alpha=0.01)
    right = jax.grad(tied)({"kernel": latent})["kernel"]
    np.testing.assert_allclose(right, rule(first + second), rtol=1e-6)
    wrong = jax.grad(twice)({"kernel": latent})["kernel"]
    np.testing.assert_allclose(wrong, rule(first) + rule(second), rtol=1e-6)
    assert not np.allclose(right, wrong)


def test_binarize_can_be_jitted_and_leaves_dtypes_alone():
    params = {
        "a": {"kernel": LATENT.astype(jnp.bfloat16), "bias": REAL},
        "b": {"kernel": LATENT, "count": jnp.array(3)},
    }
    got = jax.jit(lambda p: adaste_jax.binarize(p, estimators.ste_clipped))(params)
    assert jax.tree.map(jnp.result_type, got) == jax.tree.map(jnp.result_type, params)
    assert got["b"]["count"] == 3


def test_an_estimator_that_is_no_function_is_refused():
    with pytest.raises(TypeError, match=r"must be a function, such as .*got 'ste'"):
        adaste_jax.binarize({"kernel": jnp.ones(2)}, "ste")


def test_two_leaves_of_one_path_are_both_selected():
    """A key may hold a slash; a pattern sees the path, and so both leaves."""
    params = {
        "x/y": {"kernel": jnp.array([0.5]), "bias": jnp.array([0.5])},
        "x": {"y": {"kernel": jnp.array([-0.5])}, "z": {"kernel": jnp.array([0.5])}},
    }
    deployed = adaste_jax.deploy(params, where="x/y/kernel")
    assert deployed["x/y"] == {"kernel": 1, "bias": 0.5}
    assert deployed["x"] == {"y": {"kernel": -1}, "z": {"kernel": 0.5}}
    mask = adaste_jax.kernels(exclude="^x/y/")(params)
    assert mask["x/y"] == {"kernel": False, "bias": False}
    assert mask["x"] == {"y": {"kernel": False}, "z": {"kernel": True}}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"a": {"b": 1}, "c/d": 2, "~": 3}, ["a/b", "c/d", "~"]),
        ({"a/b": 1, "a": {"b": 2}, "c~": 3}, ["a/b", "a~1b", "c~"]),
        # An escaped path that is itself a key: then all are escaped.
        ({"a/b": 1, "a": {"b": 2}, "a~1b": 3}, ["a/b", "a~1b", "a~01b"]),
        # Keys that are written alike: then all are numbered.
        (collections.OrderedDict({1: 5, "1": 6}), ["1[0]", "1[1]"]),
    ],
)
def test_distinct_paths_tell_all_leaves_apart(tree, expected):
    assert _paths.distinct(tree) == expected
