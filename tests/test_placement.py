"""Arrays that lie elsewhere, or twice, and meshes that the program has set."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from adaste_jax import estimators, train

BATCH, WIDTH = 8, 4
TX = optax.sgd(0.1, momentum=0.9)


def forward(params, model_state, inputs, *, train, key):
    del train, key
    hidden = jnp.tanh(inputs @ params["a"]["kernel"])
    return hidden @ params["b"]["kernel"], model_state


def kernels():
    rng = np.random.default_rng(0)
    draw = lambda: {"kernel": rng.normal(size=(WIDTH, WIDTH)).astype(np.float32)}
    return {"a": draw(), "b": draw()}


def host_batch():
    x = np.random.default_rng(1).normal(size=(BATCH, WIDTH)).astype(np.float32)
    return {"image": x, "label": np.arange(BATCH) % WIDTH}


def new_state(params=None, **more):
    params = jax.tree.map(jnp.array, kernels() if params is None else params)
    return train.TrainState.create(params, TX, key=jax.random.key(0), **more)


def make_step(mesh=None, **options):
    options = {"estimator": estimators.ste_clipped, **options}
    return train.make_train_step(forward, TX, mesh=mesh, **options)


def mesh_of(count, kind=AxisType.Auto, names=("data",), shape=None):
    return jax.make_mesh(
        shape or (count,), names, axis_types=(kind,) * len(names),
        devices=jax.devices()[:count],
    )  # fmt: skip


@pytest.fixture(scope="module")
def expected():
    """Latents after two steps, and what evaluation says of them."""
    mesh = mesh_of(2)
    step, state = make_step(mesh), new_state()
    for _ in range(2):
        state, _ = step(state, host_batch())
    evaluate = train.make_eval_step(forward, mesh=mesh)
    return jax.device_get((state.params, evaluate(state.params, {}, host_batch())))


def check(found, expected):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
        jax.device_get(found),
        expected,
    )


PLACES = {
    "another device": lambda mesh: SingleDeviceSharding(jax.devices()[5]),
    "whole on the mesh": lambda mesh: NamedSharding(mesh, P()),
    "the wrong axis": lambda mesh: NamedSharding(mesh, P(None)),
    "more devices": lambda mesh: NamedSharding(mesh_of(8), P("data")),
    "an explicit mesh": lambda mesh: NamedSharding(
        mesh_of(4, AxisType.Explicit), P("data")
    ),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_all_three_calls_take_arrays_from_anywhere(place, expected):
    mesh = mesh_of(2)
    elsewhere = functools.partial(jax.device_put, device=place(mesh))
    batch = {name: elsewhere(leaf) for name, leaf in host_batch().items()}

    def prepare(key, batch, resident):
        return batch["image"] * resident["scale"][None, :WIDTH], batch["label"]

    resident = {"scale": elsewhere(np.ones(8, np.float32))}
    step, state = make_step(mesh, prepare=prepare), new_state()
    for _ in range(2):
        state, _ = step(state, batch, resident)
    evaluate = train.make_eval_step(forward, mesh=mesh, prepare=prepare)
    params = jax.tree.map(jnp.array, jax.device_get(state.params))
    params = jax.device_put(params, jax.devices()[3])
    check((state.params, evaluate(params, {}, batch, resident)), expected)
    statistics = train.make_statistics_step(forward, mesh=mesh, prepare=prepare)
    key = jax.device_put(jax.random.key(0), jax.devices()[4])
    count = jax.device_put(jnp.ones(3), jax.devices()[6])
    found = statistics(params, {"count": count}, batch, key, resident)
    np.testing.assert_array_equal(found["count"], np.ones(3))


@pytest.mark.parametrize("strategy", ["jit", "shard_map", "pmap"])
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("given", [True, False])
def test_steps_work_within_a_mesh_that_is_set(strategy, kind, given, expected):
    mesh = mesh_of(2, kind)
    with jax.set_mesh(mesh):
        own = mesh if given else None
        step = make_step(own, strategy=strategy)
        state = new_state()
        batch = jax.tree.map(jnp.array, host_batch())
        for _ in range(2):
            state, report = step(state, batch)
        found = train.make_eval_step(forward, mesh=own)(state.params, {}, batch)
        # Results belong to the mesh that is set: the program can go on with them.
        assert np.isfinite(report["loss"] + found["loss"])
        assert (2 * state.params["a"]["kernel"]).sharding.mesh == mesh
        state = train.replicate(state)
        step(state, batch)
    assert state.params["a"]["kernel"].sharding.device_set == set(mesh.devices.flat)
    check(found, expected[1])


@pytest.mark.parametrize("strategy", ["jit", "shard_map"])
def test_split_state_may_lie_on_an_explicit_mesh(strategy, expected):
    mesh = mesh_of(4, AxisType.Explicit, ("data", "fsdp"), (2, 2))
    state = new_state()
    shardings = train.state_sharding(state, mesh)
    step = make_step(state_sharding=shardings, strategy=strategy, gather="packed")
    for _ in range(2):
        state, _ = step(state, host_batch())
    kernel = state.params["a"]["kernel"]
    assert kernel.sharding.spec == shardings.params["a"]["kernel"].spec
    found = train.make_eval_step(forward, mesh=mesh)(state.params, {}, host_batch())
    check((state.params, found), expected)


def test_a_set_mesh_without_a_data_axis_is_not_taken(expected):
    with jax.set_mesh(mesh_of(2, names=("model",))):
        step, state = make_step(), new_state()
        for _ in range(2):
            state, _ = step(state, host_batch())
    assert len(state.params["a"]["kernel"].sharding.device_set) == 8
    check(state.params, expected[0])


def trained_apart(state, resident=None, **options):
    step = make_step(mesh_of(2), **options)
    for _ in range(2):
        state, report = step(state, host_batch(), resident)
    assert np.isfinite(report["loss"])
    return state


def test_one_array_in_two_leaves_becomes_two():
    """Tied kernels, and averages that begin as the parameters."""
    kernel = jnp.array(kernels()["a"]["kernel"])
    params = {"a": {"kernel": kernel}, "b": {"kernel": kernel}}
    state = train.TrainState.create(
        params, TX, key=jax.random.key(0), model_state={"average": params}
    )
    state = trained_apart(state)
    a, b = (state.params[name]["kernel"] for name in "ab")
    assert not np.array_equal(a, b)
    start = kernels()["a"]["kernel"]
    np.testing.assert_array_equal(state.model_state["average"]["a"]["kernel"], start)


def test_memory_that_is_shared_is_seen_without_a_shared_object():
    """`device_put` to where an array lies gives another object over the same memory."""
    state = train.replicate(new_state(), mesh_of(2))
    alias = jax.device_put(
        state.params, jax.tree.map(lambda x: x.sharding, state.params)
    )
    state = train.TrainState(
        step=state.step,
        params=state.params,
        model_state={"average": alias},
        opt_state=state.opt_state,
        key=state.key,
    )
    state = trained_apart(state)
    np.testing.assert_array_equal(
        state.model_state["average"]["a"]["kernel"], kernels()["a"]["kernel"]
    )


def test_resident_arrays_may_be_those_of_the_state(expected):
    """A teacher that begins as the student, at the start and again later."""

    def prepare(key, batch, resident):
        return batch["image"] + 0 * jnp.sum(resident["a"]["kernel"]), batch["label"]

    step = make_step(mesh_of(2), prepare=prepare)
    state = new_state()
    teacher = state.params
    state, _ = step(state, host_batch(), teacher)
    state, _ = step(state, host_batch(), teacher)
    check(teacher, kernels())
    check(state.params, expected[0])
    teacher = state.params
    before = jax.device_get(teacher)
    state, _ = step(state, host_batch(), teacher)
    check(teacher, before)


def test_the_key_of_two_runs_may_be_one():
    key = jax.random.key(0)
    params = jax.tree.map(jnp.array, kernels())
    state = train.TrainState.create(params, TX, key=key, model_state={"key": key})
    trained_apart(state)


@pytest.mark.parametrize(
    ("strategy", "dtype"),
    [("jit", jnp.float32), ("jit", jnp.float16), ("shard_map", jnp.bfloat16)],
)
def test_nan_passes_the_packed_gather(strategy, dtype):
    """One bit has no room for it; the weights are NaN on all devices then."""
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), kernels())
    mesh = mesh_of(4, names=("data", "fsdp"), shape=(1, 4))
    seen = []
    for broken in (False, True):
        state = new_state(params)
        shardings = train.state_sharding(state, mesh)
        step = train.make_train_step(
            forward, TX, estimator=lambda t: jnp.where(jnp.isnan(t), t, jnp.sign(t)),
            state_sharding=shardings, strategy=strategy, gather="packed",
        )  # fmt: skip
        if broken:
            kernel = state.params["a"]["kernel"].at[1, 2].set(jnp.nan)
            state.params["a"]["kernel"] = kernel
        _, report = step(state, host_batch())
        seen.append(bool(np.isfinite(report["loss"])))
    assert seen == [True, False]
    sharding = NamedSharding(mesh, P(None, "fsdp"))
    gather = jax.jit(lambda w: train.packed_gather(w, sharding))
    found = gather(jax.device_put(kernel, sharding))
    assert found.dtype == dtype
    assert np.isnan(np.asarray(found, np.float32)).all()
