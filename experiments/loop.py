"""The one training loop: trains, evaluates, saves and resumes."""

import os
from typing import Any

import jax
import ml_collections
import rich.console

import adaste_jax
from adaste_jax import metrics
from experiments import checkpoints, errors, plots, progress, tally, workdir
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
    """
    console = console or rich.console.Console()
    run = Run(config)
    state = run.init()
    folder = workdir.Workdir(workdir_path, config.to_dict())
    finished = folder.result()
    if finished is not None:
        console.print(f"{folder.path} holds a finished run; nothing to do.")
        return finished
    table = run.summary(state)
    workdir.write_atomically(folder.path / "summary.txt", f"{table}\n")
    store = checkpoints.Checkpoints(
        folder.path / "checkpoints", keep=config.keep_checkpoints
    )
    try:
        state, clock = _train(run, state, folder, store, console)
    finally:
        store.close()
    test = run.evaluate(state, "test")
    step = int(state.step)
    folder.append({"step": step, "epoch": config.num_epochs, "split": "test", **test})
    plots.draw_all(folder.path / "plots", folder.records(), run.latents(state))
    result = {
        "test_accuracy": test["accuracy"],
        "test_loss": test["loss"],
        "epochs": config.num_epochs,
        "seed": config.seed,
        "steps": step,
        "steps_per_second": clock.steps_per_second,
        "one_bit_parameters": table.one_bit_parameters,
        "real_parameters": table.real_parameters,
        "method": config.method,
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "jax": jax.__version__,
        "adaste_jax": adaste_jax.__version__,
    }
    folder.finish(result)
    return result


def _train(
    run: Run,
    state: Any,
    folder: workdir.Workdir,
    store: checkpoints.Checkpoints,
    console: rich.console.Console,
) -> tuple[Any, progress.Clock]:
    """Takes the state, or the checkpoint there is, to the last step."""
    config, feed = run.config, run.feed
    epoch_tally = run.start_tally(state)
    clock = progress.Clock()
    restored = store.restore({"state": state, "tally": epoch_tally})
    if restored is not None:
        arrays, record, messages = restored
        state, epoch_tally = arrays["state"], arrays["tally"]
        feed.seek(record["position"])
        clock = progress.Clock(record["clock"])
        for message in [*messages, f"resuming at step {int(state.step)}"]:
            console.print(message, highlight=False, soft_wrap=True)
    step = int(state.step)
    folder.rewind(step)
    log = progress.Log(
        folder,
        console,
        step=step,
        num_steps=run.num_steps,
        tensorboard=config.tensorboard,
    )
    with log:
        while step < run.num_steps:
            epoch = step // feed.steps_per_epoch
            for batch, taken in feed.batches(step):
                state, report = run.train_step(state, batch, feed.resident)
                epoch_tally = tally.add(epoch_tally, report, step)
                step += taken
                if not clock.running:
                    jax.block_until_ready(epoch_tally)  # the first call compiles
                    clock.start(step)
                if log.due():
                    _refuse_bad_loss(epoch_tally, store)
                    log.show(step, jax.device_get(epoch_tally.means()))
            _refuse_bad_loss(epoch_tally, store)
            speed = clock.stop(step)
            log.show(step, jax.device_get(epoch_tally.means()))
            values = _epoch_values(run, state, epoch_tally)
            _report_epoch(run, state, log, step, epoch + 1, values, speed)
            epoch_tally = run.start_tally(state)
            last = step == run.num_steps
            if last or (epoch + 1) % config.checkpoint_every_epochs == 0:
                store.save(
                    step,
                    {"state": state, "tally": epoch_tally},
                    {"position": feed.position(), "clock": clock.record},
                )
    return state, clock


def _epoch_values(run: Run, state: Any, epoch_tally: tally.Tally) -> dict[str, Any]:
    values = jax.device_get(epoch_tally.means())
    if epoch_tally.signs is not None:
        values["flips_per_epoch"] = metrics.flip_rate_since(
            epoch_tally.signs, state.params, where=run.where
        )
    return values


def _report_epoch(
    run: Run,
    state: Any,
    log: progress.Log,
    step: int,
    epoch: int,
    values: dict[str, Any],
    speed: float | None,
) -> None:
    config = run.config
    log.write(step, epoch, "train", values)
    text = f"epoch {epoch}/{config.num_epochs}  loss {values['loss']:.4f}"
    text += f"  train {100 * values['accuracy']:.2f} %"
    due = epoch == config.num_epochs or epoch % config.eval_every_epochs == 0
    if due and len(run.splits.validation):
        found = run.evaluate(state, "validation")
        log.write(step, epoch, "validation", found)
        text += f"  validation {100 * found['accuracy']:.2f} %"
    if "flips_per_epoch" in values:
        text += f"  flips {100 * values['flips_per_epoch']:.1f} %"
    if speed is not None:
        log.write(step, epoch, "timing", {"steps_per_second": speed})
        text += f"  {speed:.0f} steps/s"
    log.line(text)


def _refuse_bad_loss(epoch_tally: tally.Tally, store: checkpoints.Checkpoints) -> None:
    """Stops a run whose loss is not a number any more.

    Raises:
        RunError: If a loss since the start of the epoch was not finite.
    """
    step = int(epoch_tally.first_bad_step)
    if step < 0:
        return
    store.wait()
    kept = store.steps
    where = (
        f"The last good checkpoint is that of step {kept[-1]}"
        if kept
        else "There is no checkpoint yet"
    )
    raise errors.RunError(
        f"the loss is not finite at step {step}. {where}; it is kept. Lower the "
        "learning rate or change the method, in a new --workdir."
    )
