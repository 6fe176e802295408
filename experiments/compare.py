"""Trains methods alike, and says which is better and how sure that is.

    python -m experiments.compare --config=experiments/configs/quickstart.py \
        --methods=full_precision,ste,adaste --seeds=10 --workdir=runs/compare \
        [--learning_rates=0.3,1,3] [--config.field=value ...]

Network, data, their order, epochs, augmentation and evaluation are the same for all
methods: the deployed network of the last epoch, with batch-norm statistics taken anew
where the training weights were soft. For each method the learning rate is chosen among
multiples of its default by the accuracy on the validation split, trained with seed 0.
Then it is trained with seeds 1 to N, and the test split is looked at once.

A method that fails is a row that says so. What is finished stands in the workdir: the
same command goes on where it was interrupted, and methods and seeds may be added.
"""

import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
import rich.console
import rich.markdown
import rich.progress
from absl import app, flags, logging
from ml_collections import config_flags

from experiments import errors, methods, run, tables, trials, workdir

CONFIG = "experiments/configs/quickstart.py"
FACTORS = (0.3, 1.0, 3.0)
SEARCH_SEED = 0


def compare(
    config: ml_collections.ConfigDict,
    names: Sequence[str],
    workdir_path: str | pathlib.Path,
    *,
    seeds: int = 5,
    factors: Sequence[float] = FACTORS,
    together: int = 0,
    baseline: str = "ste",
    console: rich.console.Console | None = None,
) -> list[dict[str, Any]]:
    """Trains all methods, and writes `table.md`, `table.json` and `table.png`.

    Args:
        config: As `configs/base.py`; its `method` and `seed` are not looked at.
        names: Of `methods.METHODS`.
        workdir_path: Where results go and are looked for.
        seeds: How many networks are tested for each method.
        factors: Learning rates to choose from, in units of the method's default.
        together: See `trials.choose_together`.
        baseline: The method that differences are taken to.
        console: Where progress is shown. Default: standard output.

    Returns:
        Rows of the table; see `tables`.

    Raises:
        RunError: If the comparison cannot start.
    """
    console = console or rich.console.Console()
    _check(config, names, seeds, factors)
    folder = workdir.Workdir(workdir_path, config.to_dict())
    splits = run.load(config)
    if not len(splits.validation):
        raise errors.RunError(
            "learning rates are chosen on validation examples, and this config keeps "
            "none: pass --config.validation=0.1."
        )
    rows = []
    searched = len(factors) if len(factors) > 1 else 0
    total = len(names) * (searched + seeds) * config.num_epochs
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("epochs, left"),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)
        for number, name in enumerate(names):
            bar.update(task, description=name)
            one = _Method(config, name, splits, together, folder.path / "trials" / name)
            try:
                found = one.row(seeds, factors, lambda n: bar.advance(task, n))
            except Exception as error:  # any: the others are still worth having
                message = str(error).splitlines()[0] if str(error) else ""
                failure = f"{type(error).__name__}: {message}"
                found = {"method": name, "failure": failure}
            rows.append(found)
            done = (number + 1) * (searched + seeds) * config.num_epochs
            bar.update(task, completed=done)
            console.print(_line(found), highlight=False, soft_wrap=True)
    rows = tables.compare_rows(rows, baseline=baseline)
    text = json.dumps(rows, indent=2) + "\n"
    workdir.write_atomically(folder.path / "table.json", text)
    table = tables.markdown(rows, baseline=baseline)
    workdir.write_atomically(folder.path / "table.md", table)
    if any("mean" in one for one in rows):
        tables.draw(folder.path / "table.png", rows, baseline=baseline)
    return rows


