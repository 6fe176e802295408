"""State that lies split over devices, and weights that travel as bits."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from adaste_jax import estimators, train

BATCH, INPUTS, HIDDEN, CLASSES = 32, 16, 24, 8


def forward(params, model_state, inputs, *, train, key):
    del train, key
    hidden = jax.nn.relu(inputs @ params["first"]["kernel"] / INPUTS)
    logits = hidden @ params["last"]["kernel"] / HIDDEN
    return logits + params["last"]["bias"][None], model_state


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    return {
        "first": {"kernel": rng.normal(size=(INPUTS, HIDDEN)).astype(np.float32)},
        "last": {
            "kernel": rng.normal(size=(HIDDEN, CLASSES)).astype(np.float32),
            "bias": np.zeros(CLASSES, np.float32),
        },
    }


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(1)
    return {
        "image": rng.normal(size=(BATCH, INPUTS)).astype(np.float32),
        "label": rng.integers(0, CLASSES, BATCH),
    }


def mesh_of(fsdp):
    return train.data_mesh(jax.devices()[:8], fsdp=fsdp)


TX = optax.sgd(0.3, momentum=0.9)
ADASTE = {
    "estimator": estimators.adaste_paper,
    "hyperparameters": {"mu": lambda step: 0.5 * (step + 1)},
}
BINARY_ADASTE = {
    "estimator": estimators.adaste_paper,
    "hyperparameters": {"mu": lambda step: 100.0},
}
STE = {"estimator": estimators.ste_clipped}


def new_state(params):
    params = jax.tree.map(jnp.array, params)
    return train.TrainState.create(params, TX, key=jax.random.key(0))


def make(params, fsdp=4, rules=(), **options):
    """A step, and a state that lies where the step wants it."""
    state = new_state(params)
    shardings = train.state_sharding(state, mesh_of(fsdp), rules)
    step = train.make_train_step(forward, TX, state_sharding=shardings, **options)
    return step, jax.device_put(state, shardings)


@pytest.fixture(scope="module")
def whole(params, batch):
    """Latents and moments after three steps on one device."""

    @functools.cache
    def take(name):
        options = {"ste": STE, "adaste": ADASTE, "binary": BINARY_ADASTE}[name]
        mesh = train.data_mesh(jax.devices()[:1])
        step = train.make_train_step(forward, TX, mesh=mesh, **options)
        state = new_state(params)
        for _ in range(3):
            state, _ = step(state, batch)
        return jax.device_get((state.params, state.opt_state))

    return take


def check(step, state, batch, expected):
    for _ in range(3):
        state, _ = step(state, batch)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
        jax.device_get((state.params, state.opt_state)),
        expected,
    )
    return state


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("adaste", ADASTE, {"strategy": "jit"}),
        ("adaste", ADASTE, {"strategy": "jit", "microbatches": 2}),
        ("adaste", ADASTE, {"strategy": "shard_map"}),
        ("adaste", ADASTE, {"strategy": "shard_map", "microbatches": 2}),
        ("ste", STE, {"strategy": "jit", "gather": "packed"}),
        ("ste", STE, {"strategy": "shard_map", "gather": "packed", "microbatches": 2}),
        ("binary", BINARY_ADASTE, {"gather": "packed", "deployed_pass": True}),
    ],
)
def test_split_state_takes_the_steps_of_whole_state(
    name, method, options, params, batch, whole
):
    step, state = make(params, **method, **options)
    state = check(step, state, batch, whole(name))
    kernel = state.params["first"]["kernel"]
    assert kernel.sharding.spec == P(None, "fsdp")
    assert kernel.addressable_shards[0].data.shape == (INPUTS, HIDDEN // 4)
    moment = state.opt_state[0].trace["first"]["kernel"]
    assert moment.sharding == kernel.sharding


def collectives(compiled):
    """(kind, dtype, shape) of what a compiled step sends."""
    pattern = r"= (\w+)\[([\d,]*)\]\S* (all-gather|all-reduce|reduce-scatter)\("
    return {
        (kind, dtype, tuple(int(n) for n in shape.split(",") if n))
        for dtype, shape, kind in re.findall(pattern, compiled.as_text())
    }


@pytest.mark.parametrize("strategy", ["jit", "shard_map"])
def test_packed_weights_travel_as_bytes(strategy, params, batch):
    """One byte for eight weights of a kernel, and no float of it."""
    step, state = make(params, strategy=strategy, gather="packed", **STE)
    sent = collectives(step.lower(state, batch).compile())
    gathered = {(dtype, shape) for kind, dtype, shape in sent if kind == "all-gather"}
    assert gathered == {
        ("u8", (INPUTS // 8, HIDDEN)),
        ("u8", (HIDDEN, CLASSES // 8)),
        ("f32", (CLASSES,)),  # the bias, which is real
    }
    if strategy == "shard_map":
        scattered = {shape for kind, _, shape in sent if kind == "reduce-scatter"}
        assert scattered == {
            (INPUTS, HIDDEN // 4),
            (HIDDEN // 4, CLASSES),
            (CLASSES // 4,),
        }


def test_the_packed_gather_passes_the_gradient_of_the_whole(params):
    mesh = mesh_of(4)
    kernel = params["first"]["kernel"]
    split = NamedSharding(mesh, P(None, "fsdp"))
    cotangent = np.random.default_rng(3).normal(size=kernel.shape).astype(np.float32)

    @jax.jit
    def pull(latent):
        weight = lambda t: train.packed_gather(estimators.ste_clipped(t), split)
        value, back = jax.vjp(weight, latent)
        return value, back(cotangent)[0]

    weight, grad = pull(jax.device_put(kernel, split))
    np.testing.assert_array_equal(weight, np.where(kernel >= 0, 1.0, -1.0))
    np.testing.assert_array_equal(grad, cotangent * (np.abs(kernel) <= 1))
    assert weight.sharding.is_fully_replicated
    assert grad.sharding.spec == split.spec


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((3, 3, 5, 8), P(None, None, None, "fsdp")),  # 5 bits in a byte
        ((8, 3), P("fsdp")),
        ((16,), P("fsdp")),  # nothing to pack along
        ((4, 16), P()),
    ],
)
def test_any_shape_can_be_gathered(shape, spec):
    weight = np.where(np.random.default_rng(4).random(shape) < 0.5, -1.0, 1.0)
    sharding = NamedSharding(mesh_of(4), spec)
    gather = jax.jit(lambda w: train.packed_gather(w, sharding))
    found = gather(jax.device_put(weight.astype(np.float32), sharding))
    np.testing.assert_array_equal(found, weight)


@pytest.mark.parametrize(
    "method",
    [ADASTE, {**STE, "deployed_pass": True, "deploy": lambda latent: latent / 2}],
    ids=["in training", "deployed"],
)
def test_soft_weights_are_not_sent_as_signs(method, params, batch):
    step, state = make(params, gather="packed", **method)
    with pytest.raises(ValueError, match=r"not pure signs.*1 / alpha"):
        step(state, batch)


def test_evaluation_takes_split_parameters(params, batch):
    _, state = make(params, **STE)
    evaluate = train.make_eval_step(forward, mesh=mesh_of(4))
    found = evaluate(state.params, {}, batch)
    one = train.make_eval_step(forward, mesh=train.data_mesh(jax.devices()[:1]))
    expected = one(params, {}, batch)
    assert found["loss"] == pytest.approx(float(expected["loss"]), rel=1e-5)


def test_rules_decide_by_path_and_the_first_one_wins(params):
    rules = [("last/kernel", P("fsdp")), ("kernel", P(None, "fsdp")), ("bias", P())]
    found = train.state_sharding(new_state(params), mesh_of(4), rules)
    assert found.params["last"]["kernel"].spec == P("fsdp")
    assert found.params["first"]["kernel"].spec == P(None, "fsdp")
    assert found.params["last"]["bias"].spec == P()
    assert found.opt_state[0].trace["last"]["kernel"].spec == P("fsdp")
    assert found.step.spec == found.key.spec == P()


def test_an_array_that_no_axis_divides_stays_whole():
    params = {"kernel": jnp.ones((3, 6)), "odd": jnp.ones((3, 5))}
    state = train.TrainState.create(params, TX, key=jax.random.key(0))
    found = train.state_sharding(state, mesh_of(2))
    assert found.params["kernel"].spec == P(None, "fsdp")
    assert found.params["odd"].spec == P()
    no_axis = train.state_sharding(state, train.data_mesh(jax.devices()[:8]))
    assert no_axis.params["kernel"].spec == P()


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("kernle", P())], "'kernle' matches nothing"),
        ([("first", P("model"))], "names the axis 'model'; the mesh has"),
        ([("first", P(None, None, "fsdp"))], "cannot be split"),
        ([("last/bias", P(("data", "fsdp"))), ("first", P())], None),
    ],
)
def test_rules_that_do_not_fit_are_refused(rules, message, params):
    state = new_state(params)
    if message is None:
        train.state_sharding(state, mesh_of(4), rules)
        return
    with pytest.raises(ValueError, match=message):
        train.state_sharding(state, mesh_of(4), rules)


def test_shardings_of_another_state_are_refused(params, batch):
    step, _ = make(params, **STE)
    other = train.TrainState.create(params, optax.adam(0.1), key=jax.random.key(0))
    with pytest.raises(ValueError, match="another structure"):
        step(other, batch)


def test_meshes_and_strategies_that_do_not_go_together_are_refused(params):
    shardings = train.state_sharding(new_state(params), mesh_of(4))
    with pytest.raises(ValueError, match="keeps the state whole"):
        train.make_train_step(
            forward, TX, state_sharding=shardings, strategy="pmap", **STE
        )
    with pytest.raises(ValueError, match="leave `mesh` out"):
        train.make_train_step(
            forward, TX, state_sharding=shardings, mesh=mesh_of(2), **STE
        )
    with pytest.raises(ValueError, match="divide the number of devices"):
        train.data_mesh(jax.devices()[:8], fsdp=3)
    other = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(ValueError, match="must have an axis 'data'"):
        train.make_train_step(forward, TX, mesh=other, **STE)
