"""What a config can ask for besides a method: warm-up, other losses, other runs."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import errors, methods, models
from experiments.compare import trials
from experiments.training import features, losses
from experiments.training.run import Run
from tests.experiments import test_loop

run_once, small_config = test_loop.run_once, test_loop.small_config


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def assert_equal(first, second):
    for one, other in zip(leaves(first), leaves(second), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def float_run(tmp_path_factory):
    """A finished run in full precision."""
    path = tmp_path_factory.mktemp("float") / "run"
    options = {"full_precision": {"learning_rate": 3e-2}}
    run_once(path, method="full_precision", num_epochs=4, methods=options)
    return path


def saved_state(path, **fields):
    """Parameters and batch-norm statistics in the last checkpoint of a run."""
    state = test_loop.final_state(path, small_config(**fields))
    return state.params, state.model_state


# Warm-up.


@pytest.mark.parametrize("name", ["adaste", "adaste_released", "binary_connect"])
def test_first_step_of_a_method_is_a_twentieth(name):
    latents = {"kernel": jnp.array([0.3, -0.2, 0.1])}
    grads = {"kernel": jnp.array([0.02, -0.05, 0.03])}

    def first_update(**run):
        tx = methods.create(name, methods.defaults(), steps=50, **run).tx
        return tx.update(grads, tx.init(latents), latents)[0]["kernel"]

    ratio = first_update(warmup_steps=20) / first_update()
    np.testing.assert_allclose(ratio, 1 / 20, rtol=1e-4)


def test_warm_up_holds_for_parameters_that_stay_real():
    config = small_config(
        warmup_epochs=0.5, binary_exclude=("^head/",), real_learning_rate=0.1
    )
    run = Run(config)
    state = run.init()
    tx = run.method.tx

    @jax.jit
    def first_update(state):
        grads = jax.tree.map(jnp.ones_like, state.params)
        return tx.update(grads, state.opt_state, state.params, weights=state.params)[0]

    updates = first_update(state)
    steps = round(0.5 * run.feed.steps_per_epoch)
    assert steps > 1
    np.testing.assert_allclose(updates["head"]["kernel"], -0.1 / steps, rtol=1e-4)


# Losses.


def test_smoothed_cross_entropy_is_its_formula():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 3, (4, 5)), np.array([0, 4, 2, 2])
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = np.full((4, 5), 0.1 / 5)
    targets[np.arange(4), labels] += 0.9
    found = losses.cross_entropy(0.1)(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(found, -(targets * log_probs).sum(axis=1), rtol=1e-5)


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def test_distillation_is_its_formula():
    rng = np.random.default_rng(1)
    student, teacher = rng.normal(0, 2, (2, 4, 5))
    labels = np.array([1, 0, 3, 4])
    p, q = softmax(teacher / 3.0), softmax(student / 3.0)
    soft = 9.0 * (p * np.log(p / q)).sum(axis=1)
    hard = -np.log(softmax(student))[np.arange(4), labels]
    loss = losses.distillation(losses.cross_entropy(0), weight=0.7, temperature=3.0)
    found = loss(
        jnp.asarray(student),
        {"label": jnp.asarray(labels), "teacher": jnp.asarray(teacher)},
    )
    np.testing.assert_allclose(found, 0.3 * hard + 0.7 * soft, rtol=1e-5)


def test_a_students_step_reports_the_distance_to_its_teacher(float_run):
    """With all the weight on it; written out in NumPy."""
    config = small_config(
        teacher=str(float_run), distill_weight=1.0, distill_temperature=2.0
    )
    run = Run(config)
    state = run.init()
    batch, _ = next(iter(run.feed.batches(0)))
    inputs, labels = run._prepare(None, batch, run.resident)
    weights = run.method.weights(state.params, 0)
    student, _ = run.problem.forward(
        weights, state.model_state, inputs, train=True, key=None
    )
    teacher, _ = run.problem.forward(
        *saved_state(float_run, method="full_precision", num_epochs=4),
        inputs,
        train=False,
        key=None,
    )
    np.testing.assert_allclose(labels["teacher"], teacher, rtol=1e-4, atol=1e-4)
    p, q = softmax(np.float64(teacher) / 2), softmax(np.float64(student) / 2)
    expected = 4 * (p * np.log(p / q)).sum(axis=1).mean()
    _, report = run.train_step(state, batch, run.resident)
    assert float(report["loss"]) == pytest.approx(expected, rel=1e-3)


def unit(x):
    return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True))


def test_the_distance_of_features_is_that_of_their_directions():
    rng = np.random.default_rng(2)
    student, teacher = rng.normal(size=(2, 4, 3, 6))
    expected = np.square(unit(student) - unit(teacher)).mean(axis=-1)
    found = features.distance(jnp.asarray(student), jnp.asarray(teacher), 2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    whole = features.distance(jnp.asarray(student), jnp.asarray(teacher), 1)
    np.testing.assert_allclose(whole, expected.mean(axis=1), rtol=1e-5)
    for factor, value in ((3.0, 0.0), (-2.0, 4.0)):
        same = features.distance(jnp.asarray(factor * teacher), jnp.asarray(teacher), 2)
        np.testing.assert_allclose(same, np.full((4, 3), value), atol=1e-4)


@pytest.mark.parametrize(("here", "there"), [(4, 16), (16, 4)])
def test_features_of_another_width_are_projected(here, there):
    """By a matrix that keeps angles: the narrower width has a basis in the wider."""
    matrix = features._projection(there, here)
    narrow = matrix.T @ matrix if here < there else matrix @ matrix.T
    np.testing.assert_allclose(narrow, np.eye(4), atol=1e-6)
    teacher = np.random.default_rng(0).normal(size=(8, there)).astype(np.float32)
    found = features.distance(
        jnp.asarray(2 * teacher @ matrix), jnp.asarray(teacher), 1
    )
    np.testing.assert_allclose(found, np.zeros(8), atol=1e-4)


def test_a_students_step_reports_the_distance_of_its_features_too(float_run):
    """Of layers of other names and widths; they are read by Flax's own means."""
    fields = {"model_options": {"features": (16, 8)}}
    run = Run(
        small_config(
            teacher=str(float_run),
            distill_weight=0.0,
            distill_features=("Dense_0", "Norm_1=Norm_0"),
            distill_feature_weight=3.0,
            **fields,
        )
    )
    state = run.init()
    batch, _ = next(iter(run.feed.batches(0)))
    inputs, labels = run._prepare(None, batch, run.resident)
    options = dict(run.config.model_options, **fields["model_options"])
    student = models.create(run.config.model, 10, **options)
    teacher = models.create(run.config.model, 10, **dict(small_config().model_options))
    read = {"capture_intermediates": True, "mutable": ["intermediates", "batch_stats"]}

    def layers_of(network, params, statistics, train):
        variables = {"params": params, **statistics}
        logits, found = network.apply(variables, inputs, train=train, **read)
        of = lambda name: np.asarray(found["intermediates"][name]["__call__"][0])
        return np.float64(logits), of

    weights = run.method.weights(state.params, 0)
    logits, here = layers_of(student, weights, state.model_state, True)
    there = layers_of(
        teacher,
        *saved_state(float_run, method="full_precision", num_epochs=4),
        False,
    )[1]
    truth = np.asarray(labels["label"])
    hard = -np.log(softmax(logits))[np.arange(len(truth)), truth].mean()
    distances = []
    for one, other in (("Dense_0", "Dense_0"), ("Norm_1", "Norm_0")):
        student_one, teacher_one = here(one), there(other)
        if student_one.shape != teacher_one.shape:
            sides = teacher_one.shape[1], student_one.shape[1]
            teacher_one = teacher_one @ features._projection(*sides)
        distances.append(np.square(unit(student_one) - unit(teacher_one)).mean())
    _, report = run.train_step(state, batch, run.resident)
    expected = hard + 3 * np.mean(distances)
    assert float(report["loss"]) == pytest.approx(expected, rel=1e-3)
    right = (logits.argmax(axis=-1) == truth).mean()
    assert float(report["accuracy"]) == pytest.approx(right)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"distill_features": ("Dense_7",)},
            r"network has no layer 'Dense_7'; it has Dense_0, ",
        ),
        ({"distill_features": ("Dense_0=Dense_7",)}, "the teacher has no layer 'Dens"),
        ({"distill_features": ("Dense_0=",)}, "must name layers as 'Block_1', or as"),
        ({"distill_features": ("Dense_0",), "teacher": ""}, "give config.teacher"),
        ({"distill_features": ("Dense_0",), "flax_api": "nnx"}, "none that can be"),
    ],
)
def test_features_that_are_not_there_are_refused_before_anything_is_written(
    float_run, tmp_path, fields, message
):
    with pytest.raises(errors.RunError, match=message):
        run_once(tmp_path / "run", **{"teacher": str(float_run), **fields})
    assert not (tmp_path / "run").exists()


