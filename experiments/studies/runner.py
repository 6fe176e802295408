"""Trains what is missing of a study, and says how long the rest will take."""

import hashlib
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import ml_collections
import rich.console

from experiments import console as consoles
from experiments import errors
from experiments.compare import entry, search, trials
from experiments.runs import lock, small_files
from experiments.studies.study import CHOSEN, FLOAT, Book, Part, Task, tasks
from experiments.training import beginning, loop, problem

DATA = "data"
"""The split of a line that says which data there are, and which machine."""

_STEPS = 3
"""Steps of an epoch whose time is measured."""


class Runner:
    """Trains what is missing; one program at a time in a workdir."""

    def __init__(
        self, book: Book, workdir: pathlib.Path, console: rich.console.Console
    ):
        """Trains nothing yet.

        Args:
            book: What is known.
            workdir: Folder of float networks, and of a lock.
            console: Console for progress.

        Raises:
            RunError: If another program runs a study there.
        """
        workdir.mkdir(parents=True, exist_ok=True)
        self._lock = lock.Lock(workdir)
        self.book, self._workdir, self._console = book, workdir, console
        self._splits: dict[str, Any] = {}
        self._settled: set[str] = set()
        self._measured: dict[str, tuple[float, float]] = {}
        book.lines.on_append = self._say

    def __enter__(self) -> "Runner":
        """Gives itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Lets other programs in."""
        self._lock.release()

    def run(self) -> Iterator[Task]:
        """Trains everything in its order; yields each task that had to be trained."""
        for task in tasks(self.book.study):
            missing = self.book.missing(task)
            if not missing:
                continue
            part, row, _ = task
            try:
                choice = self._choice(part, row, seed=missing[0])
            except entry.NothingWorksError as error:
                self.book.fail(part, row, str(error))  # the others are worth having
            else:
                one = self._entry(part, row, None, missing[0])
                one.tested(choice.setting, missing)
            yield task

    def _choice(self, part: Part, row: str, *, seed: int) -> search.Choice:
        choice = self.book.chosen(part, row)
        if choice is not None:
            return choice
        opened = self._entry(part, row, part.factors, seed)
        choice = opened.choose(by_loss=part.measure != "accuracy")
        return self.book.choose(part, row, choice)

    def _entry(
        self, part: Part, row: str, factors: Sequence[float] | None, seed: int
    ) -> entry.Entry:
        """The entry of a row: of its search, or without `factors` of its tests."""
        searched = factors is not None
        config = part.config_of(row, searched=searched)
        if part.start is not None:
            config.init_from = str(self._float(part.start, seed))
            if part.distil and not searched:
                config.teacher = config.init_from
        return entry.Entry(
            config,
            row,
            entry.Variant(config.method),
            self.book.lines.of(**self.book.head(part, row, searched=searched)),
            problem_of=self._problem,
            factors=factors or (1.0,),
            knobs=False,
            together=0,
            advance=lambda epochs: None,
            momenta=part.momenta if searched else (),
        )

    def _float(self, part: Part, seed: int) -> pathlib.Path:
        """The workdir of a finished float network."""
        choice = self._choice(part, FLOAT, seed=seed)
        head = self.book.head(part, FLOAT, searched=False)
        path = self._workdir / FLOAT / f"{part.name}-{head['setup']}" / f"seed{seed}"
        config = part.config_of(FLOAT, searched=False)
        config.methods[config.method].learning_rate = choice.setting.learning_rate
        config.seed = seed
        begin = time.monotonic()
        quiet = consoles.create(quiet=True)
        found = loop.train_and_evaluate(config.lock(), path.absolute(), console=quiet)
        if seed not in self.book.tested(part, FLOAT):
            names = ("accuracy", "loss", "bits_per_byte")
            measured = {n: found[f"test_{n}"] for n in names if f"test_{n}" in found}
            rate = choice.setting.learning_rate
            line = {"split": "test", "seed": seed, "learning_rate": rate, "options": {}}
            seconds = round(time.monotonic() - begin, 1)
            self.book.lines.append({**head, **line, **measured, "seconds": seconds})
        return path.absolute()

    def _problem(self, config: ml_collections.ConfigDict) -> problem.Problem:
        key, splits = self._data(config)
        self._settle(key, splits.identity())
        return problem.Problem(config, splits=splits)

    def _data(self, config: ml_collections.ConfigDict) -> tuple[str, Any]:
        """The data of a config, which are read once, and their name."""
        names = ("dataset", "num_train", "num_test", "validation")
        key = small_files.dumps([config[name] for name in names])
        if key not in self._splits:
            self._splits[key] = problem.load(config)
        return key, self._splits[key]

    def _settle(self, key: str, identity: dict[str, Any]) -> None:
        """Keeps a digest of data, or checks that they are those of the other lines."""
        if key in self._settled:
            return
        self._settled.add(key)
        digests = [identity[name]["digest"] for name in ("train", "validation", "test")]
        digest = hashlib.sha256("".join(digests).encode()).hexdigest()[:12]
        for line in self.book.lines.records:
            if line["split"] == DATA and line["part"] == key:
                if line["digest"] != digest:
                    raise errors.RunError(
                        f"{self.book.lines.path} is of other data than those of {key} "
                        "here: use the same data set, or another --out."
                    )
                return
        self.book.lines.append(
            {
                **{"part": key, "row": "", "split": DATA, "seed": 0},
                **{"learning_rate": 0.0, "options": {}, "digest": digest},
                "versions": beginning.versions(),
                "device": jax.devices()[0].device_kind,
            }
        )

    def _say(self, line: dict[str, Any]) -> None:
        """Says what a line holds, and how long the rest takes."""
        if line["split"] == DATA:
            return
        rate = f"learning rate {line['learning_rate']:.3g}"
        if line["split"] == CHOSEN and "failure" in line:
            text = measured(line)
        elif line["split"] == CHOSEN:
            options = [f"{name} {value}" for name, value in line["options"].items()]
            text = ", ".join(["chosen: " + rate, *options])
        else:
            text = f"{line['split']}, {rate}, seed {line['seed']}: {measured(line)}"
        seconds, whole = self.time_left(measure=False)
        left = ("" if whole else "at least ") + duration(seconds)
        parts = [f"{line['part']}, {line['row']}", text, f"left: {left}"]
        consoles.say(self._console, "  ".join(parts))

    def time_left(self, *, measure: bool) -> tuple[float, bool]:
        """How long everything that is missing will take.

        Args:
            measure: Whether a step is timed where nothing is known yet.

        Returns:
            Seconds, and whether nothing is left out.
        """
        costs = [
            number * cost if cost is not None else None
            for _, number, cost in self.costs(measure=measure)
        ]
        return sum(cost or 0.0 for cost in costs), None not in costs

    def costs(self, *, measure: bool) -> Iterator[tuple[str, int, float | None]]:
        """What is missing: name of a part, number of trainings, seconds of one."""
        counted: set[tuple[Any, ...]] = set()

        def once(*key: Any) -> bool:
            new = key not in counted
            counted.add(key)
            return new

        for part, row, seeds in tasks(self.book.study):
            missing = self.book.missing(Task(part, row, seeds))
            if not missing:
                continue
            if part.start is not None and once(part.start.name, missing[0]):
                start = Task(part.start, FLOAT, missing)
                searches = self.book.unsearched(part.start, FLOAT)
                if searches and once(part.start.name, "searched"):
                    one = self._cost(*start[:2], searched=True, measure=measure)
                    yield part.start.name, searches, one
                if self.book.missing(start):
                    one = self._cost(*start[:2], searched=False, measure=measure)
                    yield part.start.name, 1, one
            searches = self.book.unsearched(part, row)
            if searches and once(part.group or part.name, row, "searched"):
                cost = self._cost(part, row, searched=True, measure=measure)
                yield part.group or part.name, searches, cost
            cost = self._cost(part, row, searched=False, measure=measure)
            yield part.name, len(missing), cost

    def _cost(
        self, part: Part, row: str, *, searched: bool, measure: bool
    ) -> float | None:
        """Seconds of one training."""
        split = "validation" if searched else "test"
        known = self.book.seconds(part, row, split)
        if known is not None:
            return known
        config = part.config_of(row, searched=searched)
        known = self.book.seconds(part, row, "test" if searched else "validation")
        if known is not None:
            other = part.config_of(row, searched=not searched)
            return known * config.num_epochs / other.num_epochs
        key = small_files.dumps([config.dataset, config.model_options.to_dict()])
        if key not in self._measured:
            if not measure:
                return None
            self._measured[key] = self._step(config)
        step, once = self._measured[key]
        _, splits = self._data(config)
        steps = len(splits.train) // config.batch_size * config.num_epochs
        forward = len(getattr(splits, split)) / config.batch_size / 3
        return (steps * (1 + part.distil / 3) + forward) * step + once

    def _step(self, config: ml_collections.ConfigDict) -> tuple[float, float]:
        """Seconds of a step, and of what a training takes besides its steps."""
        config = config.copy_and_resolve_references()
        config.update(num_epochs=2, reestimate_batches=1, warmup_epochs=0.0)
        config.num_train = _STEPS * config.batch_size
        config.num_test = config.eval_batch_size
        rate = config.methods[config.method].learning_rate
        alone = lambda one: problem.Problem(one, splits=self._data(one)[1])
        begin = time.monotonic()
        trainer = trials.Trainer(config, config.method, problem_of=alone)
        found = trainer.train(
            [trials.Trial(0, rate)], split="test", advance=lambda epochs: None
        )
        [(_, outcome)] = found
        if "failure" in outcome:
            raise errors.RunError(f"a step cannot be timed: {outcome['failure']}")
        step = outcome["seconds_per_epoch"] / _STEPS
        return step, max(time.monotonic() - begin - 2 * _STEPS * step, 0.0)


def measured(line: dict[str, Any]) -> str:
    """What a line has measured, in words."""
    if "failure" in line:
        return f"failed: {line['failure']}"
    if "bits_per_byte" in line:
        return f"{line['bits_per_byte']:.3f} bits per byte"
    return f"{100 * line['accuracy']:.2f} %"


def duration(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> duration(40), duration(150), duration(5000)
        ('40 s', '2.5 min', '1.4 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
