"""One row of a comparison: its search and its trials, finished and open."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from experiments import errors, methods
from experiments.compare import outcomes, search, tables, trials, tuning
from experiments.training.problem import Problem


class NothingWorksError(errors.RunError):
    """Every learning rate of a row failed."""


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
        kept: outcomes.Kept,
        *,
        problem_of: Callable[[ml_collections.ConfigDict], Problem],
        factors: Sequence[float],
        knobs: bool,
        together: int,
        advance: Callable[[int], None],
        momenta: Sequence[float] = (),
    ):
        """Trains nothing yet.

        Args:
            config: Config of all rows.
            name: Name of the row.
            variant: Method and options to train.
            kept: Its outcomes so far.
            problem_of: Makes the problem of a config.
            factors: First learning rates of the search, in units of the default.
            knobs: Whether the method's option in `search.KNOBS` is also chosen.
            together: Trials in one compiled program; 0 chooses automatically.
            advance: Called with the number of finished epochs.
            momenta: Values of `config.momentum` that are tried too, if the method
                leaves its optimiser open.
        """
        config = config.copy_and_resolve_references()
        config.methods[variant.method].update(variant.options)
        self._config, self._name, self._method = config, name, variant.method
        self._kept, self._problem_of = kept, problem_of
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
        others = [value for value in momenta if value != config.momentum]
        if others and methods.takes_optimiser(variant.method):
            self._others += [((search.MOMENTUM, value),) for value in others]

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
        self._kept.claim(own)

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
        failures: list[str] = []
        choice = self._choice(failures)
        if choice is None:
            failure = f"at every learning rate; {failures[0]}"
            return {"method": self._name, "failure": failure}
        found = self.tested(choice.setting, range(1, seeds + 1))
        return tables.row(
            self._name,
            found,
            learning_rate=choice.setting.learning_rate,
            options=dict(choice.setting.options),
            at_edge=choice.at_edge,
            bytes_per_weight=next(iter(found.values()))["bytes_per_weight"],
        )

    def choose(self, *, by_loss: bool = False) -> search.Choice:
        """Chooses the learning rate and the other option on validation.

        Args:
            by_loss: Whether the lowest loss is best, not the highest accuracy.

        Raises:
            NothingWorksError: If every learning rate failed.
        """
        failures: list[str] = []
        choice = self._choice(failures, by_loss=by_loss)
        if choice is None:
            raise NothingWorksError(f"at every learning rate; {failures[0]}")
        return choice

    def tested(
        self, setting: search.Setting, seeds: Iterable[int]
    ) -> dict[int, dict[str, Any]]:
        """Outcomes on the test split, by seed."""
        wanted = [trials.Trial(seed, setting.learning_rate) for seed in seeds]
        found = self._results(wanted, setting.options, "test")
        return {trial.seed: outcome for trial, outcome in found.items()}

    def _choice(
        self, failures: list[str], *, by_loss: bool = False
    ) -> search.Choice | None:
        """See `choose`; None, and messages in `failures`, if nothing works."""
        if not self._searches:
            return search.Choice(search.Setting(self._rates[0]), at_edge=False)

        def scores(settings):
            found = self._scores(settings, failures)
            if not by_loss:
                return found
            return {one: found[one]._replace(accuracy=0.0) for one in found}

        return search.search(scores, self._rates, self._others)

    def _scores(
        self, settings: Sequence[search.Setting], failures: list[str]
    ) -> dict[search.Setting, search.Score]:
        """The scores for `search`; adds error messages to `failures`."""
        found = {}
        for options in dict.fromkeys(setting.options for setting in settings):
            rates = [one.learning_rate for one in settings if one.options == options]
            wanted = [trials.Trial(search.SEED, rate) for rate in rates]
            for trial, outcome in self._results(wanted, options, "validation").items():
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
            kept = self._kept.find(trial, options, split)
            if kept is None:
                missing.append(trial)
            else:
                found[trial] = kept
                self._advance(self._config.num_epochs)
        if missing:
            trainer = self._trainer(options)
            memory = {"bytes_per_weight": trainer.bytes_per_weight()}
            for trial, outcome in trainer.train(
                missing, split=split, advance=self._advance
            ):
                whole = {**outcome, **memory}
                found[trial] = self._kept.keep(trial, options, split, whole)
        return {trial: found[trial] for trial in wanted}

    def _trainer(self, options: search.Options) -> trials.Trainer:
        if options not in self._trainers:
            config = self._config.copy_and_resolve_references()
            for name, value in options:
                if name == search.MOMENTUM:
                    config.momentum = value
                else:
                    config.methods[self._method][name] = value
            self._trainers[options] = trials.Trainer(
                config,
                self._method,
                problem_of=self._problem_of,
                together=self._together,
            )
        return self._trainers[options]
