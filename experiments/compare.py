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
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import rich.console
import rich.progress
from absl import app, flags, logging
from ml_collections import config_flags

from experiments import data, errors, methods, run, tables, trials, workdir

FACTORS = (0.3, 1.0, 3.0)
SEARCH_SEED = 0


class Variant(NamedTuple):
    """A row to be: a method, and options of it that differ from the config."""

    method: str
    options: Mapping[str, Any] = {}


def compare(
    config: ml_collections.ConfigDict,
    variants: Mapping[str, Variant] | Sequence[str],
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
        variants: By the name of their rows; or names of `methods.METHODS`.
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
    if not isinstance(variants, Mapping):
        if len(set(variants)) < len(variants):
            raise errors.RunError(f"a method is named twice: {', '.join(variants)}.")
        variants = {name: Variant(name) for name in variants}
    _check(config, variants, seeds, factors)
    common = config.to_dict()
    for name in ("method", "methods", "seed"):
        del common[name]
    folder = workdir.Workdir(workdir_path, common)
    splits = run.load(config)
    if not len(splits.validation):
        raise errors.RunError(
            "learning rates are chosen on validation examples, and this config keeps "
            "none: pass --config.validation=0.1."
        )
    rows = []
    searched = len(factors) if len(factors) > 1 else 0
    total = len(variants) * (searched + seeds) * config.num_epochs
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("epochs, left"),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)
        for number, (name, variant) in enumerate(variants.items()):
            bar.update(task, description=name)
            path = folder.path / "trials" / name
            entry = Entry(config, name, variant, path, splits=splits)
            found = entry.row(
                seeds, factors, together, advance=lambda n: bar.advance(task, n)
            )
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


class Entry:
    """One row: its trials, those that stand in a folder and those to do."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        name: str,
        variant: Variant,
        folder: pathlib.Path,
        *,
        splits: data.Splits[Any],
    ):
        """Trains nothing yet.

        Args:
            config: As in `compare`.
            name: Of the row.
            variant: What to train.
            folder: Of its results.
            splits: The data.
        """
        config = config.copy_and_resolve_references()
        config.methods[variant.method].update(variant.options)
        self._config, self._name, self._method = config, name, variant.method
        self._folder, self._splits = folder, splits
        self._trainer: trials.Trainer | None = None

    def row(
        self,
        seeds: int,
        factors: Sequence[float],
        together: int,
        *,
        advance: Callable[[int], None],
    ) -> dict[str, Any]:
        """Chooses the learning rate, trains with all seeds, and sums up.

        Args:
            seeds: As in `compare`.
            factors: As in `compare`.
            together: As in `compare`.
            advance: As in `trials.Trainer.train`.

        Returns:
            A row as of `tables.row`, or one with `failure`.
        """
        try:
            return self._row(seeds, factors, together, advance)
        except Exception as error:  # any: the others are still worth having
            message = str(error).splitlines()[0] if str(error) else ""
            failure = f"{type(error).__name__}: {message}"
            return {"method": self._name, "failure": failure}

    def _row(self, seeds, factors, together, advance):
        options = self._config.methods[self._method].to_dict()
        workdir.Workdir(self._folder, {"method": self._method, "options": options})
        default = options["learning_rate"]
        rates = sorted(factor * default for factor in factors)
        chosen = rates[0]
        if len(rates) > 1:
            search = [trials.Trial(SEARCH_SEED, rate) for rate in rates]
            found = self._results(search, "validation", together, advance)
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
        outcomes = self._results(final, "test", together, advance)
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
        together: int,
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
                    self._method,
                    splits=self._splits,
                    together=together,
                )
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
    variants: Mapping[str, Variant],
    seeds: int,
    factors: Sequence[float],
) -> None:
    """Refuses what cannot be compared, before anything is trained.

    Raises:
        RunError: Naming the argument.
    """
    if not variants:
        raise errors.RunError("name at least one method, as in --methods=ste,adaste.")
    for variant in variants.values():
        if variant.method not in methods.METHODS:
            raise errors.RunError(
                f"there is no method {variant.method!r}. Choose from "
                f"{', '.join(sorted(methods.METHODS))}, or all."
            )
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
    "config", None, "What to train: a file of experiments/configs.", lock_config=True
)
flags.mark_flag_as_required("config")
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
    """Compares the methods that are named."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    names = sorted(methods.METHODS) if _METHODS.value == ["all"] else _METHODS.value
    from_flags(names)


def from_flags(variants: Mapping[str, Variant] | Sequence[str]) -> None:
    """Compares as the command line says, and prints the table."""
    logging.set_verbosity(logging.ERROR)
    console = rich.console.Console()
    try:
        rows = compare(
            _CONFIG.value,
            variants,
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
    console.print(table, highlight=False, soft_wrap=True, markup=False)
    console.print(f"results in {_WORKDIR.value}", highlight=False)


if __name__ == "__main__":
    app.run(main)
