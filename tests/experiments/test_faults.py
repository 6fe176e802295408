"""What stops a run, where it stands then, and that it goes on with the same bits."""

import dataclasses
import io
import os
import re
import signal
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import errors
from experiments.data import datasets
from experiments.runs import kept, stopping, workdir
from experiments.training import loop, problem, progress
from experiments.training.problem import Problem
from experiments.training.run import Run
from tests.experiments import disks, test_loop

# Orbax's threads print what they raise, and its tasks are dropped when one has failed.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::pytest.{name}")
    for name in (
        "PytestUnhandledThreadExceptionWarning",
        "PytestUnraisableExceptionWarning",
    )
]


def signal_at(patch, step, number=signal.SIGTERM):
    """Sends this process a signal while it takes that step, or a call that holds it."""

    def wrap(compiled):
        def call(state, batch, resident):
            before = int(state.step)
            state, report = compiled(state, batch, resident)
            if before <= step < int(state.step):
                os.kill(os.getpid(), number)
            return state, report

        return call

    test_loop.wrap_train_step(patch, wrap)


@pytest.mark.parametrize(
    ("feeding", "number", "step", "saved"),
    [
        ({}, signal.SIGTERM, 8, 9),  # in the middle of the second epoch
        ({}, signal.SIGINT, 11, 12),  # its last step
        ({"steps_per_call": 4}, signal.SIGTERM, 13, 15),  # inside a scan of three
        ({"resident": False}, signal.SIGTERM, 2, 3),  # before the first checkpoint
    ],
    ids=str,
)
def test_a_signal_stops_and_saves_between_steps_and_no_bit_is_lost(
    tmp_path, monkeypatch, whole, feeding, number, step, saved
):
    fields = {"num_epochs": 4, **feeding}
    path = tmp_path / "run"
    message = f"stopped by {number.name} at step {saved} of 24"
    with monkeypatch.context() as patch:
        signal_at(patch, step, number)
        with pytest.raises(errors.StoppedError, match=message):
            test_loop.run_once(path, **fields)
    assert (path / "checkpoints" / str(saved)).is_dir()
    assert not (path / "result.json").exists()
    test_loop.run_once(path, **fields)
    config = test_loop.small_config(**fields)
    test_loop.assert_bit_identical(whole(**feeding), path, config)


def test_handlers_are_given_back_and_an_impatient_ctrl_c_ends_at_once(monkeypatch):
    former = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with stopping.Stopping() as stop:
        assert not stop.reached(0)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.reached(1)
        os.kill(os.getpid(), signal.SIGINT)  # twice from a terminal and a launcher
        os.kill(os.getpid(), signal.SIGTERM)
        now = 102.0
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert former == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def test_checkpoints_within_an_epoch_change_no_bit(tmp_path, monkeypatch, whole):
    path = tmp_path / "run"
    fields = {"num_epochs": 4, "checkpoint_every_steps": 4, "keep_checkpoints": 3}
    test_loop.break_off(monkeypatch, path, at=10, **fields)
    found = {file.name for file in (path / "checkpoints").iterdir()}
    assert {"4", "6", "8"} <= found
    test_loop.run_once(path, **fields)
    assert test_loop.records(path) == test_loop.records(whole())


def poison(patch, chosen):
    """Images become NaN in every batch that holds one of these."""
    plain = Problem.prepare

    def prepare(self, key, batch, resident, *, kind):
        inputs, labels = plain(self, key, batch, resident, kind=kind)
        bad = jnp.any(jnp.isin(batch["index"], jnp.asarray(chosen)))
        if "mask" in batch:  # evaluation
            bad = jnp.zeros((), bool)
        return jnp.where(bad, jnp.nan, inputs), labels

    patch.setattr(Problem, "prepare", prepare)


def poisoned_steps(config, chosen):
    """At which steps such batches come, from the order of the data alone."""
    feed = Run(config).feed
    steps = []
    for epoch in range(config.num_epochs):
        batches = feed.batches(epoch * feed.steps_per_epoch)
        for number, (batch, _) in enumerate(batches):
            if set(batch["index"].tolist()) & set(chosen):
                steps.append(epoch * feed.steps_per_epoch + number)
    return steps


def test_a_loss_that_is_not_finite_names_step_batch_and_checkpoint(
    tmp_path, monkeypatch
):
    steps = poisoned_steps(test_loop.small_config(), [7])
    epoch, batch = divmod(steps[0], 6)
    poison(monkeypatch, [7])
    expected = (
        f"the loss is not finite at step {steps[0]} "
        f"(epoch {epoch + 1}, batch {batch} of it, from 0)."
    )
    with pytest.raises(errors.RunError, match=re.escape(expected)):
        test_loop.run_once(tmp_path / "run")


