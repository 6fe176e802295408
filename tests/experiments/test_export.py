"""From a trained network to a file, and from the file to the same predictions."""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console

import adaste_jax
from adaste_jax import export
from experiments import errors, predict
from experiments import export as command
from experiments.configs import base, quickstart
from experiments.deployment import deployed, description
from experiments.runs import checkpoints, identity, workdir
from experiments.training import loop, problem, restore
from experiments.training.run import Run
from tests.experiments import test_loop

NETWORKS = {
    "mlp": {"features": (48, 24)},
    "vgg_small": {"width": 4, "dense": 24},
    "resnet18": {"width": 4},
}


def make_run(model, **changes):
    config = base.get_config()
    config.model = model
    config.model_options.update(NETWORKS[model])
    config.num_epochs = 2
    config.batch_size = 64
    config.method = "ste"
    config.update(changes)
    return Run(config.lock())


def export_state(run, *args, **options):
    return command.export_state(run.problem, run.method, *args, **options)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """The folder of a run, and the one-bit file that is made of it."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    config = base.get_config()
    config.update(num_epochs=1, num_train=200, batch_size=64, method="ste")
    config.model_options.features = (16,)
    with test_loop.undrawn():
        loop.train_and_evaluate(config.lock(), folder)
    out = folder.parent / "m.safetensors"
    command.export_run(folder, out, num_test=5)
    return folder, out.read_bytes()


@pytest.mark.parametrize(
    ("model", "fold"),
    [
        ("mlp", False),
        ("mlp", True),
        pytest.param("vgg_small", True, marks=pytest.mark.slow),
        pytest.param("resnet18", True, marks=pytest.mark.slow),
    ],
)
def test_files_and_programs_predict_what_the_deployed_network_does(
    model, fold, tmp_path
):
    """Every logit of the whole test set; folding and compilation may round."""
    run = make_run(model, method="adaste", reestimate_batches=20)
    out, program = tmp_path / "m.safetensors", tmp_path / "m.stablehlo"
    report = command.export_state(
        run.problem, run.method, run.init(), out, program=program, fold=fold
    )
    assert report["num_test"] == 360
    assert report["paths"]["deployed"]["loss"] < 10  # or the tolerance means nothing
    tolerance = {"file": 1e-4 if fold else 0.0, "program": 1e-4}
    for path, largest in tolerance.items():
        assert report["paths"][path]["largest_difference"] <= largest
        assert report["paths"][path]["other_predictions"] == 0
    stored = export.load(out)
    assert stored.metadata["architecture"]["folded"] == fold
    assert ("batch_stats" in stored.model_state) != fold
    for path in (out, program):
        found = predict.evaluate(path, batch_size=72, num_test=100)
        assert found["count"] == 100
        again = predict.evaluate(path, batch_size=100, num_test=100)
        assert found["accuracy"] == again["accuracy"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workdir with a checkpoint of a few steps, and the state in it."""
    folder = tmp_path_factory.mktemp("run")
    run = make_run("mlp", binary_exclude=("^head/",))
    state = run.init()
    for batch, _ in run.feed.batches(0):
        state, _ = run.train_step(state, batch, run.feed.resident)
    workdir.Workdir(folder, run.config.to_dict())
    store = checkpoints.Checkpoints(folder / "checkpoints")
    store.save(int(state.step), {"state": state, "tally": run.start_tally(state)}, {})
    store.close()
    return folder, run, state


