"""What an epoch and an evaluation report where numbers are not finite, or unknown."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import errors
from experiments.compare import trials
from experiments.configs import quickstart
from experiments.data import datasets
from experiments.training import tally
from experiments.training.run import Run
from tests.experiments import test_loop


def small(**fields):
    config = quickstart.get_config("smoke")
    config.num_train = 64
    config.batch_size = 16
    config.tensorboard = False
    config.update(fields)
    return config


@pytest.fixture(scope="module")
def run():
    return Run(small())


def counted(*steps):
    """A tally of steps, each with a loss and a share."""
    empty = tally.Tally.start({}, None, ["loss", "share"])
    for number, (loss, share) in enumerate(steps):
        report = {"loss": jnp.float32(loss), "share": jnp.float32(share)}
        empty = tally.add(empty, report, number)
    return empty


def test_means_are_over_the_steps_whose_metrics_are_finite():
    found = counted((1, 0.5), (np.nan, 0.5), (3, np.inf), (2, 0.25))
    assert found.means() == {"loss": 1.5, "share": 0.375}
    assert int(found.first_bad_step) == 1
    assert found.nonfinite_steps(4) == 2
    assert counted((1, 0.5), (2, np.nan)).first_bad_step == 1


def test_shares_are_means_over_the_steps_that_measured_them():
    """A step between repeats what was measured, and after a resumption something else.

    What such a step reports is not looked at.
    """
    names = ["loss", *tally.SHARES]
    whole = tally.Tally.start({}, None, names)
    for step, share in enumerate([0.5, 9, 9, 9, 0.25, 9]):
        report = dict.fromkeys(tally.SHARES, jnp.float32(share))
        report["loss"] = jnp.float32(step)
        whole = tally.add(whole, report, step, 4)
    means = whole.means()
    assert means == {"loss": 2.5, **dict.fromkeys(tally.SHARES, 0.375)}
    scanned = tally.Tally.start({}, None, names)
    shares = dict.fromkeys(tally.SHARES, jnp.array([0.5, 9, 9, 9, 0.25, 9]))
    scanned = tally.add(scanned, {"loss": jnp.arange(6.0), **shares}, 0, 4)
    assert scanned.means() == means


def test_of_no_finite_step_there_is_no_mean():
    found = counted((np.nan, 0.5), (-np.inf, 0.5))
    assert found.means() == {}
    assert found.nonfinite_steps(2) == 2
    assert counted().means() == {}


def test_the_tally_has_the_names_that_the_step_reports(run):
    """Also in full precision, which reports less."""
    for each in (run, Run(small(method="full_precision", label_smoothing=0.1))):
        state = each.init()
        names = set(each.start_tally(state).sums) - {tally.MEASURED}
        batch, _ = next(iter(each.feed.batches(0)))
        _, report = each.train_step(state, batch, each.resident)
        assert names == set(report)


def with_labels(run, change):
    """The run, with other labels in its test split."""
    splits = run.splits
    labels = change(np.array(splits.test.labels))
    test = datasets.Arrays(splits.test.images, labels)
    return Run(run.config, splits=dataclasses.replace(splits, test=test))


def test_examples_without_a_label_are_left_out_of_an_evaluation(run):
    state = run.init()
    size = len(run.splits.test)
    half = with_labels(run, lambda labels: np.where(np.arange(size) % 2, -1, labels))
    kept = run.splits.test
    kept = datasets.Arrays(kept.images[::2], kept.labels[::2])
    fewer = Run(run.config, splits=dataclasses.replace(run.splits, test=kept))
    found, expected = (each.evaluate(state, "test") for each in (half, fewer))
    assert found["accuracy"] == expected["accuracy"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    none = with_labels(run, lambda labels: np.full_like(labels, -1))
    with pytest.raises(errors.RunError, match="no example of the test split"):
        none.evaluate(state, "test")


def poisoned(state):
    """A state whose real parameters and statistics are NaN."""
    nan = lambda leaf: jnp.full_like(leaf, jnp.nan)
    return dataclasses.replace(
        state,
        params=jax.tree.map(nan, state.params),
        model_state=jax.tree.map(nan, state.model_state),
    )


def test_an_evaluation_that_is_not_finite_ends_the_run():
    run = Run(small(method="full_precision"))
    with pytest.raises(errors.RunError, match=r"validation split is nan at step 0"):
        run.evaluate(poisoned(run.init()), "validation")


def test_a_trial_whose_evaluation_is_not_finite_has_failed(monkeypatch):
    """Every loss of training is finite, and the network of the last step is broken."""
    trainer = trials.Trainer(small(num_epochs=1), "full_precision", together=1)
    whole = trainer.run.evaluate
    monkeypatch.setattr(
        trainer.run, "evaluate", lambda state, split: whole(poisoned(state), split)
    )
    [(_, found)] = trainer.train(
        [trials.Trial(0, 0.001)], split="test", advance=lambda epochs: None
    )
    assert set(found) == {"failure"}
    assert "not finite" in found["failure"]


def test_an_epoch_without_a_finite_loss_says_so(tmp_path, monkeypatch):
    """All updates are skipped; what is written is JSON."""

    def broken(compiled):
        def call(state, batch, resident):
            state, report = compiled(state, batch, resident)
            return state, report | {"loss": report["loss"] * np.nan}

        return call

    test_loop.wrap_train_step(monkeypatch, broken)
    path = tmp_path / "run"
    test_loop.run_once(path, num_epochs=1, skip_nonfinite=100)
    lines = (path / "metrics.jsonl").read_text().splitlines()

    def refuse(text):
        raise AssertionError(f"{text} is no JSON")

    records = [json.loads(line, parse_constant=refuse) for line in lines]
    [train] = [record for record in records if record["split"] == "train"]
    assert train["nonfinite_steps"] == 6
    assert not {"loss", "accuracy"} & set(train)