class _Method:
    """One method: its trials, those that stand in the workdir and those to do."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        name: str,
        splits: Any,
        together: int,
        folder: pathlib.Path,
    ):
        self._config, self._name, self._splits = config, name, splits
        self._together, self._folder = together, folder
        self._trainer: trials.Trainer | None = None

    def row(
        self, seeds: int, factors: Sequence[float], advance: Callable[[int], None]
    ) -> dict[str, Any]:
        """Chooses the learning rate, trains with all seeds, and sums up."""
        default = self._config.methods[self._name].learning_rate
        rates = sorted(factor * default for factor in factors)
        chosen = rates[0]
        if len(rates) > 1:
            search = [trials.Trial(SEARCH_SEED, rate) for rate in rates]
            found = self._results(search, "validation", advance)
            good = {
                trial.learning_rate: outcome["accuracy"]
                for trial, outcome in found.items()
                if "failure" not in outcome
            }
            if not good:
                first = next(iter(found.values()))["failure"]
                failure = f"at every learning rate; {first}"
                return {"method": self._name, "failure": failure}
            chosen = max(good, key=lambda rate: good[rate])
        final = [trials.Trial(seed, chosen) for seed in range(1, seeds + 1)]
        outcomes = self._results(final, "test", advance)
        return tables.row(
            self._name,
            {trial.seed: outcome for trial, outcome in outcomes.items()},
            learning_rate=chosen,
            at_edge=len(rates) > 1 and chosen in (rates[0], rates[-1]),
            bytes_per_weight=next(iter(outcomes.values()))["bytes_per_weight"],
        )

    def _results(
        self,
        wanted: Sequence[trials.Trial],
        split: str,
        advance: Callable[[int], None],
    ) -> dict[trials.Trial, dict[str, Any]]:
        found, missing = {}, []
        for trial in wanted:
            file = self._file(trial, split)
            if file.exists():
                found[trial] = json.loads(file.read_text("utf-8"))
                advance(self._config.num_epochs)
            else:
                missing.append(trial)
        if missing:
            if self._trainer is None:
                self._trainer = trials.Trainer(
                    self._config,
                    self._name,
                    splits=self._splits,
                    together=self._together,
                )
            self._folder.mkdir(parents=True, exist_ok=True)
            memory = {"bytes_per_weight": self._trainer.bytes_per_weight()}
            for trial, outcome in self._trainer.train(
                missing, split=split, advance=advance
            ):
                found[trial] = {**outcome, **memory}
                text = json.dumps(found[trial], indent=2) + "\n"
                workdir.write_atomically(self._file(trial, split), text)
        return {trial: found[trial] for trial in wanted}

    def _file(self, trial: trials.Trial, split: str) -> pathlib.Path:
        name = f"{split}-seed{trial.seed}-{trial.learning_rate:.6g}.json"
        return self._folder / name


def _check(
    config: ml_collections.ConfigDict,
    names: Sequence[str],
    seeds: int,
    factors: Sequence[float],
) -> None:
    """Refuses what cannot be compared, before anything is trained.

    Raises:
        RunError: Naming the argument.
    """
    if not names:
        raise errors.RunError("name at least one method, as in --methods=ste,adaste.")
    for name in names:
        if name not in methods.METHODS:
            raise errors.RunError(
                f"there is no method {name!r}. Choose from "
                f"{', '.join(sorted(methods.METHODS))}, or all."
            )
    if len(set(names)) < len(names):
        raise errors.RunError(f"a method is named twice: {', '.join(names)}.")
    if seeds < 1:
        raise errors.RunError(f"--seeds must be at least 1, got {seeds}.")
    if not factors or min(factors) <= 0:
        raise errors.RunError(
            f"--learning_rates must be factors above 0, got {list(factors)}."
        )
    if not config.resident:
        raise errors.RunError("a comparison needs config.resident to be True.")


def _line(found: dict[str, Any]) -> str:
    if "failure" in found:
        return f"{found['method']}  failed: {found['failure']}"
    spread = "" if found["std"] is None else f" ± {100 * found['std']:.2f}"
    return (
        f"{found['method']}  test {100 * found['mean']:.2f}{spread} %  "
        f"learning rate {found['learning_rate']:.3g}"
    )


_CONFIG = config_flags.DEFINE_config_file(
    "config", CONFIG, "What to train: a file of experiments/configs.", lock_config=True
)
_METHODS = flags.DEFINE_list("methods", ["all"], "Names of methods, or all.")
_SEEDS = flags.DEFINE_integer("seeds", 5, "Networks that are tested for each method.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the results.", required=True)
_FACTORS = flags.DEFINE_list(
    "learning_rates",
    [str(factor) for factor in FACTORS],
    "Learning rates to choose from, in units of the method's default.",
)
_TOGETHER = flags.DEFINE_integer(
    "together", 0, "Trials in one compiled program; 0 chooses."
)
_BASELINE = flags.DEFINE_string("baseline", "ste", "Method to take differences to.")


def main(argv: list[str]) -> None:
    """Compares, and prints the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.ERROR)
    console = rich.console.Console()
    names = sorted(methods.METHODS) if _METHODS.value == ["all"] else _METHODS.value
    try:
        rows = compare(
            _CONFIG.value,
            names,
            _WORKDIR.value,
            seeds=_SEEDS.value,
            factors=[float(factor) for factor in _FACTORS.value],
            together=_TOGETHER.value,
            baseline=_BASELINE.value,
            console=console,
        )
    except errors.RunError as error:
        console.print(f"[bold red]error:[/] {error}", soft_wrap=True, highlight=False)
        sys.exit(1)
    table = tables.markdown(rows, baseline=_BASELINE.value)
    console.print(rich.markdown.Markdown(table))
    console.print(f"results in {_WORKDIR.value}", highlight=False)


if __name__ == "__main__":
    app.run(main)