def test_a_checkpoint_becomes_a_file_that_predicts(trained, tmp_path):
    folder, run, state = trained
    report = command.export_run(folder, tmp_path / "m.safetensors")
    loaded = export.load(tmp_path / "m.safetensors")
    weights = adaste_jax.deploy(state.params, where=run.where)
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(weights),
        jax.tree.leaves(loaded.params),
        strict=True,
    ):
        np.testing.assert_array_equal(leaf, other, err_msg=str(path))
    assert not np.array_equal(abs(loaded.params["head"]["kernel"]), np.ones((24, 10)))
    assert loaded.metadata["step"] == int(state.step)
    assert loaded.metadata["config"]["method"] == "ste"
    expected = run.evaluate(state, "test")
    for found in (
        report["paths"]["file"],
        predict.evaluate(tmp_path / "m.safetensors", batch_size=77),
    ):
        assert found["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-9)
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_the_report_counts_bytes(trained, tmp_path):
    folder, _, _ = trained
    out = tmp_path / "m.safetensors"
    report = command.export_run(folder, out, num_test=20)
    rows = {row["name"]: row for row in report["tensors"]}
    assert rows["params/Dense_0/kernel"]["bytes"] == 64 * 48 / 8
    assert rows["params/head/kernel"]["bytes"] == 4 * 24 * 10
    binary = 64 * 48 + 48 * 24
    assert report["packed"] == {
        "float32_bytes": 4 * binary,
        "bytes": binary // 8,
        "ratio": 32.0,
    }
    real = 24 * 10 + 2 * (48 + 24 + 10)
    assert report["file"]["float32_bytes"] == 4 * (binary + real)
    assert report["file"]["bytes"] == out.stat().st_size
    assert report["num_test"] == 20
    console = rich.console.Console(width=100, record=True, quiet=False)
    command.show(report, console)
    text = console.export_text()
    assert "params/Dense_0/kernel" in text
    assert "32.00" in text


@pytest.mark.parametrize("method", ["adaste", "binary_connect_random"])
def test_soft_weights_are_deployed_with_statistics_of_their_own(method, tmp_path):
    """While weights are soft or drawn, what trains is not what is shipped."""
    run = make_run("mlp", method=method, reestimate_batches=3)
    state = run.init()
    report = command.export_state(
        run.problem, run.method, state, tmp_path / "m.safetensors"
    )
    paths = report["paths"]
    assert paths["training"]["largest_difference"] > 0.1
    assert paths["file"]["largest_difference"] == 0
    expected = run.evaluate(state, "test")
    assert paths["file"]["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-9)


@pytest.mark.parametrize("method", ["irnet", "md_softmax", "ternary_absmean"])
def test_what_the_method_ships_is_what_is_stored(method, tmp_path):
    """Scaled signs, signs of latents with an axis more, and ternary weights."""
    run = make_run("mlp", method=method, reestimate_batches=2)
    state = run.init()
    out, program = tmp_path / "m.safetensors", tmp_path / "m.stablehlo"
    report = command.export_state(
        run.problem, run.method, state, out, program=program, fold=True
    )
    for path in ("file", "program"):
        assert report["paths"][path]["largest_difference"] < 1e-4
    stored = export.load(out).params["Dense_1"]["kernel"]
    shipped = run.method.deploy(state.params)["Dense_1"]["kernel"]
    np.testing.assert_array_equal(stored, shipped)
    assert report["packed"]["ratio"] > (19 if method == "ternary_absmean" else 31)


def test_a_resnet_takes_a_twenty_fifth_of_its_float32_checkpoint(tmp_path):
    """At the published width, without running it."""
    run = make_run("resnet18", model_options={"width": 64})
    state = jax.eval_shape(run.init)
    rng = np.random.default_rng(0)
    params, model_state = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(x.dtype),
        (state.params, state.model_state),
    )
    path = tmp_path / "m.safetensors"
    export.save(path, params, where=run.where, model_state=model_state)
    leaves = jax.tree.leaves((params, model_state))
    assert sum(leaf.size for leaf in leaves) > 11e6
    assert sum(leaf.nbytes for leaf in leaves) / path.stat().st_size >= 25


def test_what_cannot_be_exported_is_said(tmp_path):
    with pytest.raises(errors.RunError, match=r"no config\.json"):
        command.export_run(tmp_path, tmp_path / "out")
    run = make_run("mlp", method="full_precision")
    with pytest.raises(errors.RunError, match="no binary weights"):
        export_state(run, None, tmp_path / "out")
    folder = tmp_path / "run"
    workdir.Workdir(folder, make_run("mlp").config.to_dict())
    with pytest.raises(errors.RunError, match="no checkpoint yet"):
        command.export_run(folder, tmp_path / "out")


def test_what_cannot_be_predicted_is_said(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(errors.RunError, match="No such file"):
        predict.load(path)
    path.write_bytes(b"not a file of ours")
    with pytest.raises(errors.RunError, match="cannot read"):
        predict.load(path)
    export.save(path, {"kernel": jnp.ones(3)})
    with pytest.raises(errors.RunError, match="does not describe its network"):
        predict.load(path)


def test_a_damaged_or_foreign_program_is_said(tmp_path):
    path = tmp_path / "m.stablehlo"
    with pytest.raises(errors.RunError, match="No such file"):
        predict.load(path)
    path.write_bytes(bytes(100))
    beside = {"sha256": "0", "jax": "0.99.0", "metadata": {}}
    path.with_name("m.stablehlo.json").write_text(json.dumps(beside))
    with pytest.raises(errors.RunError, match="checksum"):
        predict.load(path)
    beside["sha256"] = hashlib.sha256(bytes(100)).hexdigest()
    path.with_name("m.stablehlo.json").write_text(json.dumps(beside))
    with pytest.raises(errors.RunError, match=r"written by jax 0\.99\.0"):
        predict.load(path)


def test_the_commands_run(trained, tmp_path):
    folder, _, _ = trained
    run = functools.partial(subprocess.run, capture_output=True, text=True, check=False)
    out = str(tmp_path / "m.safetensors")
    module = [sys.executable, "-m", "experiments.export", f"--workdir={folder}"]
    done = run([*module, f"--out={out}", "--fold", "--num_test=20"])
    assert done.returncode == 0, done.stderr
    assert "packed weights" in done.stdout
    module = [sys.executable, "-m", "experiments.predict"]
    done = run([*module, f"--model={out}", "--num_test=20"])
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    done = run([*module, f"--model={tmp_path / 'other'}"])
    assert done.returncode == 1
    assert "error: cannot read" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_damaged_config_and_a_folder_that_cannot_be_are_said(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(errors.RunError, match=r"config\.json: it is not JSON"):
        restore.saved(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.RunError, match=r"cannot write .*model"):
        command._make_folder(tmp_path / "file" / "model.safetensors")


def spoiled(state, value):
    """The state with one number of one leaf changed."""
    kernel = state.params["Dense_1"]["kernel"].at[3, 2].set(value)
    params = state.params | {"Dense_1": {"kernel": kernel}}
    return dataclasses.replace(state, params=params)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_before_a_byte(tmp_path, value):
    run = make_run("mlp")
    out, program = tmp_path / "m.safetensors", tmp_path / "m.stablehlo"
    out.write_bytes(b"the old one")
    state = run.init()
    with pytest.raises(errors.RunError, match=r"not finite .params/Dense_1/kernel"):
        command.export_state(
            run.problem, run.method, spoiled(state, value), out, program=program
        )
    stats = jax.tree.map(lambda leaf: leaf * value, state.model_state)
    with pytest.raises(errors.RunError, match=r"not finite .model_state/batch_stats/"):
        command.export_state(
            run.problem, run.method, dataclasses.replace(state, model_state=stats), out
        )
    assert out.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("what", ["save", "to_stablehlo"])
def test_an_error_of_the_library_names_the_file_and_the_leaf(
    tmp_path, monkeypatch, what
):
    def refuse(*arguments, **options):
        error = ValueError("not finite")
        error.add_note("at the leaf 'params/x'")
        raise error

    monkeypatch.setattr(export, what, refuse)
    run = make_run("mlp")
    out, program = tmp_path / "m.safetensors", tmp_path / "m.stablehlo"
    file = out if what == "save" else program
    with pytest.raises(errors.RunError, match=rf"cannot write {file}: .*'params/x'"):
        command.export_state(
            run.problem, run.method, run.init(), out, program=program, num_test=10
        )


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    run = make_run("mlp")
    out = tmp_path / "m.safetensors"
    out.write_bytes(b"the old one")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.RunError, match="No space left"):
        export_state(run, run.init(), out)
    assert out.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_records_its_own_method_and_no_private_path(tmp_path):
    """As JSON: what `identity.config_of` reads again, and little else."""
    rate = {"ste": {"learning_rate": 0.5}}
    run = make_run(
        "mlp", data_dir="/private/data", cache_dir="/private/cache", methods=rate
    )
    out = tmp_path / "m.safetensors"
    export_state(run, run.init(), out, num_test=10)
    assert b"private" not in out.read_bytes()
    assert b"python" not in out.read_bytes()
    header = export.load(out).header
    config = header["metadata"]["config"]
    assert config["methods"] == rate
    again = identity.config_of(config)
    assert again.methods.ste.learning_rate == run.config.methods.ste.learning_rate
    assert list(again.model_options.features) == [48, 24]
    del header["tensors"]
    assert len(json.dumps(header)) < 2000


def test_the_header_of_a_small_network_is_short(tmp_path):
    """At most 2 kB for that of the quickstart, with the config of its run in it."""
    config = quickstart.get_config()
    run = Run(config.lock())
    out = tmp_path / "m.safetensors"
    export_state(run, run.init(), out, data=False)
    assert int.from_bytes(out.read_bytes()[:8], "little") <= 2048
    found = identity.config_of(export.load(out).metadata["config"])
    assert identity.computed(found) == identity.computed(config)


def test_other_runs_are_recorded_by_name_alone():
    config = base.get_config()
    config.init_from = "/home/someone/runs/float/checkpoints/400"
    config.teacher = "/home/someone/runs/large"
    found = identity.published(config)
    assert found["init_from"] == "float/checkpoints/400"
    assert found["teacher"] == "large"
    assert identity.published(base.get_config())["teacher"] == ""


def test_names_of_classes_travel_in_the_file(tmp_path):
    run = make_run("mlp")
    names = tuple("abcdefghij")

    class Named:
        class_names = names

        def __getattr__(self, name):
            return getattr(run.splits, name)

    found = deployed.describe(run.config, Named(), folded=False)
    assert found["architecture"]["class_names"] == list(names)
    description.check(found)


def test_a_finished_run_is_exported_without_its_data(
    finished_run, monkeypatch, tmp_path
):
    folder, with_data = finished_run

    def missing(config):
        raise errors.RunError("the data set is not here")

    monkeypatch.setattr(problem, "load", missing)
    out = tmp_path / "m.safetensors"
    for data, why in ((True, "is not here"), (False, "were not asked for")):
        report = command.export_run(folder, out, data=data)
        assert out.read_bytes() == with_data
        assert "paths" not in report
        console = rich.console.Console(width=200, record=True, quiet=False)
        command.show(report, console)
        assert why in console.export_text()


def test_a_run_that_recorded_no_problem_is_built_from_its_data(
    finished_run, monkeypatch, tmp_path
):
    """As version 0.1 left it."""
    folder, with_data = finished_run
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    (old / workdir.PROBLEM).unlink()
    command.export_run(old, tmp_path / "m.safetensors", num_test=5)
    found = export.load(tmp_path / "m.safetensors")
    (tmp_path / "expected").write_bytes(with_data)
    expected = export.load(tmp_path / "expected")
    assert found.metadata == expected.metadata
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
    (old / workdir.PROBLEM).write_text("{")
    with pytest.raises(errors.RunError, match=r"problem\.json.*the data are read"):
        command.export_run(old, tmp_path / "m.safetensors")