def test_updates_that_are_not_finite_are_skipped_and_counted(tmp_path, monkeypatch):
    steps = poisoned_steps(test_loop.small_config(), [7])
    assert steps
    poison(monkeypatch, [7])
    result = test_loop.run_once(
        tmp_path / "run", skip_nonfinite=1, reestimate_batches=0
    )
    assert np.isfinite(result["test_loss"])
    assert result["test_accuracy"] > 0.2
    train = test_loop.records(tmp_path / "run", "train")
    assert train[-1]["skipped_updates"] == len(steps)
    assert all(np.isfinite(record["loss"]) for record in train)


def test_too_many_in_a_row_stop_the_run_at_the_first_of_them(tmp_path, monkeypatch):
    poison(monkeypatch, range(400))
    expected = r"more than 2 updates in a row: the update is not finite at step 0 "
    with pytest.raises(errors.RunError, match=expected):
        test_loop.run_once(tmp_path / "run", skip_nonfinite=2)


def test_skipping_changes_nothing_where_all_is_finite(tmp_path, whole):
    """To rounding: it is another program."""
    test_loop.run_once(tmp_path / "run", num_epochs=4, skip_nonfinite=3)
    found = test_loop.records(tmp_path / "run", "train")
    assert [record["skipped_updates"] for record in found] == [0, 0, 0, 0]
    expected = test_loop.records(whole(), "train")
    assert found[0]["loss"] == pytest.approx(expected[0]["loss"], rel=1e-4)


def test_a_run_on_a_full_disk_stops_and_goes_on_when_there_is_space(tmp_path, whole):
    with disks.small(tmp_path / "disk", "80k") as disk:
        with pytest.raises(errors.RunError, match="same command"):
            test_loop.run_once(disk / "run", num_epochs=4)
        assert not (disk / "run" / "result.json").exists()
        disks.enlarge(disk, "20m")
        test_loop.run_once(disk / "run", num_epochs=4)
        config = test_loop.small_config(num_epochs=4)
        test_loop.assert_bit_identical(whole(), disk / "run", config)


def test_a_damaged_latest_checkpoint_costs_an_epoch_and_no_bit(
    tmp_path, monkeypatch, whole
):
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        signal_at(patch, 17)
        with pytest.raises(errors.StoppedError):
            test_loop.run_once(path, num_epochs=4)
    (largest,) = sorted(
        (f for f in (path / "checkpoints" / "18").rglob("*") if f.is_file()),
        key=lambda file: file.stat().st_size,
    )[-1:]
    damaged = bytearray(largest.read_bytes())
    damaged[len(damaged) // 2] ^= 16
    largest.write_bytes(damaged)
    test_loop.run_once(path, num_epochs=4)
    assert (path / "damaged_checkpoints" / "18").is_dir()
    config = test_loop.small_config(num_epochs=4)
    test_loop.assert_bit_identical(whole(), path, config)


def spoil_update(patch, step):
    """The update of that step gives NaN, its loss does not show it."""

    def wrap(compiled):
        def call(state, batch, resident):
            before = int(state.step)
            state, report = compiled(state, batch, resident)
            if before == step:
                state = dataclasses.replace(
                    state, params=jax.tree.map(lambda leaf: leaf / 0, state.params)
                )
            return state, report

        return call

    test_loop.wrap_train_step(patch, wrap)


@pytest.mark.parametrize("step", [17, 23], ids=["end of an epoch", "last of all"])
def test_a_state_that_is_not_finite_is_never_saved_and_the_run_can_go_back(
    tmp_path, monkeypatch, whole, step
):
    path = tmp_path / "run"
    expected = rf"state of step {step + 1} .*params/Dense_0/kernel.*step {step - 5};"
    with monkeypatch.context() as patch:
        spoil_update(patch, step)
        with pytest.raises(errors.RunError, match=expected):
            test_loop.run_once(path, num_epochs=4)
    assert not (path / "result.json").exists()
    test_loop.run_once(path, num_epochs=4)
    config = test_loop.small_config(num_epochs=4)
    test_loop.assert_bit_identical(whole(), path, config)


def test_a_checkpoint_that_an_older_version_saved_with_nan_is_passed_over(
    tmp_path, monkeypatch, whole
):
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(kept, "nonfinite", lambda arrays: "")
        spoil_update(patch, 11)
        with pytest.raises(errors.RunError, match="loss is not finite at step 12"):
            test_loop.run_once(path, num_epochs=4)
    log = io.StringIO()
    config = test_loop.small_config(num_epochs=4)
    loop.train_and_evaluate(config, path, console=test_loop.printing(log))
    assert "checkpoint 12 cannot be read and was moved" in log.getvalue()
    assert "not finite" in log.getvalue()
    test_loop.assert_bit_identical(whole(), path, config)


@pytest.mark.parametrize(
    ("split", "count", "saved"),
    [("validation", 2, 12), ("test", 1, 24)],
    ids=["of an epoch", "of the test"],
)
def test_a_signal_during_an_evaluation_ends_it_and_no_bit_is_lost(
    tmp_path, monkeypatch, whole, split, count, saved
):
    path = tmp_path / "run"
    plain, calls = Run.evaluate, []

    def evaluate(self, state, name, *images):
        if name == split:
            calls.append(name)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("the evaluation goes on")
        return plain(self, state, name, *images)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "evaluate", evaluate)
        with pytest.raises(errors.StoppedError, match=f"SIGTERM at step {saved} of 24"):
            test_loop.run_once(path, num_epochs=4)
    assert (path / "checkpoints" / str(saved)).is_dir()
    test_loop.run_once(path, num_epochs=4)
    config = test_loop.small_config(num_epochs=4)
    test_loop.assert_bit_identical(whole(), path, config)


