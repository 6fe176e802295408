"""Names and forms of 0.1: each warns with what to write instead, and gives its bits."""

import functools
import inspect
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaste_jax import estimators, optim
from adaste_jax.optim import _old
from experiments import _moved

ROOT = pathlib.Path(__file__).parent.parent
LATENT = np.linspace(-2.5, 2.5, 24, dtype=np.float32).reshape(4, 6) ** 3
GRAD = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
STEPS = np.arange(60)
paper, rule = estimators.adaste_paper, estimators.adaste_gradient


def _pulled(estimator, **hyper):
    weight, pull = jax.vjp(functools.partial(estimator, **hyper), jnp.asarray(LATENT))
    return weight, *pull(jnp.asarray(GRAD))


def _updated(tx):
    latent = jnp.asarray(LATENT)
    state, trace = tx.init(latent), []
    for _ in range(4):
        updates, state = tx.update(jnp.asarray(GRAD), state, latent)
        latent = optax.apply_updates(latent, updates)
        trace.append(latent)
    return trace


def _valued(schedule):
    return jax.jit(jax.vmap(schedule))(STEPS)


def _same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("mu", [0.01, 0.7, 100.0])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"rule": "adaptive"}, {}),
        ({"rule": "supremum", "cap": 2.0}, {"rule": "supremum", "cap": 2.0}),
        ({"rule": "released"}, {"rule": "released"}),
        ({"rule": "identity"}, {"rule": "identity"}),
        ({"cap": 0.7}, {"cap": 0.7}),
        ({"threshold": 0.1}, {"threshold": 0.1}),
        ({"axis_name": None}, {}),
        ({"unit": None, "rescale": False}, {}),
    ],
)
def test_adaste_with_a_keyword_of_the_rule_is_the_paper(mu, old, new):
    with pytest.warns(DeprecationWarning, match=r"Write estimators\.adaste_paper\("):
        found = _pulled(estimators.adaste, mu=mu, **old)
    _same(found, _pulled(paper, mu=mu, **new))


@pytest.mark.parametrize("mu", [0.01, 0.7, 100.0])
def test_adaste_with_the_recommended_options_is_adaste(mu):
    options = {"rule": "identity", "unit": "rms", "rescale": True}
    with pytest.warns(DeprecationWarning, match=r"Write estimators\.adaste\(latent, m"):
        found = _pulled(estimators.adaste, mu=mu, alpha=0.02, **options)
    _same(found, _pulled(estimators.adaste, mu=mu, alpha=0.02))


def test_a_mixture_of_both_works_and_says_that_it_has_no_name():
    with pytest.warns(DeprecationWarning, match="this mixture of the two has no new"):
        weight, grad = _pulled(estimators.adaste, mu=0.7, rule="adaptive", unit="rms")
    rms = np.sqrt(np.mean(np.square(LATENT)))
    np.testing.assert_allclose(weight, paper(LATENT / rms, mu=0.7), rtol=1e-5)
    expected = rule(
        jnp.asarray(LATENT), jnp.asarray(GRAD), mu=0.7, alpha=0.01, unit="rms"
    )
    np.testing.assert_array_equal(grad, expected)


def test_new_forms_do_not_warn(recwarn):
    _pulled(estimators.adaste, mu=1.0)
    _pulled(estimators.adaste_paper, mu=1.0, rule="supremum")
    _pulled(estimators.ste)
    assert not recwarn.list


def test_ste_identity_is_ste():
    with pytest.warns(DeprecationWarning, match=r"Write estimators\.ste\."):
        assert estimators.ste_identity is estimators.ste
    with pytest.raises(AttributeError, match="no attribute 'ste_identiy'"):
        _ = estimators.ste_identiy


def _lead_cosine(epoch):
    return 1e-16 + (3e-4 - 1e-16) * (1 + jnp.cos(jnp.pi * (epoch + 1) / 12)) / 2


