"""The one training loop: trains, evaluates, saves and resumes."""

import json
import os
import pathlib
import platform
from importlib import metadata
from typing import Any, NoReturn

import jax
import ml_collections
import rich.console

import adaste_jax
from adaste_jax import metrics
from experiments import (
    checkpoints,
    errors,
    layers,
    plots,
    processes,
    progress,
    records,
    report,
    stopping,
    tally,
    workdir,
)
from experiments.run import Run


def train_and_evaluate(
    config: ml_collections.ConfigDict,
    workdir_path: str | os.PathLike[str],
    *,
    console: rich.console.Console | None = None,
) -> dict[str, Any]:
    """Trains the network of a config, or resumes what stands in the workdir.

    A resumed run ends with the same bits as one that was never interrupted.

    Args:
        config: As `configs/base.py`.
        workdir_path: The folder of the run; see `Workdir`.
        console: Where progress is shown. Default: standard output.

    Returns:
        What `result.json` holds.

    Raises:
        RunError: If the run cannot start or go on; the message says why.
        StoppedError: If it was stopped by SIGTERM or SIGINT, and has been saved.
    """
    console = console or progress.console()
    if not processes.is_primary():
        console = rich.console.Console(quiet=True)
    with stopping.Stopping() as stop:
        run = Run(config)
        state = run.init()
        if not checkpoints.exist(
            pathlib.Path(workdir_path).expanduser() / workdir.CHECKPOINTS
        ):
            state = run.warm_started(state)
        _ = run.teacher  # or an error, before anything is written
        with _open_workdir(workdir_path, config) as folder:
            finished = folder.result()
            if finished is not None:
                console.print(f"{folder.path} holds a finished run; nothing to do.")
                return finished
            return _train_and_test(run, state, folder, stop, console)


def _open_workdir(
    path: str | os.PathLike[str], config: ml_collections.ConfigDict
) -> workdir.Workdir:
    """The workdir of this process; process 0 writes.

    Raises:
        RunError: In all processes, if process 0 cannot have it.
    """
    folder, failure = None, None
    try:
        folder = workdir.Workdir(path, config.to_dict(), writes=processes.is_primary())
    except errors.RunError as error:
        failure = error
    processes.agree(failure)
    assert folder is not None
    return folder


def _train_and_test(
    run: Run,
    state: Any,
    folder: workdir.Workdir,
    stop: stopping.Stopping,
    console: rich.console.Console,
) -> dict[str, Any]:
    config = run.config
    table = run.summary(state)
    folder.write("summary.txt", f"{table}\n")
    folder.write("summary.json", json.dumps(table.as_dict(), indent=2) + "\n")
    with checkpoints.Checkpoints(
        folder.path / workdir.CHECKPOINTS, keep=config.keep_checkpoints
    ) as store:
        state, clock = _train(run, state, folder, store, stop, console)
    test = run.evaluate(state, "test")
    step = int(state.step)
    folder.append({"step": step, "epoch": config.num_epochs, "split": "test", **test})
    if folder.writes:
        with folder.writing():
            plots.draw_all(folder.path / "plots", folder.records(), run.latents(state))
    result = {
        **{f"test_{name}": value for name, value in test.items()},
        "epochs": config.num_epochs,
        "seed": config.seed,
        "steps": step,
        "steps_per_second": clock.steps_per_second,
        "one_bit_parameters": table.one_bit_parameters,
        "real_parameters": table.real_parameters,
        "method": config.method,
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "num_processes": jax.process_count(),
        "versions": _versions(),
    }
    _write_report(folder, result, console)
    folder.finish(result)
    return result


def _versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    own = {"python": platform.python_version(), "adaste_jax": adaste_jax.__version__}
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return own | {name: metadata.version(name) for name in packages}


def _write_report(
    folder: workdir.Workdir, result: dict[str, Any], console: rich.console.Console
) -> None:
    """Writes `report.html`. What goes wrong there is no reason to lose the run."""
    if not folder.writes:
        return
    try:
        text = report.page([records.read(folder.path, result=result)])
        folder.write("report.html", text)
    except Exception as error:
        console.print(
            f"could not write report.html: {error!r}. The run is whole; "
            "`python -m experiments.report` writes it anew.",
            highlight=False,
            markup=False,
        )


