"""The compiled steps: what they compute, on one device and on several."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import adaste_jax
from adaste_jax import estimators, metrics, optim, train

BATCH, INPUTS, HIDDEN, CLASSES = 16, 5, 8, 3


def forward(params, model_state, inputs, *, train, key):
    """A network of two layers with a batch norm written out, in plain JAX."""
    del key
    hidden = inputs @ params["first"]["kernel"]
    if train:
        mean, var = jnp.mean(hidden, axis=0), jnp.var(hidden, axis=0)
        model_state = {
            "mean": 0.5 * model_state["mean"] + 0.5 * mean,
            "var": 0.5 * model_state["var"] + 0.5 * var,
        }
    else:
        mean, var = model_state["mean"], model_state["var"]
    hidden = jax.nn.relu((hidden - mean[None]) / jnp.sqrt(var + 1e-5)[None])
    logits = hidden @ params["last"]["kernel"] + params["last"]["bias"][None]
    return logits, model_state


@pytest.fixture
def params():
    keys = jax.random.split(jax.random.key(1))
    return {
        "first": {"kernel": jax.random.normal(keys[0], (INPUTS, HIDDEN))},
        "last": {
            "kernel": jax.random.normal(keys[1], (HIDDEN, CLASSES)),
            "bias": jnp.linspace(-0.2, 0.3, CLASSES),
        },
    }


def new_state(params, tx):
    # The step donates its state, so every run gets arrays of its own.
    params = jax.tree.map(jnp.array, params)
    model_state = {"mean": jnp.zeros(HIDDEN), "var": jnp.ones(HIDDEN)}
    key = jax.random.key(3)
    return train.TrainState.create(params, tx, key=key, model_state=model_state)


def batches(count):
    keys = jax.random.split(jax.random.key(2), 2)
    images = jax.random.normal(keys[0], (count, BATCH, INPUTS))
    labels = jax.random.randint(keys[1], (count, BATCH), 0, CLASSES)
    return {"image": np.asarray(images), "label": np.asarray(labels)}


def take(stacked, number):
    return {name: leaf[number] for name, leaf in stacked.items()}


def run(step, state, steps=5):
    data = batches(steps)
    reports = []
    for number in range(steps):
        state, report = step(state, take(data, number))
        reports.append(report)
    return state, reports


ANNEALED = {
    "estimator": functools.partial(estimators.adaste_paper, rule="adaptive"),
    "hyperparameters": {"mu": optax.exponential_decay(0.5, 1, 2.0)},
}


def test_several_devices_take_the_steps_of_one(params):
    """The rule is not additive: a mean over devices after it would be off by far."""
    tx = optax.sgd(0.3, momentum=0.9)
    found = []
    for count in (1, 8):
        mesh = train.data_mesh(jax.devices()[:count])
        step = train.make_train_step(forward, tx, mesh=mesh, **ANNEALED)
        state, reports = run(step, new_state(params, tx))
        found.append((state.params, state.model_state, [dict(r) for r in reports]))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), *found
    )


@pytest.mark.parametrize("strategy", ["jit", "shard_map"])
def test_a_loss_may_get_more_than_labels(params, strategy):
    """Here a weight for each example; the accuracy is still that of the labels."""
    batch = take(batches(1), 0)
    batch["weight"] = np.linspace(0, 2, BATCH, dtype=np.float32)
    seen = []

    def prepare(key, batch, resident):
        return batch["image"], {name: batch[name] for name in ("label", "weight")}

    def weighted(outputs, labels):
        plain = optax.softmax_cross_entropy_with_integer_labels
        return labels["weight"] * plain(outputs, labels["label"])

    for options in ({}, {"prepare": prepare, "loss": weighted}):
        step = train.make_train_step(
            forward,
            optax.sgd(0.0),
            estimator=None,
            strategy=strategy,
            batch_statistics="local",
            **options,
        )
        seen.append(step(new_state(params, optax.sgd(0.0)), batch)[1])
    assert seen[1]["accuracy"] == seen[0]["accuracy"]
    if strategy == "jit":
        logits, _ = forward(
            params,
            {"mean": jnp.zeros(HIDDEN), "var": jnp.ones(HIDDEN)},
            batch["image"],
            train=True,
            key=None,
        )
        log_probs = np.asarray(jax.nn.log_softmax(logits), np.float64)
        losses = -log_probs[np.arange(BATCH), batch["label"]]
        expected = np.mean(losses * batch["weight"])
        assert float(seen[1]["loss"]) == pytest.approx(expected, rel=1e-5)


def test_the_step_is_the_gradient_of_the_mean_loss_at_the_weights(params):
    """Written out for plain gradient descent, in the order that the docs promise."""
    tx = optax.sgd(0.3)
    step = train.make_train_step(forward, tx, estimator=estimators.ste_clipped)
    state, report = step(new_state(params, tx), take(batches(1), 0))

    batch = take(batches(1), 0)
    signs = adaste_jax.deploy(params)

    def loss(weights):
        state = {"mean": jnp.zeros(HIDDEN), "var": jnp.ones(HIDDEN)}
        logits, _ = forward(weights, state, batch["image"], train=True, key=None)
        log_probs = jax.nn.log_softmax(logits)
        return -jnp.mean(log_probs[jnp.arange(BATCH), batch["label"]])

    grads = jax.grad(loss)(signs)
    expected = jax.tree.map(
        lambda p, g, kernel: p - 0.3 * (g * (jnp.abs(p) <= 1) if kernel else g),
        params,
        grads,
        adaste_jax.kernels()(params),
    )
    assert report["loss"] == pytest.approx(float(loss(signs)), rel=1e-5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
        state.params,
        expected,
    )
    flips = metrics.flip_rate(params, expected)
    assert report["flip_rate"] == pytest.approx(float(flips))
    outside = [jnp.abs(k) > 1 for k in (params[n]["kernel"] for n in params)]
    share = sum(int(o.sum()) for o in outside) / sum(o.size for o in outside)
    assert report["zero_gradient"] == pytest.approx(share, abs=0.03)
    assert report["saturated"] == 1.0


def test_annealing_reaches_the_estimator_and_does_not_compile_again(params):
    traces = []

    def counting(*args, **kwargs):
        traces.append(1)
        return forward(*args, **kwargs)

    tx = optax.sgd(0.1)
    step = train.make_train_step(counting, tx, **ANNEALED)
    _, reports = run(step, new_state(params, tx))
    assert [float(r["mu"]) for r in reports] == pytest.approx([0.5, 1, 2, 4, 8])
    assert len(traces) == 1


def test_a_scan_of_steps_is_the_steps_one_by_one(params):
    tx = optax.adam(0.05)
    one = train.make_train_step(forward, tx, **ANNEALED)
    many = train.make_train_step(forward, tx, many=True, **ANNEALED)
    state, reports = run(one, new_state(params, tx), steps=3)
    scanned, stacked = many(new_state(params, tx), batches(3))
    assert int(scanned.step) == 3
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
        (state.params, state.opt_state),
        (scanned.params, scanned.opt_state),
    )
    losses = [float(r["loss"]) for r in reports]
    np.testing.assert_allclose(stacked["loss"], losses, rtol=1e-5)


def test_both_faces_of_the_rule_train_alike(params):
    """The rule in the loss, or the identity there and the rule in front of momentum."""
    mu = ANNEALED["hyperparameters"]["mu"]
    plain = optax.sgd(0.3, momentum=0.9)
    rule = optax.masked(optim.scale_by_adaste(mu), adaste_jax.kernels())
    straight = functools.partial(estimators.adaste_paper, rule="identity")
    faces = [
        (plain, ANNEALED["estimator"]),
        (optax.chain(rule, plain), straight),
    ]
    found = []
    for tx, estimator in faces:
        step = train.make_train_step(
            forward, tx, estimator=estimator, hyperparameters={"mu": mu}
        )
        found.append(run(step, new_state(params, tx))[0].params)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), *found
    )


def test_full_precision_trains_the_parameters_themselves(params):
    tx = optax.sgd(0.1)
    step = train.make_train_step(forward, tx, estimator=None)
    state, report = step(new_state(params, tx), take(batches(1), 0))
    assert set(report) == {"loss", "accuracy"}
    assert not np.allclose(state.params["last"]["bias"], params["last"]["bias"])


def test_the_deployed_pass_keeps_its_loss_and_statistics(params):
    """Batch statistics of the soft weights come first, of the signs last."""
    tx = optax.sgd(0.1)
    soft = {"mu": lambda step: 0.1}
    estimator = functools.partial(estimators.adaste_paper, rule="identity")
    step = train.make_train_step(
        forward, tx, estimator=estimator, hyperparameters=soft, deployed_pass=True
    )
    state, report = step(new_state(params, tx), take(batches(1), 0))

    image = take(batches(1), 0)["image"]
    running = {"mean": jnp.zeros(HIDDEN), "var": jnp.ones(HIDDEN)}
    for weights in (
        adaste_jax.binarize(params, functools.partial(estimator, mu=0.1)),
        adaste_jax.deploy(params),
    ):
        logits, running = forward(weights, running, image, train=True, key=None)
    np.testing.assert_allclose(
        state.model_state["mean"], running["mean"], rtol=1e-5, atol=1e-6
    )
    expected = optax.softmax_cross_entropy_with_integer_labels(
        logits, take(batches(1), 0)["label"]
    ).mean()
    assert report["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_evaluation_is_at_the_deployed_weights_and_skips_what_is_masked(params):
    state = {"mean": jnp.full(HIDDEN, 0.1), "var": jnp.full(HIDDEN, 2.0)}
    batch = take(batches(1), 0)
    mask = np.arange(BATCH) < 11
    evaluate = train.make_eval_step(forward)
    found = evaluate(params, state, {**batch, "mask": mask})

    signs = adaste_jax.deploy(params)
    logits, _ = forward(signs, state, batch["image"][:11], train=False, key=None)
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits, batch["label"][:11]
    )
    assert int(found["count"]) == 11
    assert found["loss"] == pytest.approx(float(losses.sum()), rel=1e-5)
    correct = (np.argmax(logits, axis=-1) == batch["label"][:11]).sum()
    assert int(found["correct"]) == correct


def test_statistics_step_takes_them_under_the_deployed_weights(params):
    state = {"mean": jnp.zeros(HIDDEN), "var": jnp.ones(HIDDEN)}
    batch = take(batches(1), 0)
    update = train.make_statistics_step(forward)
    for _ in range(30):
        state = update(params, state, batch, jax.random.key(0))
    hidden = batch["image"] @ np.asarray(adaste_jax.deploy(params)["first"]["kernel"])
    np.testing.assert_allclose(state["mean"], hidden.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state["var"], hidden.var(axis=0), rtol=1e-4)


def test_a_batch_that_the_devices_cannot_share_is_refused(params):
    tx = optax.sgd(0.1)
    step = train.make_train_step(forward, tx, estimator=estimators.ste)
    batch = {name: leaf[:6] for name, leaf in take(batches(1), 0).items()}
    with pytest.raises(ValueError, match="multiple of 8"):
        step(new_state(params, tx), batch)


def test_the_state_is_donated(params):
    tx = optax.sgd(0.1)
    step = train.make_train_step(forward, tx, estimator=estimators.ste)
    state, _ = step(new_state(params, tx), take(batches(1), 0))
    step(state, take(batches(1), 0))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_a_transformation_may_start_with_one_array_in_several_places(params):
    """Donated twice, a buffer would end the process."""

    def init(latents):
        zeros = jax.tree.map(jnp.zeros_like, latents)
        return {"first": zeros, "second": zeros, "latents": latents}

    def update(grads, state, latents=None):
        return jax.tree.map(lambda grad: -0.1 * grad, grads), state

    tx = optax.GradientTransformation(init, update)
    step = train.make_train_step(forward, tx, estimator=estimators.ste)
    state, _ = step(new_state(params, tx), take(batches(1), 0))
    state, report = step(state, take(batches(1), 0))
    assert np.isfinite(report["loss"])


@pytest.mark.parametrize("batch", [{"x": np.ones(8), "y": np.ones(8)}, (np.ones(8),)])
def test_a_batch_with_other_keys_is_refused_with_a_way_out(batch):
    step = train.make_train_step(forward, optax.sgd(0.1), estimator=None)
    state = train.TrainState.create(
        {"kernel": jnp.ones(2)}, optax.sgd(0.1), key=jax.random.key(0)
    )
    with pytest.raises(ValueError, match="needs the keys 'image' and 'label', got"):
        step(state, batch)


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(train.train_step, tx=optax.sgd(0.1), estimator=None),
        functools.partial(train.make_train_step, tx=optax.sgd(0.1), estimator=None),
        train.make_eval_step,
        train.make_statistics_step,
    ],
)
@pytest.mark.parametrize("network", [None, nn.Dense(3), lambda params, inputs: inputs])
def test_what_is_no_forward_is_refused_at_once_with_a_way_out(make, network):
    with pytest.raises(
        TypeError, match=r"called as forward\(params, .*`functional` of"
    ):
        make(network)
