"""The training loop on the digits: what it leaves, how it resumes, what it refuses."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import rich.console

from experiments import console as consoles
from experiments import errors
from experiments.compare import tables
from experiments.configs import quickstart
from experiments.report import plots
from experiments.runs import checkpoints
from experiments.training import epochs, loop
from experiments.training.run import Run

ROOT = pathlib.Path(__file__).parents[2]
QUIET = rich.console.Console(quiet=True)


def printing(file):
    """A console that prints into a file, in long lines."""
    return consoles.create(file=file, width=300)


def small_config(**fields):
    """Seconds of training; every test changes what it is about."""
    config = quickstart.get_config("smoke")
    config.model_options.features = (16,)
    config.num_train = 400
    config.reestimate_batches = 2
    config.tensorboard = False
    config.update(fields)
    config.lock()
    return config


@contextlib.contextmanager
def undrawn():
    """Runs end without pictures, which take longer than a small run itself.

    What they draw: `test_report.py`, and the first tests here and of `test_compare.py`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "draw_all", lambda folder, records, latents: None)
        patch.setattr(tables, "draw", lambda path, rows, baseline: None)
        patch.setattr(epochs, "write_page", lambda folder, result, console: None)
        yield


def run_once(path, *, drawn=False, **fields):
    with contextlib.nullcontext() if drawn else undrawn():
        return loop.train_and_evaluate(small_config(**fields), path, console=QUIET)


