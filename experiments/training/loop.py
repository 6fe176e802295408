"""The one training loop: trains, evaluates, saves and resumes."""

import os
from typing import Any, NoReturn

import jax
import ml_collections
import rich.console

from experiments import console as consoles
from experiments import errors
from experiments.report import plots
from experiments.runs import (
    checkpoints,
    identity,
    processes,
    small_files,
    stopping,
    workdir,
)
from experiments.training import (
    beginning,
    checks,
    epochs,
    layers,
    older,
    progress,
    tally,
)
from experiments.training.run import Run


def train_and_evaluate(
    config: ml_collections.ConfigDict,
    workdir_path: str | os.PathLike[str],
    *,
    console: rich.console.Console | None = None,
    on_metrics: progress.OnMetrics | None = None,
) -> dict[str, Any]:
    """Trains the network of a config, or resumes the run in the workdir.

    A resumed run ends with the same bits as one that was never interrupted.

    Args:
        config: A config with the fields of `configs/base.py`.
        workdir_path: The folder of the run; see `Workdir`.
        console: Console for progress. Default: standard output.
        on_metrics: Called with a step and the metrics of an epoch, `train/loss` and so
            on, in process 0. What it raises ends the run, which can be resumed.

    Returns:
        The contents of `result.json`.

    Raises:
        RunError: If the run cannot start or continue; the message says why.
        StoppedError: If it was stopped by SIGTERM or SIGINT, and has been saved.
    """
    console = console or consoles.create()
    if not processes.is_primary():
        console = consoles.create(quiet=True)
    with processes.agreeing():
        config = checks.settled(config)
    processes.agree_on(
        "the config",
        {**identity.computed(config), "versions": beginning.versions()},
        "Start all processes with the same command and the same versions.",
    )
    with stopping.Stopping() as stop:
        try:
            with stop.at_once():
                prepared = beginning.prepare(config, workdir_path, console)
        except stopping.SignalError:
            raise errors.StoppedError(
                f"stopped by {stop.name} before training began: the same command "
                "starts it."
            ) from None
        if not isinstance(prepared, beginning.Prepared):
            return prepared
        with prepared.folder:
            return _train_and_test(prepared, stop, console, on_metrics)


def _train_and_test(
    prepared: beginning.Prepared,
    stop: stopping.Stopping,
    console: rich.console.Console,
    on_metrics: progress.OnMetrics | None,
) -> dict[str, Any]:
    run, state, folder = prepared
    config = run.config
    table = run.summary(state)
    folder.write("summary.txt", f"{table}\n")
    record = run.problem.record()
    folder.write(workdir.PROBLEM, small_files.dumps(record, indent=2) + "\n")
    if (tokenizer := run.problem.vocabulary.source) is not None:
        folder.write(workdir.TOKENIZER, tokenizer)
    folder.write("summary.json", small_files.dumps(table.as_dict(), indent=2) + "\n")
    with checkpoints.Checkpoints(
        folder.path / workdir.CHECKPOINTS, keep=config.keep_checkpoints
    ) as store:
        state, clock = _train(run, state, folder, store, stop, console, on_metrics)
    step = int(state.step)
    try:
        with stop.at_once():
            test = epochs.test(run, state, folder)
    except stopping.SignalError:
        _stop(step, run, stop)
    folder.append({"step": step, "epoch": config.num_epochs, "split": "test", **test})
    if folder.writes:
        if on_metrics is not None:
            on_metrics(step, progress.tagged("test", test))
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
        "config": identity.published(config),
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "num_processes": jax.process_count(),
        "versions": beginning.versions(),
    }
    epochs.write_page(folder, result, console)
    folder.finish(result)
    return result


