"""One row of a comparison: its search and its trials, finished and open."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from experiments import errors
from experiments.compare import search, tables, trials, tuning
from experiments.runs import identity, small_files, workdir
from experiments.training.problem import Problem

_MEASURED = ("accuracy", "loss")


def _upgraded(found: Mapping[str, Any]) -> dict[str, Any]:
    """The method and options in the file of a row; new options have their defaults."""
    method = found.get("method")
    stored = {"method": method, "methods": {method: found.get("options", {})}}
    config = identity.config_of(stored)
    if method not in config.methods:
        raise ValueError(f"it names no method, but {method!r}")
    return {"method": method, "options": config.methods[method].to_dict()}


class Variant(NamedTuple):
    """A row to train: a method, and its options that differ from the config."""

    method: str
    options: Mapping[str, Any] = {}


class Entry:
    """Trains the missing trials of a row, and summarises it."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        name: str,
        variant: Variant,
        folder: pathlib.Path,
        *,
        problem_of: Callable[[ml_collections.ConfigDict], Problem],
        factors: Sequence[float],
        knobs: bool,
        together: int,
        advance: Callable[[int], None],
    ):
        """Trains nothing yet.

        Args:
            config: Config of all rows.
            name: Name of the row.
            variant: Method and options to train.
            folder: Folder of its results.
            problem_of: Makes the problem of a config.
            factors: First learning rates of the search, in units of the default.
            knobs: Whether the method's option in `search.KNOBS` is also chosen.
            together: Trials in one compiled program; 0 chooses automatically.
            advance: Called with the number of finished epochs.
        """
        config = config.copy_and_resolve_references()
        config.methods[variant.method].update(variant.options)
        self._config, self._name, self._method = config, name, variant.method
        self._folder, self._problem_of = folder, problem_of
        self._together, self._advance = together, advance
        self._trainers: dict[search.Options, trials.Trainer] = {}
        options = config.methods[variant.method].to_dict()
        self._options = options
        self._rates = [factor * options["learning_rate"] for factor in factors]
        self._others: list[search.Options] = []
        if knobs and variant.method in search.KNOBS:
            knob, values = search.KNOBS[variant.method]
            self._others = [
                ((knob, value),)
                for value in values
                if value != options[knob] and knob not in variant.options
            ]

    def num_trials(self, seeds: int) -> int:
        """Number of networks that are trained, if the search is not extended."""
        return seeds + (len(self._rates) + len(self._others) if self._searches else 0)

    def num_rates(self) -> int:
        """Number of networks that `tuned` trains, if the search is not extended."""
        return len({*self._rates, self._options["learning_rate"]})

    @property
    def _searches(self) -> bool:
        return len(self._rates) > 1 or bool(self._others)

    def row(self, seeds: int) -> dict[str, Any]:
        """Chooses the learning rate and the other option, trains with all seeds.

        Args:
            seeds: Number of networks that are tested.

        Returns:
            A row of `tables.row`, or a row with `failure`.
        """
        return self._guarded(lambda: self._row(seeds))

    def tuned(self) -> dict[str, Any]:
        """Chooses the learning rate, and trains nothing else.

        Returns:
            A row of `tuning.row`, or a row with `failure`.
        """
        return self._guarded(self._tuned)

    def _guarded(self, found: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            self._claim()
            return found()
        except Exception as error:  # any: the others are still worth having
            message = str(error).splitlines()[0] if str(error) else ""
            failure = f"{type(error).__name__}: {message}"
            return {"method": self._name, "failure": failure}
        finally:
            self._trainers.clear()  # they hold the data and compiled programs

    def _claim(self) -> None:
        own = {"method": self._method, "options": self._options}
        workdir.Workdir(self._folder, own, upgrade=_upgraded)

    def _tuned(self) -> dict[str, Any]:
        default = self._options["learning_rate"]
        tried: dict[float, float] = {}
        failures: list[str] = []

        def scores(settings):
            found = self._scores(settings, failures)
            tried.update({one.learning_rate: found[one].accuracy for one in found})
            return found

        choice = search.search(
            scores,
            sorted({*self._rates, default}),
            extensions=search.TUNE_EXTENSIONS,
        )
        if choice is None:
            failure = f"at every learning rate; {failures[0]}"
            return {"method": self._name, "failure": failure}
        return tuning.row(self._name, choice, default=default, tried=tried)

    def _row(self, seeds: int) -> dict[str, Any]:
        choice: search.Choice | None
        choice = search.Choice(search.Setting(self._rates[0]), at_edge=False)
        if self._searches:
            failures: list[str] = []
            choice = search.search(
                lambda settings: self._scores(settings, failures),
                self._rates,
                self._others,
            )
            if choice is None:
                failure = f"at every learning rate; {failures[0]}"
                return {"method": self._name, "failure": failure}
        rate, options = choice.setting
        final = [trials.Trial(seed, rate) for seed in range(1, seeds + 1)]
        outcomes = self._results(final, options, "test")
        return tables.row(
            self._name,
            {trial.seed: outcome for trial, outcome in outcomes.items()},
            learning_rate=rate,
            options=dict(options),
            at_edge=choice.at_edge,
            bytes_per_weight=next(iter(outcomes.values()))["bytes_per_weight"],
        )

    def _scores(
        self, settings: Sequence[search.Setting], failures: list[str]
    ) -> dict[search.Setting, search.Score]:
        """The scores for `search`; adds error messages to `failures`."""
        found = {}
        for options in dict.fromkeys(setting.options for setting in settings):
            rates = [one.learning_rate for one in settings if one.options == options]
            wanted = [trials.Trial(search.SEED, rate) for rate in rates]
            outcomes = self._results(wanted, options, "validation")
            for trial, outcome in outcomes.items():
                if "failure" in outcome:
                    failures.append(outcome["failure"])
                else:
                    setting = search.Setting(trial.learning_rate, options)
                    found[setting] = search.Score(outcome["accuracy"], -outcome["loss"])
        return found

    def _results(
        self,
        wanted: Sequence[trials.Trial],
        options: search.Options,
        split: str,
    ) -> dict[trials.Trial, dict[str, Any]]:
        """Outcomes from the folder, and outcomes of trials that are trained now."""
        found, missing = {}, []
        for trial in wanted:
            file = self._file(trial, options, split)
            if file.exists():
                found[trial] = _read(file)
                self._advance(self._config.num_epochs)
            else:
                missing.append(trial)
        if missing:
            trainer = self._trainer(options)
            memory = {"bytes_per_weight": trainer.bytes_per_weight()}
            for trial, outcome in trainer.train(
                missing, split=split, advance=self._advance
            ):
                found[trial] = {**_finite(outcome), **memory}
                small_files.write_json(self._file(trial, options, split), found[trial])
        return {trial: found[trial] for trial in wanted}

    def _trainer(self, options: search.Options) -> trials.Trainer:
        if options not in self._trainers:
            config = self._config.copy_and_resolve_references()
            config.methods[self._method].update(dict(options))
            self._trainers[options] = trials.Trainer(
                config,
                self._method,
                problem_of=self._problem_of,
                together=self._together,
            )
        return self._trainers[options]

    def _file(
        self, trial: trials.Trial, options: search.Options, split: str
    ) -> pathlib.Path:
        parts = [f"{split}-seed{trial.seed}-{trial.learning_rate:.6g}"]
        parts += [f"{name}={value}" for name, value in options]
        return self._folder / ("-".join(parts) + ".json")


def _finite(outcome: dict[str, Any]) -> dict[str, Any]:
    """An outcome; a failure if a measured value is not a finite number."""
    for name in _MEASURED:
        value = outcome.get(name)
        if "failure" not in outcome and not (value is not None and np.isfinite(value)):
            return {"failure": f"the {name} is {value}"}
    return outcome


def _read(file: pathlib.Path) -> dict[str, Any]:
    """Reads an outcome from a folder.

    Raises:
        RunError: If the file is damaged.
    """
    cure = "Remove the file; the same command then trains the trial again."
    found = small_files.read(file, cure=cure, bytes_per_weight=float)
    if "failure" in found:
        return {**found, "failure": str(found["failure"])}
    kinds = dict.fromkeys((*_MEASURED, "seconds_per_epoch"), float)
    found = small_files.read(file, cure=cure, **kinds)
    flips = found.get("flips_per_epoch", [0.0])
    if not isinstance(flips, list) or not all(type(one) is float for one in flips):
        raise errors.RunError(
            f"cannot read {file}: 'flips_per_epoch' is not a list of numbers. {cure}"
        )
    return found
