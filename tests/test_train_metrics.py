"""What steps and evaluation report of outputs and labels: never a number of nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaste_jax import estimators, train

BATCH = 8
SGD = optax.sgd(0.1)
CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels


def linear(params, model_state, inputs, *, train, key):
    del train, key
    return inputs @ params["kernel"], model_state


def flat(params, model_state, inputs, *, train, key):
    """One number for each example."""
    outputs, model_state = linear(params, model_state, inputs, train=train, key=key)
    return outputs[:, 0], model_state


def drawn(inputs=6, outputs=5, seed=0):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(inputs, outputs)).astype(np.float32)
    return {"kernel": kernel}, rng.normal(size=(BATCH, inputs)).astype(np.float32)


def both(forward, kernel, batch, *, estimator=None, **options):
    """What one training step and one evaluation report, in full precision."""
    state = train.TrainState.create(
        jax.tree.map(jnp.array, kernel), SGD, key=jax.random.key(0)
    )
    step = train.make_train_step(forward, SGD, estimator=estimator, **options)
    known = ("loss", "metrics", "prepare", "mesh")
    options = {name: options[name] for name in known if name in options}
    evaluate = train.make_eval_step(forward, deployed=False, **options)
    found = evaluate(state.params, {}, batch)
    return step(state, batch)[1], found


TWO = train.data_mesh(jax.devices()[:2])
WAYS = {
    "jit": {"mesh": TWO},
    "shard_map": {"mesh": TWO, "strategy": "shard_map"},
    "pmap": {"mesh": TWO, "strategy": "pmap", "microbatches": 2},
    "microbatches": {"mesh": TWO, "strategy": "shard_map", "microbatches": 2},
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@every_way
def test_a_regression_trains_and_reports_its_own_metrics(way):
    kernel, x = drawn()
    y = np.random.default_rng(1).normal(size=(BATCH, 5)).astype(np.float32)
    metrics = {
        "absolute": lambda outputs, labels: jnp.abs(outputs - labels),
        "largest": lambda outputs, labels: jnp.max(jnp.abs(outputs - labels), axis=-1),
        "near": lambda outputs, labels: jnp.abs(outputs - labels) < 1,
    }
    report, found = both(
        linear, kernel, {"image": x, "label": y}, loss=optax.l2_loss, metrics=metrics,
        **way,
    )  # fmt: skip
    assert set(report) == {"loss", *metrics}
    assert set(found) == {"loss", "count", *metrics}
    errors = np.asarray(x, np.float64) @ kernel["kernel"] - y
    expected = {
        "loss": np.mean(errors**2) / 2,
        "absolute": np.mean(np.abs(errors)),
        "largest": np.mean(np.max(np.abs(errors), axis=-1)),
        "near": np.mean(np.abs(errors) < 1),
    }
    assert int(found["count"]) == errors.size
    for name, value in expected.items():
        assert report[name].dtype == jnp.float32
        assert float(report[name]) == pytest.approx(value, rel=1e-5)
        share = float(found[name]) / int(found["count"])
        assert share == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, y: jnp.mean((o - y) ** 2, axis=-1),
        lambda o, y: jnp.mean(optax.sigmoid_binary_cross_entropy(o, y), axis=-1),
        optax.sigmoid_binary_cross_entropy,
    ],
)
def test_targets_of_the_shape_of_the_outputs_are_not_taken_for_classes(loss):
    kernel, x = drawn()
    y = (np.random.default_rng(2).random((BATCH, 5)) < 0.4).astype(np.float32)
    report, found = both(linear, kernel, {"image": x, "label": y}, loss=loss)
    assert set(report) == {"loss"}
    assert set(found) == {"loss", "count"}


@every_way
def test_soft_labels_have_the_accuracy_of_their_largest(way):
    kernel, x = drawn(seed=3)
    integers = np.random.default_rng(4).integers(0, 5, BATCH)
    soft = 0.8 * np.eye(5, dtype=np.float32)[integers] + 0.04
    report, found = both(
        linear, kernel, {"image": x, "label": soft},
        loss=optax.softmax_cross_entropy, **way,
    )  # fmt: skip
    right = np.argmax(x @ kernel["kernel"], axis=-1) == integers
    assert float(report["accuracy"]) == np.mean(right)
    assert int(found["correct"]) == right.sum()


@pytest.mark.parametrize("labels", [[BATCH], [BATCH, 1]])
def test_one_logit_has_no_accuracy_but_that_of_the_caller(labels):
    kernel, x = drawn(outputs=1, seed=5)
    y = np.arange(BATCH).reshape(labels) % 2
    metric = lambda outputs, labels: (outputs > 0) == (labels == 1)
    forward = flat if len(labels) == 1 else linear
    options = {"loss": optax.sigmoid_binary_cross_entropy}
    report, _ = both(forward, kernel, {"image": x, "label": y}, **options)
    assert set(report) == {"loss"}
    report, found = both(
        forward, kernel, {"image": x, "label": y}, metrics={"accuracy": metric},
        **options,
    )  # fmt: skip
    right = (x @ kernel["kernel"] > 0)[:, 0] == (np.arange(BATCH) % 2 == 1)
    assert float(report["accuracy"]) == np.mean(right)
    assert int(found["correct"]) == right.sum()
    assert found["correct"].dtype == jnp.int32


def test_outputs_and_labels_that_would_be_broadcast_are_refused():
    kernel, x = drawn(outputs=1)
    batch = {"image": x, "label": np.arange(BATCH) % 2}
    with jax.numpy_rank_promotion("allow"):
        for call in (0, 1):
            with pytest.raises(ValueError, match=r"\[8, 1\].*labels int.*\[8, 8\]"):
                both(linear, kernel, batch, loss=optax.sigmoid_binary_cross_entropy)[
                    call
                ]


def test_a_loss_that_is_one_number_is_refused_by_evaluation_too():
    kernel, x = drawn()
    evaluate = train.make_eval_step(
        linear, deployed=False, loss=lambda o, y: jnp.mean(CROSS_ENTROPY(o, y))
    )
    with pytest.raises(ValueError, match="one loss per label"):
        evaluate(kernel, {}, {"image": x, "label": np.arange(BATCH) % 5})


@pytest.mark.parametrize("wrong", [-1, -100, 5, 200])
@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
def test_evaluation_leaves_out_labels_that_are_no_class(wrong, dtype):
    if wrong < 0 and dtype == np.uint8:
        return
    kernel, x = drawn(seed=6)
    y = (np.arange(BATCH) % 5).astype(dtype)
    y[[1, 6]] = wrong
    mask = np.arange(BATCH) != 3
    metrics = {"margin": lambda outputs, labels: jnp.max(outputs, axis=-1)}
    evaluate = train.make_eval_step(linear, deployed=False, metrics=metrics)
    found = evaluate(kernel, {}, {"image": x, "label": y, "mask": mask})
    kept = np.array([0, 2, 4, 5, 7])
    logits = (x @ kernel["kernel"])[kept]
    assert int(found["count"]) == 5
    assert int(found["correct"]) == (np.argmax(logits, axis=-1) == y[kept]).sum()
    losses = CROSS_ENTROPY(logits, y[kept].astype(int))
    assert float(found["loss"]) == pytest.approx(float(losses.sum()), rel=1e-5)
    assert float(found["margin"]) == pytest.approx(logits.max(axis=-1).sum(), rel=1e-5)


def test_positions_of_a_text_without_a_label_are_left_out():
    kernel, _ = drawn(seed=7)
    x = np.random.default_rng(7).normal(size=(BATCH, 3, 6)).astype(np.float32)
    y = np.arange(3 * BATCH).reshape(BATCH, 3) % 5
    y[:, 2] = -1
    evaluate = train.make_eval_step(linear, deployed=False)
    found = evaluate(kernel, {}, {"image": x, "label": y})
    part = evaluate(kernel, {}, {"image": x[:, :2], "label": y[:, :2]})
    assert int(found["count"]) == int(part["count"]) == 2 * BATCH
    assert int(found["correct"]) == int(part["correct"])
    assert float(found["loss"]) == pytest.approx(float(part["loss"]), rel=1e-6)


def test_a_loss_may_give_the_positions_of_a_text_in_one_row():
    kernel, _ = drawn(seed=11)
    x = np.random.default_rng(11).normal(size=(BATCH, 3, 6)).astype(np.float32)
    y = np.arange(3 * BATCH).reshape(BATCH, 3) % 5
    loss = lambda o, y: CROSS_ENTROPY(o.reshape(-1, 5), y.reshape(-1))
    expected = both(linear, kernel, {"image": x, "label": y})
    found = both(linear, kernel, {"image": x, "label": y}, loss=loss)
    for one, two in zip(found, expected, strict=True):
        assert set(one) == set(two)
        for name in one:
            assert float(one[name]) == pytest.approx(float(two[name]), rel=1e-6)


def test_one_hot_labels_of_zeros_are_unknown():
    kernel, x = drawn(seed=8)
    y = np.eye(5, dtype=np.float32)[np.arange(BATCH) % 5]
    y[2] = 0
    evaluate = train.make_eval_step(
        linear, deployed=False, loss=optax.softmax_cross_entropy
    )
    assert int(evaluate(kernel, {}, {"image": x, "label": y})["count"]) == BATCH - 1


@pytest.mark.parametrize("wrong", [-1, 5])
@every_way
def test_training_refuses_labels_on_the_host_and_shows_those_on_the_device(way, wrong):
    kernel, x = drawn()
    good = np.arange(BATCH) % 5
    bad = np.where(np.arange(BATCH) == 4, wrong, good)
    step = train.make_train_step(linear, SGD, estimator=None, **way)
    state = train.TrainState.create(
        jax.tree.map(jnp.array, kernel), SGD, key=jax.random.key(0)
    )
    message = rf"a label of the batch is {wrong}; the network has 5 outputs"
    with pytest.raises(ValueError, match=message):
        step(state, {"image": x, "label": bad})  # the first call
    state, report = step(state, {"image": x, "label": good})
    assert np.isfinite(report["loss"])
    with pytest.raises(ValueError, match=message):
        step(state, {"image": x, "label": bad})
    _, report = step(state, {"image": x, "label": jnp.asarray(bad)})
    assert np.isnan(report["loss"])
    assert np.isnan(report["accuracy"])


def test_the_check_of_labels_does_not_trace_twice():
    traces = []

    def counted(*args, **kwargs):
        traces.append(1)
        return linear(*args, **kwargs)

    kernel, x = drawn()
    step = train.make_train_step(counted, SGD, estimator=None)
    state = train.TrainState.create(
        jax.tree.map(jnp.array, kernel), SGD, key=jax.random.key(0)
    )
    for _ in range(3):
        state, _ = step(state, {"image": x, "label": np.arange(BATCH) % 5})
    assert len(traces) == 1


def test_labels_under_another_name_are_of_the_loss_alone():
    """Here integers that are counts, with outputs of two numbers each."""
    kernel, x = drawn(outputs=2)
    counts = np.arange(BATCH) * 7

    def prepare(key, batch, resident):
        return batch["image"], {"count": batch["label"]}

    def loss(outputs, labels):
        rate = jnp.sum(outputs, axis=-1)
        return jnp.exp(rate) - labels["count"] * rate

    report, found = both(
        linear, kernel, {"image": x, "label": counts}, loss=loss, prepare=prepare
    )
    assert set(report) == {"loss"}
    assert np.isfinite(report["loss"])
    assert int(found["count"]) == BATCH


def test_a_dict_of_labels_is_measured_by_the_one_called_label():
    kernel, x = drawn(seed=9)
    y = np.where(np.arange(BATCH) < 2, -1, np.arange(BATCH) % 5)

    def prepare(key, batch, resident):
        return batch["image"], {"label": batch["label"], "teacher": 2 * batch["image"]}

    evaluate = train.make_eval_step(
        linear,
        deployed=False,
        prepare=prepare,
        loss=lambda o, y: CROSS_ENTROPY(o, y["label"]) + jnp.sum(y["teacher"], -1),
        metrics=train.accuracy,
    )
    found = evaluate(kernel, {}, {"image": x, "label": y})
    assert int(found["count"]) == BATCH - 2
    right = np.argmax(x @ kernel["kernel"], axis=-1)[2:] == y[2:]
    assert int(found["correct"]) == right.sum()


@every_way
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_losses_of_few_bits_are_summed_in_float32(way, dtype):
    """Whole numbers below 256 are exact; their sum has more bits than that."""
    x = np.random.default_rng(10).integers(100, 256, (512, 1)).astype(dtype)
    report, found = both(
        linear,
        {"kernel": np.ones((1, 1), dtype)},
        {"image": x, "label": x},
        loss=lambda outputs, labels: outputs[:, 0],
        metrics={"double": lambda outputs, labels: 2 * labels[:, 0]},
        **way,
    )
    exact = int(x.astype(int).sum())
    for name, expected in (("loss", exact), ("double", 2 * exact)):
        assert report[name].dtype == found[name].dtype == jnp.float32
        assert float(found[name]) == expected
        assert float(report[name]) == pytest.approx(expected / 512, rel=1e-6)


def test_losses_of_float64_stay_so(float64):
    kernel, x = drawn()
    kernel = jax.tree.map(lambda leaf: leaf.astype(np.float64), kernel)
    batch = {"image": x.astype(np.float64), "label": np.arange(BATCH) % 5}
    report, found = both(linear, kernel, batch, estimator=estimators.ste_clipped)
    assert report["loss"].dtype == found["loss"].dtype == jnp.float64
    rest = {name: value.dtype for name, value in report.items() if name != "loss"}
    assert set(rest.values()) == {jnp.dtype("float32")}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_parameters_of_few_bits_train_and_report_float32(dtype):
    kernel, x = drawn()
    kernel = jax.tree.map(lambda leaf: leaf.astype(dtype), kernel)
    batch = {"image": x.astype(dtype), "label": np.arange(BATCH) % 5}
    state = train.TrainState.create(
        jax.tree.map(jnp.array, kernel), SGD, key=jax.random.key(0)
    )
    step = train.make_train_step(
        linear, SGD, estimator=estimators.ste_clipped, microbatches=1
    )
    state, report = step(state, batch)
    assert state.params["kernel"].dtype == dtype
    assert {value.dtype for value in report.values()} == {jnp.dtype("float32")}


def test_an_output_that_is_nan_is_not_right():
    """The argmax of NaN is 0, so labels of 0 would count as right."""
    kernel, x = drawn()
    evaluate = train.make_eval_step(linear, deployed=False)
    broken = {"kernel": np.full_like(kernel["kernel"], np.nan)}
    found = evaluate(broken, {}, {"image": x, "label": np.zeros(BATCH, int)})
    assert np.isnan(found["loss"])
    assert int(found["correct"]) == 0


@pytest.mark.parametrize("make", ["train", "eval", "pure"])
@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        ({"loss": train.accuracy}, ValueError, r"has \['loss'\].*other names"),
        ({"top": 3}, TypeError, "must be a function from"),
        ("accuracy", TypeError, "must be a function from"),
    ],
)
def test_metrics_that_cannot_be_reported_are_refused(make, metrics, error, message):
    makers = {
        "train": functools.partial(train.make_train_step, tx=SGD, estimator=None),
        "pure": functools.partial(train.train_step, tx=SGD, estimator=None),
        "eval": train.make_eval_step,
    }
    with pytest.raises(error, match=message):
        makers[make](linear, metrics=metrics)


def test_a_metric_has_no_name_of_a_schedule_and_one_number_per_label():
    kernel, x = drawn()
    with pytest.raises(ValueError, match=r"has \['mu'\]"):
        train.make_train_step(
            linear,
            SGD,
            estimator=estimators.adaste_paper,
            hyperparameters={"mu": lambda step: 1.0},
            metrics={"mu": train.accuracy},
        )
    with pytest.raises(ValueError, match="the metric 'mean' gave one number"):
        both(
            linear,
            kernel,
            {"image": x, "label": np.arange(BATCH) % 5},
            metrics={"mean": lambda outputs, labels: jnp.mean(outputs)},
        )
    with pytest.raises(ValueError, match="at least two classes"):
        train.accuracy(jnp.ones((3, 1)), jnp.zeros(3, int))


def test_a_function_may_give_several_metrics():
    kernel, x = drawn()

    def ends(outputs, labels):
        return {"low": jnp.min(outputs, axis=-1), "high": jnp.max(outputs, axis=-1)}

    batch = {"image": x, "label": np.arange(BATCH) % 5}
    report, found = both(linear, kernel, batch, metrics=ends)
    assert set(report) == {"loss", "accuracy", "low", "high"}
    assert set(found) == {"loss", "correct", "count", "low", "high"}
    logits = x @ kernel["kernel"]
    assert float(report["low"]) == pytest.approx(logits.min(axis=-1).mean(), rel=1e-5)


def test_several_networks_at_once_report_each_its_own():
    """`jax.vmap` of the pure step, with labels that are one-hot."""
    kernel, x = drawn()
    step = train.train_step(
        linear, SGD, estimator=None, loss=optax.softmax_cross_entropy
    )
    create = functools.partial(train.TrainState.create, tx=SGD, key=jax.random.key(0))
    states = [
        create({"kernel": jnp.array(each)})
        for each in (kernel["kernel"], -kernel["kernel"])
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    best = np.argmax(x @ kernel["kernel"], axis=-1)
    batch = {"image": x, "label": np.eye(5, dtype=np.float32)[best]}
    _, report = jax.jit(jax.vmap(step, in_axes=(0, None, None)))(stacked, batch, None)
    assert report["accuracy"].tolist() == [1.0, 0.0]