def _train(
    run: Run,
    state: Any,
    folder: workdir.Workdir,
    store: checkpoints.Checkpoints,
    stop: stopping.Stopping,
    console: rich.console.Console,
) -> tuple[Any, progress.Clock]:
    """Takes the state, or the checkpoint there is, to the last step."""
    config, feed = run.config, run.feed
    epoch_tally = run.start_tally(state)
    clock = progress.Clock()
    watch = layers.Watch(run)
    restored = store.restore({"state": state, "tally": epoch_tally})
    if restored is not None:
        arrays, record, messages = restored
        state, epoch_tally = arrays["state"], arrays["tally"]
        feed.seek(record["position"])
        clock = progress.Clock(record["clock"])
        for message in [*messages, f"resuming at step {int(state.step)}"]:
            console.print(message, highlight=False, soft_wrap=True)
    step = int(state.step)
    folder.rewind(step if restored is not None else -1)
    log = progress.Log(
        folder,
        console,
        step=step,
        num_steps=run.num_steps,
        tensorboard=config.tensorboard and folder.writes,
    )

    def save(accuracy: float | None = None) -> None:
        _refuse_bad_loss(run, state, epoch_tally, step, store)
        store.save(
            step,
            {"state": state, "tally": epoch_tally},
            {"position": feed.position(), "clock": clock.record},
            accuracy=accuracy,
        )

    with log:
        if restored is None:
            log.write_layers(watch.records(state, 0, epoch_tally.signs))
        while step < run.num_steps:
            epoch = step // feed.steps_per_epoch
            stopped = False
            for calls, (batch, taken) in enumerate(feed.batches(step)):
                state, reported = run.train_step(state, batch, run.resident)
                epoch_tally = tally.add(epoch_tally, reported, step)
                step += taken
                if not clock.running:
                    jax.block_until_ready(epoch_tally)  # the first call compiles
                    clock.start(step)
                if _time_to_look(log, calls):
                    _refuse_bad_loss(run, state, epoch_tally, step, store)
                    log.show(step, epoch_tally.means())
                stopped = stop.reached(step)
                if step % feed.steps_per_epoch == 0:
                    break  # the end of the epoch saves
                if stopped or _crosses(step, taken, config.checkpoint_every_steps):
                    clock.stop(step)
                    save()
                if stopped:
                    _stop(step, run, stop, store)
            _refuse_bad_loss(run, state, epoch_tally, step, store)
            speed = clock.stop(step)
            log.show(step, epoch_tally.means())
            values = _epoch_values(run, state, epoch_tally)
            accuracy = _report_epoch(run, state, log, step, epoch + 1, values, speed)
            log.write_layers(watch.records(state, epoch + 1, epoch_tally.signs))
            epoch_tally = run.start_tally(state)
            due = (epoch + 1) % config.checkpoint_every_epochs == 0
            if (
                due
                or stopped
                or step == run.num_steps
                or _crosses(step, taken, config.checkpoint_every_steps)
            ):
                save(accuracy)
            if stopped:
                _stop(step, run, stop, store)
    return state, clock


def _time_to_look(log: progress.Log, calls: int) -> bool:
    """Whether to stop the device and look at the metrics.

    Once a second; where there are several processes, which have to look at the same
    step, every hundred calls.
    """
    return calls % 100 == 99 if processes.several() else log.due()


def _crosses(step: int, taken: int, every: int) -> bool:
    """Whether the last `taken` steps have passed a multiple of `every`; 0 has none."""
    return every > 0 and step // every > (step - taken) // every


def _stop(
    step: int, run: Run, stop: stopping.Stopping, store: checkpoints.Checkpoints
) -> NoReturn:
    """Ends a run that has been asked to, once its checkpoint is complete.

    Raises:
        StoppedError: Always.
    """
    store.wait()
    cause = stop.signal.name if stop.signal is not None else "a signal"
    raise errors.StoppedError(
        f"stopped by {cause} at step {step} of {run.num_steps}, and saved: the same "
        "command goes on from there."
    )


def _epoch_values(run: Run, state: Any, epoch_tally: tally.Tally) -> dict[str, Any]:
    values: dict[str, Any] = dict(epoch_tally.means())
    nonfinite = epoch_tally.nonfinite_steps(run.feed.steps_per_epoch)
    if nonfinite:
        values["nonfinite_steps"] = nonfinite
    if epoch_tally.signs is not None:
        values["flips_per_epoch"] = metrics.flip_rate_since(
            epoch_tally.signs, state.params, where=run.where
        )
    if run.config.skip_nonfinite:
        values["skipped_updates"] = run.skipped(state)[1]
    return values


def _report_epoch(
    run: Run,
    state: Any,
    log: progress.Log,
    step: int,
    epoch: int,
    values: dict[str, Any],
    speed: float | None,
) -> float | None:
    """Writes the metrics of an epoch; its accuracy on validation images, if known."""
    config = run.config
    log.write(step, epoch, "train", values)
    text = f"epoch {epoch}/{config.num_epochs}  "
    text += f"loss {values['loss']:.4f}" if "loss" in values else "no finite loss"
    if "accuracy" in values:
        text += f"  train {100 * values['accuracy']:.2f} %"
    accuracy = None
    due = epoch == config.num_epochs or epoch % config.eval_every_epochs == 0
    if due and len(run.splits.validation):
        found = run.evaluate(state, "validation")
        log.write(step, epoch, "validation", found)
        accuracy = found.get("accuracy")
        if accuracy is not None:
            text += f"  validation {100 * accuracy:.2f} %"
    if "flips_per_epoch" in values:
        text += f"  flips {100 * values['flips_per_epoch']:.1f} %"
    if values.get("skipped_updates"):
        text += f"  skipped {values['skipped_updates']}"
    if speed is not None:
        log.write(step, epoch, "timing", {"steps_per_second": speed})
        text += f"  {speed:.{0 if speed >= 10 else 1}f} steps/s"
    log.line(text)
    return accuracy


def _refuse_bad_loss(
    run: Run,
    state: Any,
    epoch_tally: tally.Tally,
    step: int,
    store: checkpoints.Checkpoints,
) -> None:
    """Stops a run whose loss is not a number any more.

    Raises:
        RunError: If a loss since the start of the epoch was not finite, or more updates
            in a row were not than may be skipped.
    """
    bad = int(epoch_tally.first_bad_step)
    what = "the loss"
    if run.config.skip_nonfinite:
        in_a_row, _ = run.skipped(state)
        bad = step - in_a_row if in_a_row > run.config.skip_nonfinite else -1
        what = f"more than {run.config.skip_nonfinite} updates in a row: the update"
    if bad < 0:
        return
    store.wait()
    kept = store.steps
    where = (
        f"The last good checkpoint is that of step {kept[-1]}"
        if kept
        else "There is no checkpoint yet"
    )
    epoch, batch = divmod(bad, run.feed.steps_per_epoch)
    raise errors.RunError(
        f"{what} is not finite at step {bad} (epoch {epoch + 1}, batch {batch} of it, "
        f"from 0). {where}; it is kept. Lower the learning rate or change the method, "
        "in a new --workdir."
    )