def test_blocks_of_a_language_model_can_be_watched_unless_they_are_scanned():
    tokens = np.zeros((2, 7), np.uint8)

    def shapes(scan):
        network = models.create("decoder", 11, width=8, depth=2, heads=2, scan=scan)
        forward = features.watched(
            models.functional(network, tokens, flax_api="linen"),
            ["Block_1", "last_norm"],
        )
        params = jax.eval_shape(
            lambda: network.init(jax.random.key(0), tokens, train=False)["params"]
        )
        run = functools.partial(forward, train=True, key=None)
        return jax.eval_shape(run, params, {}, tokens)[0]

    found = shapes("off")
    assert found["logits"].shape == (2, 7, 11)
    assert {name: one.shape for name, one in found["features"].items()} == {
        "Block_1": (2, 7, 8),
        "last_norm": (2, 7, 8),
    }
    with pytest.raises(errors.RunError, match=r"no layer 'Block_1'.*are scanned"):
        shapes("on")


def test_features_of_other_places_are_refused():
    shapes = [
        {"features": {"a": jax.ShapeDtypeStruct(shape, jnp.float32)}}
        for shape in ((2, 8, 8, 4), (2, 4, 4, 4))
    ]
    with pytest.raises(errors.RunError, match=r"\[2, 8, 8, 4\] and \[2, 4, 4, 4\]"):
        features.check(*shapes, features.pairs(["a"]), 1)


