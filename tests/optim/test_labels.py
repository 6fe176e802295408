"""Labels that route leaves to optimisers."""

import jax
import jax.numpy as jnp
import optax
import pytest

import adaste_jax
from adaste_jax import optim

PARAMS = {
    "body": {"kernel": jnp.ones(2), "bias": jnp.ones(2)},
    "head": {"kernel": jnp.ones(2)},
}


@pytest.mark.parametrize(
    "where",
    [
        adaste_jax.kernels(exclude="^head/"),
        "^body/kernel$",
        ["body/k"],
        {"body": {"kernel": True, "bias": False}, "head": {"kernel": False}},
        lambda params: {"body": {"kernel": True, "bias": False}, "head": False},
    ],
    ids=["kernels", "regex", "sequence", "mask", "callable"],
)
def test_every_form_of_where_makes_the_same_labels(where):
    assert optim.labels(PARAMS, {"latent": where}) == {
        "body": {"kernel": "latent", "bias": "real"},
        "head": {"kernel": "real"},
    }


def test_several_rules_and_a_default_of_ones_own():
    got = optim.labels(
        PARAMS, {"binary": "^body/kernel", "output": "^head/"}, default="frozen"
    )
    assert got == {
        "body": {"kernel": "binary", "bias": "frozen"},
        "head": {"kernel": "output"},
    }


def test_trees_of_other_kinds():
    params = ([jnp.ones(1)], {"kernel": jnp.ones(1)})
    got = optim.labels(params, {"latent": adaste_jax.kernels()})
    assert got == (["real"], {"kernel": "latent"})


def test_partition_accepts_them():
    tx = optax.partition(
        {"latent": optax.scale(2.0), "real": optax.scale(3.0)},
        optim.labels(PARAMS, {"latent": adaste_jax.kernels()}),
    )
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert jax.tree.map(lambda u: u[0].item(), updates) == {
        "body": {"kernel": 2.0, "bias": 3.0},
        "head": {"kernel": 2.0},
    }


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            {"latent": "kernel", "output": "^head/"},
            r"the leaf 'head/kernel' is claimed by 'latent' and by 'output'",
        ),
        (
            {"latent": "^tail/"},
            r"'\^tail/' matches nothing.*'body/bias', 'body/kernel'",
        ),
        (
            {"latent": lambda params: jax.tree.map(lambda _: False, params)},
            "'body/kernel'",
        ),
    ],
)
def test_a_rule_that_claims_nothing_or_too_much_is_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        optim.labels(PARAMS, rules)


def test_the_rule_at_fault_is_named():
    with pytest.raises(ValueError, match="matches nothing") as caught:
        optim.labels(PARAMS, {"latent": "kernel", "other": "^tail/"})
    assert caught.value.__notes__ == ["in the rule for the label 'other'"]
