"""A network, a method and a data set: the first program, and what it must not allow."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import adaste_jax
from adaste_jax import datasets, estimators, export, methods, train
from tests.methods import problem

STEPS = 300


@pytest.fixture(autouse=True)
def _ranks():
    with jax.numpy_rank_promotion("allow"):  # as a user has it
        yield


def digits():
    """As the first program reads them."""
    return [(x.reshape(-1, 64) / 16, y) for x, y in datasets.digits().values()]


def linen_network():
    return nn.Sequential(
        [nn.Dense(256), nn.LayerNorm(), nn.relu, nn.Dense(10), nn.LayerNorm()]
    )


def nnx_network():
    rngs = nnx.Rngs(0)
    return nnx.Sequential(
        nnx.Linear(64, 256, rngs=rngs),
        nnx.LayerNorm(256, rngs=rngs),
        nnx.relu,
        nnx.Linear(256, 10, rngs=rngs),
        nnx.LayerNorm(10, rngs=rngs),
    )


def trained(network, method, steps=STEPS):
    (images, labels), _ = digits()
    state = train.init(network, method, images)
    step = train.make_train_step(network, method)
    for batch in datasets.batches(images, labels, batch_size=64, steps=steps):
        state, report = step(state, *batch)
    return state, report


def accuracy(forward, weights, model_state, images, labels):
    logits, _ = forward(weights, model_state, images, train=False, key=None)
    return float(np.mean(np.argmax(logits, -1) == labels))


@pytest.mark.parametrize("make", [linen_network, nnx_network])
def test_the_first_program(make, tmp_path):
    network, test = make(), digits()[1]
    method = methods.adaste(steps=STEPS)
    state, report = trained(network, method)
    found = train.evaluate(network, method, state, *test)
    assert found["accuracy"] > 0.95
    assert float(report["mu"]) == pytest.approx(100)
    path = tmp_path / "digits.safetensors"
    export.save(path, state.params, method=method)
    loaded = export.load(path, params_like=state.params).params
    forward = train._network.forward_of(network)
    assert accuracy(forward, loaded, state.model_state, *test) == pytest.approx(
        found["accuracy"]
    )


class NnxResidual(nnx.Module):
    """Two 3 x 3 convolutions with batch norm around a shortcut."""

    def __init__(self, features, *, rngs):
        conv = lambda: nnx.Conv(features, features, (3, 3), use_bias=False, rngs=rngs)
        norm = lambda: nnx.BatchNorm(features, momentum=0.9, rngs=rngs)
        self.first, self.first_norm = conv(), norm()
        self.second, self.second_norm = conv(), norm()

    def __call__(self, inputs):
        hidden = nnx.relu(self.first_norm(self.first(inputs)))
        return nnx.relu(inputs + self.second_norm(self.second(hidden)))


def nnx_resnet():
    rngs = nnx.Rngs(0)
    return nnx.Sequential(
        lambda images: images.reshape(-1, 8, 8, 1),
        nnx.Conv(1, 16, (3, 3), strides=2, rngs=rngs),
        NnxResidual(16, rngs=rngs),
        NnxResidual(16, rngs=rngs),
        lambda hidden: hidden.mean(axis=(1, 2)),
        nnx.Linear(16, 10, rngs=rngs),
        nnx.BatchNorm(10, momentum=0.9, rngs=rngs),
    )


@pytest.mark.parametrize("steps", [100, 300])  # at 100 of 300 weights are still soft
def test_an_nnx_network_with_batch_norm_is_trained_shipped_and_read_back(
    steps, tmp_path
):
    network, method = nnx_resnet(), methods.adaste(steps=300)
    (images, _), test = digits()
    state, _ = trained(network, method, steps=steps)
    found = train.evaluate(network, method, state, *test, training_inputs=images)
    assert found["accuracy"] > 0.75
    model_state = state.model_state
    if steps < method.statistics_from:
        model_state = train.reestimate_statistics(network, method, state, images)
    path = tmp_path / "resnet.safetensors"
    export.save(path, state.params, method=method, model_state=model_state)
    loaded = export.load(path, params_like=state.params, model_state_like=model_state)
    built = nnx.merge(
        nnx.graphdef(network), loaded.params, loaded.model_state, copy=True
    )
    built.eval()
    forward = train._network.forward_of(network)
    weights = method.deploy(state.params)
    logits, _ = forward(weights, model_state, test[0], train=False, key=None)
    np.testing.assert_array_equal(built(jnp.asarray(test[0])), logits)
    assert np.mean(np.argmax(logits, -1) == test[1]) == pytest.approx(found["accuracy"])


def test_a_linen_network_whose_parameters_depend_on_the_inputs():
    """Others are drawn without computing outputs."""

    class Centred(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            shift = self.param("shift", lambda key: inputs.mean(0))
            return nn.Dense(10)(inputs - shift)

    images = digits()[0][0]
    state = train.init(Centred(), methods.ste(steps=STEPS), images)
    np.testing.assert_allclose(state.params["shift"], images[0], rtol=1e-6)


def test_what_is_shipped_is_that_of_the_method(tmp_path):
    network, test = linen_network(), digits()[1]
    method = methods.ternary_absmean(steps=STEPS)
    state, _ = trained(network, method)
    export.save(tmp_path / "right", state.params, method=method)
    loaded = export.load(tmp_path / "right").params
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        loaded,
        method.deploy(state.params),
    )
    forward = train._network.forward_of(network)
    right = accuracy(forward, loaded, {}, *test)
    signs = accuracy(forward, adaste_jax.deploy(state.params), {}, *test)
    assert right > signs + 0.03
    found = train.evaluate(network, method, state, *test)
    assert found["accuracy"] == pytest.approx(right)
    program = export.packed_forward(
        lambda params, x: network.apply({"params": params}, x),
        state.params,
        method=method,
    )
    logits = network.apply({"params": loaded}, test[0])
    np.testing.assert_allclose(program(jnp.asarray(test[0])), logits, rtol=1e-4)


def test_a_file_takes_a_method_or_its_parts_and_needs_something_binary(tmp_path):
    params = {"kernel": jnp.ones((3, 4))}
    for parts in ({"where": "kernel"}, {"deploy": jnp.sign}):
        with pytest.raises(TypeError, match="the method's own"):
            export.save(tmp_path / "a", params, method=methods.ste(9), **parts)
    with pytest.raises(ValueError, match="full precision: no leaf is binary"):
        export.save(tmp_path / "a", params, method=methods.full_precision(9))


# --- one clock


def _scalar(params, model_state, inputs, *, train, key):
    """The loss is its gradient times the weight, and that times the label."""
    return params["kernel"] * inputs, model_state


def _drift(outputs, labels):
    return -1e-3 * outputs[:, 0] * labels


def _rule_method():
    """A schedule in the loss, and a rule whose slope away from zero is 1 / (1 + mu)."""
    return methods.adaste_released(
        80,
        steps_per_epoch=1,
        num_examples=1,
        multiplier=1.0,
        momentum=0.0,
        decay=0.0,
        rule="adaptive",
        mu_rate=1.09,
        learning_rate=lambda step: jnp.ones(()),
    )._replace(deployed_pass=False)


KINDS = {
    "plain": lambda tx: tx,
    "accumulated": lambda tx: optax.MultiSteps(tx, 4),
    "transformation": lambda tx: optax.MultiSteps(tx, 4).gradient_transformation(),
    "skipped": lambda tx: optax.apply_if_finite(tx, 1000),
    "resumed": lambda tx: optax.MultiSteps(tx, 4),
    "microbatches": lambda tx: tx,
}


@pytest.mark.parametrize("kind", KINDS)
def test_mu_in_the_report_is_mu_in_the_rule(kind):
    def new():
        method = _rule_method()
        method = method._replace(tx=KINDS[kind](method.tx))
        step = train.make_train_step(
            _scalar,
            method,
            loss=_drift,
            microbatches=4 if kind == "microbatches" else 1,
            placement=train.Placement(mesh=train.data_mesh(jax.devices()[:1])),
            report="short",
        )
        return method, step

    method, step = new()
    params = {"kernel": jnp.array([0.3])}
    state = train.TrainState.create(params, method.tx, key=jax.random.key(5))
    seen = []
    for number in range(80):
        if kind == "resumed" and number == 42:  # within four that are accumulated
            key = jax.random.key_data(state.key)
            state = jax.tree.map(np.array, dataclasses.replace(state, key=key))
            state = dataclasses.replace(state, key=jax.random.wrap_key_data(state.key))
            _, step = new()
        label = np.nan if kind == "skipped" and number % 2 == 0 else 1.0
        before = float(state.params["kernel"][0])
        state, report = step(state, np.ones((8, 1)), np.full(8, label, np.float32))
        change = float(state.params["kernel"][0]) - before
        if change:
            seen.append(number)
            assert 1e-3 / change - 1 == pytest.approx(float(report["mu"]), rel=0.02)
    every = range(80)
    expected = {"plain": every, "microbatches": every, "skipped": range(1, 80, 2)}
    assert seen == list(expected.get(kind, range(3, 80, 4)))


# --- the form of 0.1


def _forward(params, model_state, inputs, *, train, key):
    return problem.network(params, inputs), model_state


def _old(name, method):
    """The same method in parts."""
    estimator = {
        "adaste": functools.partial(estimators.adaste, alpha=0.01),
        "adaste_paper": functools.partial(estimators.adaste_paper, alpha=0.01, cap=0.5),
        "ste": estimators.ste,
        "bayesbinn": functools.partial(estimators.bayesbinn_sample, temperature=1e-10),
    }[name]
    schedules = {}
    if "adaste" in name:
        schedules["mu"] = lambda step: method.values(step)["mu"]
    return {
        "estimator": estimator,
        "hyperparameters": schedules,
        "random_weights": name == "bayesbinn",
    }


@pytest.mark.parametrize("name", ["adaste", "ste", "adaste_paper", "bayesbinn"])
@pytest.mark.parametrize("shares", [True, False])
def test_the_old_form_takes_the_same_steps(name, shares):
    method = methods.METHODS[name](problem.STEPS)
    options = _old(name, method)
    start = method.init(problem.KEY, problem.drawn())
    inputs, labels = problem.batches()
    report = "full" if shares else "short"
    new = train.make_train_step(_forward, method, report=report)
    with pytest.warns(DeprecationWarning, match=r"from_estimator\("):
        old = train.make_train_step(_forward, method.tx, shares=shares, **options)
    states = [
        train.TrainState.create(
            jax.tree.map(jnp.copy, start), method.tx, key=jax.random.key(5)
        )
        for _ in range(2)
    ]
    for number in range(20):
        one, report = new(states[0], inputs[number], labels[number])
        batch = {"image": inputs[number], "label": labels[number]}
        two, reported = old(states[1], batch)
        states = [one, two]
        assert report == reported
    jax.tree.map(
        np.testing.assert_array_equal,
        (states[0].params, states[0].opt_state),
        (states[1].params, states[1].opt_state),
    )


def test_a_step_takes_a_method_or_its_parts():
    with pytest.raises(TypeError, match="method's own"):
        train.make_train_step(_forward, methods.ste(9), estimator=estimators.ste)
    with pytest.raises(TypeError, match="method's own"):
        train.make_eval_step(_forward, methods.ste(9), where="kernel")
    with pytest.raises(TypeError, match=r"a network and a method"):
        train.make_train_step(_forward, optax.sgd(0.1))
    with pytest.raises(TypeError, match=r"pass `params=`"):
        train.init(_forward, methods.ste(9), jnp.ones((2, 8)))


# --- networks with a state


class Linen(nn.Module):
    """Batch norm in Linen."""

    @nn.compact
    def __call__(self, inputs, *, train):
        hidden = nn.BatchNorm(use_running_average=not train)(nn.Dense(32)(inputs))
        return nn.Dense(10)(nn.relu(hidden))


class Nnx(nnx.Module):
    """Batch norm and dropout in NNX."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.first = nnx.Linear(64, 32, rngs=rngs)
        self.norm = nnx.BatchNorm(32, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.last = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, inputs):
        return self.last(self.drop(nnx.relu(self.norm(self.first(inputs)))))