def _train(
    run: Run,
    state: Any,
    folder: workdir.Workdir,
    store: checkpoints.Checkpoints,
    stop: stopping.Stopping,
    console: rich.console.Console,
    on_metrics: progress.OnMetrics | None,
) -> tuple[Any, progress.Clock]:
    """Trains from the state, or from the latest checkpoint, to the last step.

    At the end of an epoch the state is first saved, with the sums of the epoch, and
    then evaluated and reported. If a run is killed in between, it reports when it
    resumes.
    """
    config, feed = run.config, run.problem.feed
    epoch_tally = run.start_tally(state)
    clock = progress.Clock()
    watch = layers.Watch(run)
    to_report, speed, saved = False, None, -1
    like = {"state": state, "tally": epoch_tally}
    restored = store.restore(like, older=older.before_0_2(config, like))
    if restored is not None:
        arrays, record, messages = restored
        state, epoch_tally = arrays["state"], arrays["tally"]
        feed.seek(record["position"])
        clock = progress.Clock(record["clock"])
        to_report, speed = record.get("to_report", False), record.get("speed")
        saved = int(state.step)
        for message in [*messages, f"resuming at step {saved}"]:
            consoles.say(console, message)
    step = int(state.step)
    for message in folder.rewind(saved, to_report=to_report):
        consoles.say(console, message)
    log = progress.Log(
        folder,
        console,
        step=step,
        num_steps=run.num_steps,
        tensorboard=config.tensorboard and folder.writes,
        on_metrics=on_metrics,
    )

    def save() -> None:
        nonlocal saved
        _refuse_bad_loss(run, state, epoch_tally, step, store)
        folder.check_place()
        means = {name: float(value) for name, value in epoch_tally.means().items()}
        store.save(
            step,
            {"state": state, "tally": epoch_tally},
            {
                "position": feed.position(),
                "clock": clock.record,
                "to_report": to_report,
                "speed": speed,
            },
            progress=means,
        )
        saved = step

    def end() -> NoReturn:
        if saved != step:
            save()
        store.wait()
        _stop(step, run, stop)

    with log:
        if restored is None:
            log.write_layers(watch.records(state, 0, epoch_tally.signs))
        while True:
            if to_report:
                epoch = step // feed.steps_per_epoch
                try:
                    with stop.at_once():
                        found = epochs.validate(run, state, epoch)
                        shares = watch.records(state, epoch, epoch_tally.signs)
                except stopping.SignalError:
                    end()
                if "accuracy" in found:
                    store.rate(step, found["accuracy"])
                values = epochs.values(run, state, epoch_tally)
                epochs.report(run, log, step, epoch, values, found, speed)
                log.write_layers(shares)
                epoch_tally = run.start_tally(state)
                to_report = False
            if step >= run.num_steps:
                break
            epoch = step // feed.steps_per_epoch
            for calls, (batch, taken) in enumerate(feed.batches(step)):
                state, reported = run.train_step(state, batch, run.resident)
                epoch_tally = tally.add(epoch_tally, reported, step, run.shares_every)
                step += taken
                if not clock.running:
                    jax.block_until_ready(epoch_tally)  # the first call compiles
                    clock.start(step)
                if log.due(calls):
                    _refuse_bad_loss(run, state, epoch_tally, step, store)
                    log.show(step, epoch_tally.means())
                stopped = stop.reached(step)
                if step % feed.steps_per_epoch == 0:
                    break
                if stopped or _crosses(step, taken, config.checkpoint_every_steps):
                    clock.stop(step)
                    save()
                if stopped:
                    end()
            _refuse_bad_loss(run, state, epoch_tally, step, store)
            speed = clock.stop(step)
            log.show(step, epoch_tally.means())
            to_report = True
            if (
                (epoch + 1) % config.checkpoint_every_epochs == 0
                or step == run.num_steps
                or _crosses(step, taken, config.checkpoint_every_steps)
            ):
                save()
            if stopped:
                end()
        store.wait()
    return state, clock


def _crosses(step: int, taken: int, every: int) -> bool:
    """Whether the last `taken` steps passed a multiple of `every`; never if 0."""
    return every > 0 and step // every > (step - taken) // every


def _stop(step: int, run: Run, stop: stopping.Stopping) -> NoReturn:
    """Ends a run that has been asked to, once its checkpoint is complete.

    Raises:
        StoppedError: Always.
    """
    raise errors.StoppedError(
        f"stopped by {stop.name} at step {step} of {run.num_steps}, and saved: the "
        "same command continues from there."
    )


def _refuse_bad_loss(
    run: Run,
    state: Any,
    epoch_tally: tally.Tally,
    step: int,
    store: checkpoints.Checkpoints,
) -> None:
    """Stops a run whose loss is no longer finite.

    Raises:
        RunError: If a loss since the start of the epoch was not finite, or more
            consecutive updates than may be skipped were not finite.
    """
    bad = int(epoch_tally.first_bad_step)
    what = "the loss"
    if run.config.skip_nonfinite:
        in_a_row, _ = run.skipped(state)
        bad = step - in_a_row if in_a_row > run.config.skip_nonfinite else -1
        what = f"more than {run.config.skip_nonfinite} updates in a row: the update"
    if bad < 0:
        return
    epoch, batch = divmod(bad, run.problem.steps_per_epoch)
    raise errors.RunError(
        f"{what} is not finite at step {bad} (epoch {epoch + 1}, batch {batch} of it, "
        f"from 0). {store.last_good()}"
    )