def test_a_kill_between_save_and_report_loses_no_line(tmp_path, monkeypatch, whole):
    path = tmp_path / "run"
    plain, calls = progress.Log.write_layers, []

    def write_layers(self, records):
        calls.append(records)
        if len(calls) == 3:  # of the start and of epoch 1 they are written
            raise KeyboardInterrupt
        plain(self, records)

    with monkeypatch.context() as patch:
        patch.setattr(progress.Log, "write_layers", write_layers)
        with pytest.raises(KeyboardInterrupt):
            test_loop.run_once(path, num_epochs=4)
    assert [record["step"] for record in test_loop.records(path, "train")] == [6, 12]
    test_loop.run_once(path, num_epochs=4)
    config = test_loop.small_config(num_epochs=4)
    test_loop.assert_bit_identical(whole(), path, config)


def test_a_signal_while_the_data_are_read_stops_at_once(tmp_path, monkeypatch):
    def load(config):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it goes on reading")

    monkeypatch.setattr(problem, "load", load)
    with pytest.raises(errors.StoppedError, match="SIGTERM before training began"):
        test_loop.run_once(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_without_a_finite_test_loss_has_no_result(tmp_path, monkeypatch):
    plain = Run.evaluate

    def evaluate(self, state, split, *images):
        if split == "test":
            state = dataclasses.replace(
                state,
                model_state=jax.tree.map(lambda leaf: leaf / 0, state.model_state),
            )
        return plain(self, state, split, *images)

    monkeypatch.setattr(Run, "evaluate", evaluate)
    with pytest.raises(errors.RunError, match="the loss on the test split is nan"):
        test_loop.run_once(tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_run_does_not_go_on_with_other_data(tmp_path, monkeypatch):
    path = tmp_path / "run"
    test_loop.break_off(monkeypatch, path, at=10, num_epochs=4)
    plain = problem.load

    def load(config):
        splits = plain(config)
        images = splits.train.images.copy()
        images[3, 2, 2] ^= 1
        train = datasets.Arrays(images, splits.train.labels)
        return dataclasses.replace(splits, train=train)

    with monkeypatch.context() as patch:
        patch.setattr(problem, "load", load)
        with pytest.raises(errors.RunError, match="400 examples then and now, but"):
            test_loop.run_once(path, num_epochs=4)
    test_loop.run_once(path, num_epochs=4)


def test_init_from_an_unfinished_run_is_the_same_after_a_restart(tmp_path, monkeypatch):
    source = tmp_path / "source"
    fields = {"num_epochs": 4, "keep_checkpoints": 2, "init_from": str(source)}
    test_loop.break_off(monkeypatch, source, at=7, num_epochs=4)
    test_loop.run_once(tmp_path / "at once", **fields)
    test_loop.break_off(monkeypatch, tmp_path / "run", at=3, **fields)
    test_loop.break_off(monkeypatch, source, at=13, num_epochs=4)
    test_loop.run_once(tmp_path / "run", **fields)
    config = test_loop.small_config(**fields)
    test_loop.assert_bit_identical(tmp_path / "at once", tmp_path / "run", config)
    origin = workdir.origin(tmp_path / "run")
    assert origin["init_from"]["step"] == 6

    test_loop.break_off(monkeypatch, tmp_path / "late", at=3, **fields)
    test_loop.run_once(source, num_epochs=4)
    with pytest.raises(errors.RunError, match=r"init_from: .*no checkpoint of step 12"):
        test_loop.run_once(tmp_path / "late", **fields)


@pytest.mark.slow
def test_the_program_exits_with_75_on_sigterm_and_refuses_a_second_beside_it(tmp_path):
    arguments = [f"--workdir={tmp_path}/run", "--config.num_epochs=2000"]
    command = test_loop.command(*arguments)
    with subprocess.Popen(
        command, cwd=test_loop.ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 300
        while not list((tmp_path / "run").glob("checkpoints/[0-9]*")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        second = test_loop.main(*arguments)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    assert second.returncode == 1
    assert f"process {process.pid} " in second.stdout
    assert process.returncode == 75
    assert "the same command continues" in output.replace("\n", " ")