@pytest.mark.parametrize(
    ("damage", "fields", "message"),
    [
        (None, {"num_train": 300}, r"num_train: 400 there, 300 here.*needs the same"),
        (None, {"validation": 0.2}, "validation: 0.1 there, 0.2 here"),
        ("result.json", {}, "is not finished"),
        ("config.json", {}, "holds no config.json: give the workdir"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_before_anything_is_written(
    float_run, tmp_path, damage, fields, message
):
    teacher = float_run
    if damage:
        teacher = tmp_path / "teacher"
        shutil.copytree(float_run, teacher)
        (teacher / damage).unlink()
    with pytest.raises(errors.RunError, match=f"config.teacher: .*{message}"):
        run_once(tmp_path / "run", teacher=str(teacher), **fields)
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_the_same_config_that_saw_other_images_is_refused(
    float_run, tmp_path
):
    teacher = tmp_path / "teacher"
    shutil.copytree(float_run, teacher)
    origin = json.loads((teacher / "origin.json").read_text())
    origin["data"]["test"]["digest"] = "another test split does not matter"
    (teacher / "origin.json").write_text(json.dumps(origin))
    assert Run(small_config(teacher=str(teacher))).teacher is not None
    origin["data"]["train"]["digest"] = "another"
    (teacher / "origin.json").write_text(json.dumps(origin))
    with pytest.raises(errors.RunError, match=r"400 examples .* other ones.*same"):
        run_once(tmp_path / "run", teacher=str(teacher))
    assert not (tmp_path / "run").exists()


# The start from another run.


def start(**fields):
    run = Run(small_config(**fields))
    return run.warm_started(run.init())


def test_a_binary_run_starts_from_the_parameters_of_a_float_run(float_run):
    """The tree of the networks is the same, whether they are binary or not."""
    params, statistics = saved_state(float_run, method="full_precision", num_epochs=4)
    state = start(init_from=str(float_run))
    drawn = Run(small_config()).init()
    assert jax.tree.structure(state) == jax.tree.structure(drawn)
    assert_equal((state.params, state.model_state), (params, statistics))
    assert int(state.step) == 0
    assert not np.array_equal(leaves(state.params)[0], leaves(drawn.params)[0])


def test_a_checkpoint_can_be_named(float_run):
    step = max(int(f.name) for f in (float_run / "checkpoints").glob("[0-9]*"))
    whole = start(init_from=str(float_run))
    assert_equal(
        whole.params,
        start(init_from=str(float_run / "checkpoints" / str(step))).params,
    )
    with pytest.raises(errors.RunError, match=rf"no checkpoint of step 7; .*{step}"):
        start(init_from=str(float_run / "checkpoints" / "7"))


@pytest.mark.parametrize(
    ("method", "latents"),
    [
        ("binary_connect", lambda w: w),
        ("adaste_released", lambda w: 10 * np.where(w >= 0, 1, -1)),
        ("bop", lambda w: np.where(w >= 0, 1, -1)),
        ("md_softmax_s", lambda w: np.stack([-w, w], axis=-1)),
    ],
)
def test_latents_are_those_that_the_method_has_for_a_float_weight(
    float_run, method, latents
):
    """Methods that start at random, at signs or at pairs of latents."""
    params, _ = saved_state(float_run, method="full_precision", num_epochs=4)
    state = start(method=method, init_from=str(float_run))
    assert_equal(state.params, jax.tree.map(latents, params))


def test_a_network_of_other_shapes_is_refused_with_its_paths(float_run, tmp_path):
    with pytest.raises(errors.RunError) as caught:
        run_once(
            tmp_path / "run",
            init_from=str(float_run),
            model_options={"features": (16, 8)},
        )
    message = str(caught.value)
    assert message.startswith("config.init_from: ")
    assert "  params/head/kernel: (16, 10) there, (8, 10) here" in message
    assert "  params/Dense_1/kernel: absent there, (16, 8) here" in message
    assert "  batch_stats/BatchNorm" not in message
    assert "batch_stats/Norm_1/mean: absent there, (8,) here" in message
    assert "Dense_0" not in message
    assert not (tmp_path / "run").exists()


def test_trials_of_a_comparison_start_from_it_and_have_the_teacher(float_run):
    """Two seeds as one program, with steps too small to leave the start."""
    config = small_config(
        num_epochs=2,
        validation=0.0,
        num_train=0,
        init_from=str(float_run),
        warmup_epochs=0.5,
    )
    trainer = trials.Trainer(config, "ste", together=2)
    wanted = [trials.Trial(seed, 1e-6) for seed in (1, 2)]
    found = dict(trainer.train(wanted, split="test", advance=lambda epochs: None))
    for outcome in found.values():
        assert outcome["accuracy"] > 0.4  # without a start it is 0.1


# All together.


def test_a_run_with_all_of_it_resumes_with_the_same_bits(
    float_run, tmp_path, monkeypatch
):
    """And needs the run it has started from no more; activations are bfloat16."""
    source = tmp_path / "source"
    shutil.copytree(float_run, source)
    fields = {
        "method": "ste",  # no statistics to take anew
        "num_epochs": 3,
        "warmup_epochs": 1.5,
        "label_smoothing": 0.1,
        "dtype": "bfloat16",
        "init_from": str(source),
        "teacher": str(float_run),
    }
    run_once(tmp_path / "whole", **fields)
    test_loop.break_off(monkeypatch, tmp_path / "broken", at=8, **fields)
    shutil.rmtree(source)
    run_once(tmp_path / "broken", **fields)
    test_loop.assert_bit_identical(
        tmp_path / "whole", tmp_path / "broken", small_config(**fields)
    )
    losses_ = [r["loss"] for r in test_loop.records(tmp_path / "whole", "train")]
    assert losses_[-1] < losses_[0]


def test_float32_is_left_out_of_the_options_of_a_network():
    assert models.options_of(small_config()) == {"features": (16,)}
    options = models.options_of(small_config(dtype="bfloat16"))
    assert options == {"features": (16,), "dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"warmup_epochs": 2.0}, r"warmup_epochs must lie in \[0, num_epochs\), got 2"),
        (
            {"label_smoothing": 1.0},
            r"label_smoothing must be a number in \[0, 1\), got 1.0",
        ),
        (
            {"distill_weight": 1.5},
            r"distill_weight must be a number in \[0, 1\], got 1.5",
        ),
        (
            {"distill_temperature": 0.0},
            "distill_temperature must be a number > 0, got 0.0",
        ),
        ({"dtype": "float16"}, "dtype must be one of float32, bfloat16, got 'float16'"),
        ({"init_from": "/nowhere"}, "config.init_from: /nowhere holds no config.json"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path, fields, message):
    with pytest.raises(errors.RunError, match=message):
        run_once(tmp_path / "run", **fields)
    assert not (tmp_path / "run").exists()
