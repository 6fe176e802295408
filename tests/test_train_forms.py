"""One signature of a step: placements, reports, and the keywords of 0.1."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adaste_jax
from adaste_jax import export, methods, metrics, train
from tests.methods import problem


def forward(params, model_state, inputs, *, train, key):
    return problem.network(params, inputs), model_state


def new_state(method, step=0):
    start = jax.tree.map(jnp.copy, method.init(problem.KEY, problem.drawn()))
    state = train.TrainState.create(start, method.tx, key=jax.random.key(5))
    return train.TrainState(
        step=jnp.int32(step),
        params=state.params,
        model_state=state.model_state,
        opt_state=state.opt_state,
        key=state.key,
    )


def taken(step, method, number=3):
    state, reports = new_state(method), []
    inputs, labels = problem.batches()
    for index in range(number):
        state, report = step(state, inputs[index], labels[index])
        reports.append(report)
    return jax.device_get((state.params, state.opt_state, reports))


def assert_same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


def one_device():
    return train.data_mesh(jax.devices()[:1])


def test_a_step_has_about_nine_parameters():
    names = list(inspect.signature(train.make_train_step).parameters)
    assert names[:2] == ["network", "method"]
    assert len(names) <= 10


@pytest.mark.parametrize(
    ("old", "new", "written"),
    [
        (
            lambda: {"strategy": "shard_map", "mesh": one_device()},
            lambda: {
                "placement": train.Placement(strategy="shard_map", mesh=one_device())
            },
            r"placement=train.Placement\(strategy=..., mesh=...\)",
        ),
        (
            lambda: {"batch_statistics": "local", "shares": False},
            lambda: {
                "placement": train.Placement(batch_statistics="local"),
                "report": "short",
            },
            r"Placement\(batch_statistics=...\), report='short'",
        ),
        (lambda: {"shares": True}, lambda: {}, "report='full'"),
    ],
    ids=["placed", "statistics", "shares"],
)
def test_keywords_of_0_1_take_the_same_steps_and_say_what_to_write(old, new, written):
    method = methods.adaste(problem.STEPS)
    with pytest.warns(DeprecationWarning, match=written) as caught:
        before = train.make_train_step(forward, method, **old())
    assert [each.filename for each in caught] == [__file__]
    after = train.make_train_step(forward, method, **new())
    assert_same(taken(before, method), taken(after, method))


def test_a_placement_and_its_parts_do_not_go_together():
    with pytest.raises(TypeError, match=r"`placement` and \['mesh'\].*into one"):
        train.make_train_step(
            forward,
            methods.ste(9),
            placement=train.Placement(),
            mesh=one_device(),
        )
    with pytest.raises(ValueError, match="knows of no devices"):
        train.Placement(strategy="pure", mesh=one_device())
    with pytest.raises(ValueError, match="`report` must be one of"):
        train.make_train_step(forward, methods.ste(9), report="long")


def test_the_pure_step_takes_the_steps_of_the_compiled_one():
    method = methods.adaste_paper(problem.STEPS)
    placement = train.Placement(mesh=one_device())
    compiled = train.make_train_step(
        forward, method, placement=placement, report="full"
    )
    pure = train.train_step(forward, method)
    assert_same(taken(jax.jit(pure), method), taken(compiled, method))
    states = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), new_state(method), new_state(method)
    )
    inputs, labels = (leaf[0] for leaf in problem.batches())
    vmapped = jax.jit(jax.vmap(pure, in_axes=(0, None, None)))
    states, _ = vmapped(states, inputs, labels)
    assert states.step.tolist() == [1, 1]


def packed_step(method, step):
    state = new_state(method, step)
    shardings = train.state_sharding(state, train.data_mesh(jax.devices()[:2], fsdp=2))
    placement = train.Placement(sharding=shardings, gather="packed")
    made = train.make_train_step(forward, method, placement=placement)
    inputs, labels = (leaf[0] for leaf in problem.batches())
    return made(jax.device_put(state, shardings), inputs, labels)


def test_weights_travel_as_bits_from_the_step_that_the_method_declares():
    method = methods.adaste(problem.STEPS)
    with pytest.raises(ValueError, match=rf"shipped from step {method.binary_from} on"):
        packed_step(method, method.binary_from - 1)
    packed_step(method, method.binary_from)
    packed_step(methods.ste(9), 0)
    with pytest.raises(ValueError, match="not pure signs"):
        packed_step(methods.ternary_absmean(9), 0)
    with pytest.raises(ValueError, match="this method has none"):
        packed_step(methods.full_precision(9), 0)


def test_what_a_method_declares_of_its_rule_is_believed():
    def take(**declared):
        method = methods.ste(9)._replace(**declared)
        method = method._replace(
            tx=optax.MultiSteps(method.tx, 2).gradient_transformation()
        )
        step = train.make_train_step(forward, method)
        inputs, labels = (leaf[0] for leaf in problem.batches())
        step(new_state(method), inputs, labels)

    take()
    take(additive=None)  # tried, and found to be
    with pytest.raises(ValueError, match="not additive"):
        take(additive=False)


# --- metrics, summary and files take a method


TERNARY = {"kernel": jnp.array([[0.9, -1.0], [0.1, 1.2]]), "bias": jnp.ones(2)}


def test_flips_are_those_of_what_the_method_ships():
    """A latent near zero is shipped as 0 by a ternary method, whatever its sign."""
    after = {**TERNARY, "kernel": TERNARY["kernel"].at[1, 0].set(-0.1)}
    method = methods.ternary_absmean(9)
    assert metrics.flip_rate(TERNARY, after) == 0.25
    assert metrics.flip_rate(TERNARY, after, method=method) == 0
    signs = metrics.pack_signs(TERNARY, method=method)
    assert metrics.flip_rate_since(signs, after, method=method) == 0
    assert metrics.flip_rate_since(metrics.pack_signs(TERNARY), after) == 0.25


def test_the_latents_are_those_of_the_method():
    method = methods.ste(9, where="bias")
    zeros = jax.tree.map(jnp.zeros_like, TERNARY) | {"kernel": TERNARY["kernel"]}
    assert metrics.zero_share(zeros, method=method) == 1
    assert metrics.zero_share(zeros) == 0
    assert metrics.saturated_share(TERNARY, method=method) == 1
    assert list(metrics.by_path(metrics.zero_share, zeros, method=method)) == ["bias"]
    real = methods.full_precision(9)
    assert metrics.zero_share(zeros, method=real) == 0
    table = adaste_jax.summary(
        lambda params, x: x @ params["kernel"], TERNARY, jnp.ones((3, 2)), method=method
    )
    assert [row.one_bit for row in table.rows] == [True, False]
    whole = adaste_jax.summary(
        lambda params, x: x @ params["kernel"], TERNARY, jnp.ones((3, 2)), method=real
    )
    assert whole.one_bit_parameters == 0
    for take in (
        lambda **both: metrics.flip_rate(TERNARY, TERNARY, **both),
        lambda **both: adaste_jax.summary(len, TERNARY, jnp.ones((3, 2)), **both),
    ):
        with pytest.raises(TypeError, match="method's own"):
            take(method=method, where="kernel")


@pytest.mark.parametrize(
    "name", ["ternary_absmean", "ternary_twn", "ternary_fixed", "scaled_sign"]
)
def test_weights_are_not_taken_for_latents(name, tmp_path):
    """As signs the zeros and the scales of weights would be lost without a word."""
    method = methods.METHODS[name](9)
    latents = {"kernel": jax.random.normal(problem.KEY, (16, 6))}
    weights = method.deploy(latents)
    with pytest.raises(ValueError, match=r"weights, and as plain signs.*`method=`"):
        export.save(tmp_path / "weights", weights)
    export.save(tmp_path / "weights", weights, deploy=lambda leaf: leaf)
    export.save(tmp_path / "latents", latents, method=method)
    for file in ("weights", "latents"):
        found = export.load(tmp_path / file).params["kernel"]
        np.testing.assert_allclose(found, weights["kernel"], rtol=1e-6)
    signs = adaste_jax.deploy(latents)
    export.save(tmp_path / "signs", signs)
    loaded = export.load(tmp_path / "signs").params
    np.testing.assert_array_equal(loaded["kernel"], signs["kernel"])
