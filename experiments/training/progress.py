"""What a run shows while it trains, and where its metrics are written."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import rich.console

from experiments import console as consoles
from experiments.runs import processes, workdir

console = consoles.create
"""The console of a run: standard output, or plain lines in a notebook."""


OnMetrics = Callable[[int, dict[str, float]], object]
"""Function of a step and values by name, for a logger."""


def tagged(split: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Values of a split under the names that loggers get.

    Example:
        >>> tagged("train", {"loss": 0.5})
        {'train/loss': 0.5}
    """
    return {f"{split}/{name}": float(value) for name, value in values.items()}


class Clock:
    """Steps per second of training, without compilation, evaluation and saving."""

    def __init__(self, record: Mapping[str, float] | None = None):
        """Continues from `record`, the times of an earlier part of the run."""
        record = record or {"seconds": 0.0, "steps": 0}
        self._seconds, self._steps = record["seconds"], record["steps"]
        self._begin: tuple[float, int] | None = None

    def start(self, step: int) -> None:
        """Starts to count; `step` steps are known to be done."""
        self._begin = (time.perf_counter(), step)

    @property
    def running(self) -> bool:
        """Whether `start` was called after the last `stop`."""
        return self._begin is not None

    def stop(self, step: int) -> float | None:
        """Stops counting; returns steps per second since `start`."""
        if self._begin is None or step == self._begin[1]:
            return None
        seconds, steps = time.perf_counter() - self._begin[0], step - self._begin[1]
        self._seconds += seconds
        self._steps += steps
        self._begin = None
        return steps / seconds

    @property
    def record(self) -> dict[str, float]:
        """The record for a checkpoint."""
        return {"seconds": self._seconds, "steps": self._steps}

    @property
    def steps_per_second(self) -> float:
        """Steps per second over the whole run; 0 if nothing was timed."""
        return self._steps / self._seconds if self._seconds else 0.0


class Log:
    """A progress bar, a line an epoch, the files of lines, and TensorBoard."""

    def __init__(
        self,
        folder: workdir.Workdir,
        console: rich.console.Console,
        *,
        step: int,
        num_steps: int,
        tensorboard: bool,
        on_metrics: OnMetrics | None = None,
    ):
        """Opens everything.

        Args:
            folder: Folder for the metrics.
            console: Console for progress.
            step: Number of finished steps.
            num_steps: Number of steps of the whole run.
            tensorboard: Whether to write for TensorBoard, if tensorboardX is installed.
            on_metrics: Gets what TensorBoard gets; called only where files are written.
        """
        self._folder = folder
        self._console = console
        self._writer = _summary_writer(folder) if tensorboard else None
        self._on_metrics = on_metrics if folder.writes else None
        self._shown = 0.0
        self._bar = consoles.bar(console)
        self._task = self._bar.add_task("training", total=num_steps, completed=step)

    def __enter__(self) -> "Log":
        """Shows the bar."""
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Removes the bar, and closes all files."""
        self._bar.stop()
        if self._writer is not None:
            self._writer.close()

    def due(self, calls: int) -> bool:
        """Whether it is time to read the metrics again, which stops the device.

        Once a second; with several processes, which must read at the same step, every
        hundred calls.

        Args:
            calls: Number of the call in this epoch.
        """
        if processes.several():
            return calls % 100 == 99
        return time.perf_counter() - self._shown > 1.0

    def show(self, step: int, values: Mapping[str, Any]) -> None:
        """Moves the bar."""
        self._shown = time.perf_counter()
        text = f"loss {values['loss']:.3f}" if "loss" in values else "no finite loss"
        if "accuracy" in values:
            text += f"  accuracy {100 * values['accuracy']:.1f} %"
        self._bar.update(self._task, completed=step, description=text)

    def write(
        self, step: int, epoch: int, split: str, values: Mapping[str, Any]
    ) -> None:
        """Adds a line to `metrics.jsonl`; the values go to the loggers too."""
        numbers = {name: float(value) for name, value in values.items()}
        self._folder.append({"step": step, "epoch": epoch, "split": split, **numbers})
        self._log(step, tagged(split, numbers))

    def write_layers(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Adds lines to `layers.jsonl`; their shares go to the loggers too."""
        if not records:
            return
        self._folder.append(*records, file=workdir.LAYERS)
        shares = {
            f"{name}/{record['layer']}": float(record[name])
            for record in records
            for name in ("flips_per_epoch", "saturated", "rms")
            if name in record
        }
        self._log(records[0]["step"], shares)

    def _log(self, step: int, values: dict[str, float]) -> None:
        """Gives values to TensorBoard and to the caller of the run."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        if self._on_metrics is not None:
            self._on_metrics(step, values)

    def line(self, parts: Sequence[str]) -> None:
        """Prints a line above the bar; see `console.fitted`."""
        consoles.say(self._console, consoles.fitted(self._console, parts))


def _summary_writer(folder: workdir.Workdir) -> Any:
    try:
        import tensorboardX
    except ImportError:
        return None
    return tensorboardX.SummaryWriter(str(folder.path / "tensorboard"))