# For each old name: a use of it, what the message says, and the same in the new form.
SLOPED = optax.chain(
    optax.scale_by_adam(),
    optim.scale_by_adaste(0.7, rule="adaptive", cap=1.2, unit="rms"),
    optax.scale_by_learning_rate(0.01),
)
OLD = {
    "MIRROR_DESCENT_RECIPES": (
        lambda old: tuple(old["md_softmax", "cifar10", "vgg16"]),
        "md_tanh_s.md",
        (0.01, 0.2, 1.05, 500),
    ),
    "MirrorDescentRecipe": (
        lambda old: tuple(old(0.001, 0.5, 1.01, 100)),
        "md_tanh_s.md",
        (0.001, 0.5, 1.01, 100),
    ),
    "ScaleByAdasteState": (lambda old: old, r"optim\.StepState", optim.StepState),
    "adaste": (
        lambda old: [
            _updated(old(0.01, mu=0.7)),
            _updated(old(0.01, mu=0.7, rule="adaptive")),
        ],
        r"optax\.adam\(learning_rate\)",
        lambda: [_updated(optax.adam(0.01)), _updated(SLOPED)],
    ),
    "anneal": (
        lambda old: _valued(old(0.01, 1.5, 100.0, 4)),
        r"optim\.per_epoch\(optax\.exponential_decay\(init_value \* rate, 1, rate",
        lambda: _valued(
            optim.per_epoch(optax.exponential_decay(0.015, 1, 1.5, end_value=100.0), 4)
        ),
    ),
    "cosine_per_epoch": (
        lambda old: _valued(old(3e-4, 12, 5)),
        r"optax\.cosine_decay_schedule\(init_value, num_epochs\)\(epoch \+ lead\)",
        lambda: _valued(optim.per_epoch(_lead_cosine, 5)),
    ),
    "ede_sharpness": (
        lambda old: _valued(old(12, 5)),
        r"optax\.exponential_decay\(init_value, num_epochs, end_value / init_value",
        lambda: _valued(
            optim.per_epoch(optax.exponential_decay(0.1, 12, 100.0, end_value=10.0), 5)
        ),
    ),
    "grow": (
        lambda old: _valued(old(1.5, 4)),
        r"optax\.exponential_decay\(rate, 1, rate, end_value=1e35\), interval",
        lambda: _valued(
            optim.per_epoch(optax.exponential_decay(1.5, 1, 1.5, end_value=1e35), 4)
        ),
    ),
    "proxquant_strength": (
        lambda old: _valued(old(0.01, 5)),
        r"optim\.per_epoch\(lambda epoch: learning_rate \* rate \* epoch",
        lambda: _valued(optim.per_epoch(lambda epoch: 0.01 * 1e-4 * epoch, 5)),
    ),
    "reste_exponent": (
        lambda old: _valued(old(12, 5)),
        r"optim\.per_epoch\(lambda epoch: 1 \+ \(end_value - 1\)",
        lambda: _valued(
            optim.per_epoch(
                lambda epoch: 1 + 2.0 * (1 - jnp.cos(jnp.pi * (epoch / 12) / 2)), 5
            )
        ),
    ),
}


def test_every_old_name_is_tried():
    assert OLD.keys() == _old.NAMES.keys()
    assert not OLD.keys() & set(optim.__all__)


@pytest.mark.parametrize("name", OLD)
def test_an_old_name_warns_and_is_the_new_form(name):
    use, message, new = OLD[name]
    with pytest.warns(DeprecationWarning, match=rf"optim\.{name} is removed in 0\.3.*"):
        old = getattr(optim, name)
    with pytest.warns(DeprecationWarning, match=message):
        getattr(optim, name)
    _same(use(old), new() if inspect.isfunction(new) else new)


def test_the_cosine_that_the_message_names_is_the_old_one_up_to_rounding():
    with pytest.warns(DeprecationWarning, match=r"is removed in 0\.3"):
        old = optim.cosine_per_epoch(3e-4, 12, 5)
    cosine = optax.cosine_decay_schedule(3e-4, 12)
    new = optim.per_epoch(lambda epoch: cosine(epoch + 1), 5)
    np.testing.assert_allclose(_valued(old), _valued(new), rtol=1e-5, atol=2e-16)


def test_old_schedules_still_refuse_what_they_cannot_follow():
    with pytest.warns(DeprecationWarning, match=r"is removed in 0\.3"):
        anneal, reste = optim.anneal, optim.reste_exponent
    with pytest.raises(ValueError, match="anneal needs rate >= 1"):
        anneal(0.01, 0.9, 100.0, 1)
    with pytest.raises(ValueError, match="steps_per_epoch >= 1, got 0"):
        anneal(0.01, 1.1, 100.0, 0)
    with pytest.raises(ValueError, match="reste_exponent needs num_epochs >= 1"):
        reste(0, 1)
    with pytest.raises(ValueError, match="`form` must be 'cosine' or 'linear'"):
        reste(3, 1, form="sine")


def test_the_published_recipes_of_mirror_descent_are_in_the_documentation():
    page = (ROOT / "docs/methods/md_tanh_s.md").read_text("utf-8")
    table = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in page.splitlines()
        if line.startswith("| ")
    ]
    methods = table[0][1:]
    found = {
        (method, *row[0].split(", ")): tuple(map(float, cell.split(", ")))
        for row in table[1:]
        for method, cell in zip(methods, row[1:], strict=True)
    }
    with pytest.warns(DeprecationWarning, match=r"is removed in 0\.3"):
        assert found == optim.MIRROR_DESCENT_RECIPES


def test_the_page_for_users_of_0_1_names_every_old_name():
    page = (ROOT / "docs/coming_from.md").read_text("utf-8")
    section = page.partition("## From 0.1")[2].partition("\n## ")[0]
    names = [f"optim.{name}" for name in _old.NAMES]
    names += [f"experiments.{name}" for name in _moved.MOVED]
    names += ["estimators.ste_identity", "config.method=adaste_literal"]
    names += ["train.make_train_step", "train.make_eval_step"]
    missing = [name for name in names if f"`{name}" not in section]
    assert not missing