def records(path, split=None):
    lines = (pathlib.Path(path) / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [
        r for r in found if (r["split"] == split if split else r["split"] != "timing")
    ]


def layer_lines(path):
    return (pathlib.Path(path) / "layers.jsonl").read_text().splitlines()


def final_state(path, config):
    """What the last checkpoint of a workdir holds, as NumPy arrays."""
    run = Run(config)
    state = run.init()
    store = checkpoints.Checkpoints(pathlib.Path(path) / "checkpoints")
    arrays, _, _ = store.restore({"state": state, "tally": run.start_tally(state)})
    store.close()
    found = arrays["state"]
    key = jax.random.key_data(found.key)
    return jax.device_get(dataclasses.replace(found, key=key))


def assert_bit_identical(first, second, config):
    states = [final_state(path, config) for path in (first, second)]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()
    assert records(first) == records(second)
    assert layer_lines(first) == layer_lines(second)
    results = [
        json.loads((pathlib.Path(p) / "result.json").read_text())
        for p in (first, second)
    ]
    for result in results:
        del result["steps_per_second"]
    assert results[0] == results[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A workdir of a whole run of four epochs."""
    path = tmp_path_factory.mktemp("finished") / "run"
    run_once(path, num_epochs=4, drawn=True)
    return path


def test_a_run_leaves_what_the_readme_says(finished):
    result = json.loads((finished / "result.json").read_text())
    assert 0.2 < result["test_accuracy"] <= 1  # by chance it is 0.1
    assert result["epochs"] == 4
    assert result["one_bit_parameters"] == 64 * 16 + 16 * 10
    assert result["real_parameters"] == 0
    assert result["steps_per_second"] > 0
    assert [r["epoch"] for r in records(finished, "train")] == [1, 2, 3, 4]
    assert [r["step"] for r in records(finished, "validation")] == [6, 12, 18, 24]
    last = records(finished, "train")[-1]
    assert {"loss", "accuracy", "mu", "flip_rate", "saturated", "zero_gradient"} <= set(
        last
    )
    assert 0.9 < last["saturated"] <= 1.0  # binary before the epoch was over
    test = records(finished, "test")
    assert len(test) == 1
    assert test[0]["accuracy"] == result["test_accuracy"]
    lines = [json.loads(line) for line in layer_lines(finished)]
    names = ["Dense_0/kernel", "head/kernel"]
    assert [(r["epoch"], r["layer"]) for r in lines] == [
        (epoch, name) for epoch in range(5) for name in names
    ]
    plots = {file.name for file in (finished / "plots").iterdir()}
    assert plots == {"curves.png", "flips.png", "latents.png"}
    assert "kernel" in (finished / "summary.txt").read_text()
    assert json.loads((finished / "config.json").read_text())["num_epochs"] == 4


def test_a_finished_run_is_left_as_it_is(finished):
    before = {f: f.stat().st_mtime_ns for f in finished.rglob("*") if f.is_file()}
    assert run_once(finished, num_epochs=4)["epochs"] == 4
    assert before == {
        f: f.stat().st_mtime_ns for f in finished.rglob("*") if f.is_file()
    }


class InterruptionError(Exception):
    """Stands for a kill between two steps."""


def wrap_train_step(patch, wrap):
    """Puts `wrap(compiled step)` in the place of the compiled step."""
    compiled = Run.train_step.func
    wrapped = functools.cached_property(lambda run: wrap(compiled(run)))
    wrapped.__set_name__(Run, "train_step")
    patch.setattr(Run, "train_step", wrapped)


def break_off(monkeypatch, path, *, at, **fields):
    """Starts a run and stops it before the call that begins at step `at` or later."""

    def interrupted(compiled):
        def call(state, batch, resident):
            if int(state.step) >= at:
                raise InterruptionError
            return compiled(state, batch, resident)

        return call

    with monkeypatch.context() as patch:
        wrap_train_step(patch, interrupted)
        with pytest.raises(InterruptionError):
            run_once(path, **fields)


@pytest.mark.parametrize(
    "feeding",
    [
        {"steps_per_call": 1},
        {"steps_per_call": 4},
        {"resident": False},
        {"resident": False, "steps_per_call": 4},
    ],
    ids=str,
)
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, monkeypatch, whole, feeding):
    """Interrupted in the middle of the third epoch, between two checkpoints."""
    fields = {"num_epochs": 4, **feeding}
    break_off(monkeypatch, tmp_path / "broken", at=15, **fields)
    assert not (tmp_path / "broken" / "result.json").exists()
    assert len(records(tmp_path / "broken", "train")) == 2
    run_once(tmp_path / "broken", **fields)
    assert_bit_identical(whole(**feeding), tmp_path / "broken", small_config(**fields))


def test_a_run_killed_before_its_first_checkpoint_begins_anew(
    tmp_path, monkeypatch, finished
):
    def interrupted(compiled):
        def call(state, batch, resident):
            if int(state.step) >= 2:
                raise InterruptionError
            return compiled(state, batch, resident)

        return call

    with monkeypatch.context() as patch:
        wrap_train_step(patch, interrupted)
        with pytest.raises(InterruptionError):
            run_once(tmp_path / "broken", num_epochs=4)
    assert {json.loads(line)["epoch"] for line in layer_lines(tmp_path / "broken")} == {
        0
    }
    run_once(tmp_path / "broken", num_epochs=4)
    assert_bit_identical(finished, tmp_path / "broken", small_config(num_epochs=4))


@pytest.mark.slow
def test_sigkill_in_the_middle_of_the_quickstart_loses_nothing(tmp_path):
    """The program, killed while it trains and started again; a run without it here."""
    broken = tmp_path / "broken"
    config = quickstart.get_config()
    config.num_epochs = 8
    with undrawn():
        loop.train_and_evaluate(config, tmp_path / "whole", console=QUIET)

    def start():
        command = [
            *(sys.executable, "-m", "experiments.main", f"--workdir={broken}"),
            "--config=experiments/configs/quickstart.py",
            "--config.num_epochs=8",
        ]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)

    process = start()
    deadline = time.monotonic() + 300
    while not list(broken.glob("checkpoints/[0-9]*")):
        assert time.monotonic() < deadline
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert not (broken / "result.json").exists()
    assert start().wait(300) == 0
    assert_bit_identical(tmp_path / "whole", broken, config)


@pytest.mark.parametrize(
    "method",
    # What differs in the step; that every method takes one: test_compare.py.
    ["full_precision", "ste", "adaste_released", "bayesbinn", "bop", "md_softmax_s"],
)
def test_methods_train(tmp_path, method):
    result = run_once(tmp_path / "run", method=method, num_epochs=1)
    assert np.isfinite(result["test_loss"])
    assert (result["one_bit_parameters"] == 0) == (method == "full_precision")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "adastee"}, "no method 'adastee'.*adaste, "),
        ({"model": "mpl"}, "no network 'mpl'.*mlp"),
        ({"augment": "blur"}, "no augmentation 'blur'"),
        ({"num_epochs": 0}, "num_epochs must be a whole number >= 1, got 0"),
        ({"validation": 1.5}, "validation"),
        ({"batch_size": 66}, "multiple of the 8 devices"),
        ({"batch_size": 4000}, "only 400 training examples"),
        ({"num_train": 4000}, "num_train is 4000"),
        (
            {"binary_exclude": ("^Dense_7/",)},
            "binary_exclude: .*Dense_7/.*Dense_0/kernel",
        ),
        ({"methods": {"adaste": {"alpha": 1.5}}}, "`alpha` must be in"),
        (
            {"methods": {"adaste": {"mu_init": -1.0}}},
            "`mu_init` must be greater than 0",
        ),
        (
            {"methods": {"adaste": {"learning_rate": 0.0}}},
            "`learning_rate` must be greater than 0",
        ),
    ],
)
def test_a_config_that_cannot_be_run_is_refused_before_anything_is_written(
    tmp_path, fields, message
):
    with pytest.raises(errors.RunError, match=message):
        run_once(tmp_path / "run", **fields)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_its_checkpoint(
    tmp_path, monkeypatch
):
    """Here it is at step 9."""

    def poisoned(compiled):
        def call(state, batch, resident):
            step = int(state.step)
            state, report = compiled(state, batch, resident)
            return state, report | (
                {"loss": report["loss"] * np.nan} if step == 9 else {}
            )

        return call

    wrap_train_step(monkeypatch, poisoned)
    with pytest.raises(errors.RunError, match=r"not finite at step 9.*step 6;"):
        run_once(tmp_path / "run", num_epochs=4)
    assert not (tmp_path / "run" / "result.json").exists()
    assert (tmp_path / "run" / "checkpoints" / "6").is_dir()


def command(*arguments):
    return [sys.executable, "-m", "experiments.main", *arguments]


def main(*arguments):
    env = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, env=env
    )


def test_the_program_names_an_unknown_field_and_the_error_of_a_run(tmp_path):
    found = main(f"--workdir={tmp_path}/run", "--config.num_epoch=3")
    assert found.returncode != 0
    assert "num_epoch" in found.stderr
    found = main(f"--workdir={tmp_path}/run", "--config.dataset=nothing_like_this")
    assert found.returncode == 1
    assert "nothing_like_this" in found.stdout
    assert "Traceback" not in found.stdout + found.stderr


def test_a_logger_gets_what_the_files_of_the_run_hold(tmp_path):
    seen = []
    loop.train_and_evaluate(
        small_config(num_epochs=2),
        tmp_path / "run",
        console=QUIET,
        on_metrics=lambda step, values: seen.append((step, values)),
    )
    given = {(step, name): value for step, one in seen for name, value in one.items()}
    written = {
        (line["step"], f"{line['split']}/{name}"): value
        for line in lines_of(tmp_path / "run", "metrics.jsonl")
        for name, value in line.items()
        if name not in ("step", "epoch", "split")
    }
    for line in lines_of(tmp_path / "run", "layers.jsonl"):
        for name in ("flips_per_epoch", "saturated", "rms"):
            if name in line:
                written[line["step"], f"{name}/{line['layer']}"] = line[name]
    assert given == written
    assert {name for _, name in given} >= {"train/loss", "test/accuracy"}
    assert [step for step, _ in seen] == sorted(step for step, _ in seen)


def test_a_logger_that_fails_ends_a_run_that_can_be_resumed(tmp_path):
    def broken(step, values):
        raise ConnectionError("the logger is gone")

    with pytest.raises(ConnectionError):
        loop.train_and_evaluate(
            small_config(num_epochs=2),
            tmp_path / "run",
            console=QUIET,
            on_metrics=broken,
        )
    run_once(tmp_path / "whole", num_epochs=2)
    run_once(tmp_path / "run", num_epochs=2)
    assert records(tmp_path / "run") == records(tmp_path / "whole")


def lines_of(path, name):
    return [json.loads(line) for line in (path / name).read_text().splitlines()]