@pytest.mark.parametrize("make", [Linen, Nnx])
def test_statistics_of_soft_weights_are_not_evaluated_with(make):
    """What comes out are the averages over the batches, whatever the momentum 0.99."""
    network, method = make(), methods.adaste(steps=10_000)
    (images, _), test = digits()
    state, _ = trained(network, method, steps=3)
    with pytest.raises(ValueError, match=r"Pass `training_inputs=`"):
        train.evaluate(network, method, state, *test)
    found = train.evaluate(network, method, state, *test, training_inputs=images)
    assert set(found) == {"loss", "accuracy"}

    model_state = train.reestimate_statistics(
        network, method, state, images, batch_size=1437 // 8 * 8
    )
    kernels = method.deploy(state.params)
    first = kernels["Dense_0" if make is Linen else "first"]
    hidden = images[:1432] @ np.asarray(first["kernel"]) + np.asarray(first["bias"])
    got = [leaf for leaf in jax.tree.leaves(model_state) if leaf.shape == (32,)]
    np.testing.assert_allclose(got[0], hidden.mean(0), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(got[1], hidden.var(0), rtol=1e-2)
    done = methods.adaste(steps=3)
    state, _ = trained(network, done, steps=3)
    train.evaluate(network, done, state, *test)  # binary: nothing to estimate


@pytest.mark.parametrize("strategy", ["jit", "shard_map"])
def test_a_linen_module_is_told_the_axes_of_its_batch_norm(strategy):
    (images, labels), _ = digits()
    network, method = Linen(), methods.ste(steps=5)
    state = train.init(network, method, images)
    step = train.make_train_step(
        network, method, placement=train.Placement(strategy=strategy)
    )
    state, report = step(state, images[:64], labels[:64])
    assert np.isfinite(report["loss"])
    mean = state.model_state["batch_stats"]["BatchNorm_0"]["mean"]
    assert mean.shape == (32,)


class Deterministic(nn.Module):
    """Another word for what `train` says."""

    @nn.compact
    def __call__(self, inputs, deterministic=True):
        return nn.Dense(10)(inputs)


def test_a_module_with_another_word_for_train_is_refused():
    with pytest.raises(TypeError, match="'deterministic' and no `train`"):
        train.make_train_step(Deterministic(), methods.ste(9))


# --- evaluation and batches


def test_evaluation_is_the_mean_over_all_examples_whatever_the_batch():
    params = {"kernel": jnp.array([[1.0, -2.0], [-0.5, 3.0]])}
    forward = lambda params, state, x, *, train, key: (x @ params["kernel"], state)
    method = methods.ste(9)
    state = train.init(forward, method, None, params=params)
    rng = np.random.default_rng(2)
    inputs, labels = rng.normal(size=(13, 2)), rng.integers(0, 2, 13)
    logits = inputs @ np.sign(params["kernel"])
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    for size in (3, 13, 500):
        found = train.evaluate(forward, method, state, inputs, labels, batch_size=size)
        assert found["loss"] == pytest.approx(float(expected.mean()), rel=1e-5)
        assert found["accuracy"] == np.mean(np.argmax(logits, -1) == labels)
    real = methods.full_precision(9)
    found = train.evaluate(forward, real, state, inputs, labels)
    assert found["loss"] != pytest.approx(float(expected.mean()), rel=1e-2)
    with pytest.raises(ValueError, match="no label to evaluate"):
        train.evaluate(forward, method, state, inputs, np.full(13, -1))


def test_batches_are_shuffled_epochs():
    images, labels = np.arange(10), np.arange(10) * 2
    seen = list(datasets.batches(images, labels, batch_size=3, steps=7, seed=4))
    assert len(seen) == 7
    for image, label in seen:
        np.testing.assert_array_equal(label, 2 * image)
    epochs = [np.concatenate([x for x, _ in seen[i : i + 3]]) for i in (0, 3)]
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert list(epochs[0]) != list(epochs[1])
    with pytest.raises(ValueError, match="between 1 and the number of examples, 10"):
        datasets.batches(images, labels, batch_size=11, steps=1)
    with pytest.raises(ValueError, match="10 inputs and 9 labels"):
        datasets.batches(images, labels[:9], batch_size=2, steps=1)
