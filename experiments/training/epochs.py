"""What is measured, written and printed at the end of an epoch and of a run."""

from typing import Any

import rich.console

from adaste_jax import metrics
from experiments import console as consoles
from experiments.report import html
from experiments.runs import records, small_files, workdir
from experiments.training import answers, progress, tally
from experiments.training.run import Run


def values(run: Run, state: Any, epoch_tally: tally.Tally) -> dict[str, Any]:
    """Means of the metrics of an epoch, and values counted over the whole epoch."""
    found: dict[str, Any] = dict(epoch_tally.means())
    nonfinite = epoch_tally.nonfinite_steps(run.problem.steps_per_epoch)
    if nonfinite:
        found["nonfinite_steps"] = nonfinite
    if epoch_tally.signs is not None:
        found["flips_per_epoch"] = metrics.flip_rate_since(
            epoch_tally.signs, state.params, where=run.where
        )
    if run.config.skip_nonfinite:
        found["skipped_updates"] = run.skipped(state)[1]
    return found


def validate(run: Run, state: Any, epoch: int) -> dict[str, float]:
    """Loss and accuracy on validation examples; empty in epochs without evaluation."""
    config = run.config
    due = epoch == config.num_epochs or epoch % config.eval_every_epochs == 0
    if not due or not len(run.splits.validation):
        return {}
    return run.evaluate(state, "validation")


def test(run: Run, state: Any, folder: workdir.Workdir) -> dict[str, float]:
    """Loss and accuracy on test; of images, the answers are written for the report."""
    if run.problem.is_text:
        return run.evaluate(state, "test")
    found, splits = answers.Answers(), run.splits
    values = run.evaluate(state, "test", found)
    if folder.writes:
        record = found.record(
            splits.test,
            num_classes=run.problem.num_classes,
            class_names=splits.class_names,
            max_value=splits.max_value or 255,
            image_size=None if run.config.resident else run.config.image_size or None,
        )
        folder.write(records.ANSWERS, small_files.dumps(record) + "\n")
    return values


def report(
    run: Run,
    log: progress.Log,
    step: int,
    epoch: int,
    values: dict[str, Any],
    found: dict[str, float],
    speed: float | None,
) -> None:
    """Writes the metrics of an epoch, and prints its line."""
    log.write(step, epoch, "train", values)
    parts = [f"epoch {epoch}/{run.config.num_epochs}"]
    loss = values.get("loss")
    parts.append("no finite loss" if loss is None else f"loss {loss:.4f}")
    if "accuracy" in values:
        parts.append(f"train {100 * values['accuracy']:.2f} %")
    if found:
        log.write(step, epoch, "validation", found)
    if "accuracy" in found:
        parts.append(f"val {100 * found['accuracy']:.2f} %")
    if "flips_per_epoch" in values:
        parts.append(f"flips {100 * values['flips_per_epoch']:.1f} %")
    if values.get("skipped_updates"):
        parts.append(f"skipped {values['skipped_updates']}")
    if speed is not None:
        log.write(step, epoch, "timing", {"steps_per_second": speed})
        parts.append(f"{speed:.{0 if speed >= 10 else 1}f} steps/s")
    log.line(parts)


def write_page(
    folder: workdir.Workdir, result: dict[str, Any], console: rich.console.Console
) -> None:
    """Writes `report.html`. An error there does not end the run."""
    if not folder.writes:
        return
    try:
        text = html.page([records.read(folder.path, result=result)])
        folder.write("report.html", text)
    except Exception as error:
        consoles.say(
            console,
            f"could not write report.html: {error!r}. The run is complete; `python -m "
            "experiments.report` writes the page again.",
        )
