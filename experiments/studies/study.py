"""What a study trains, in which order, and what is known of it so far.

A study has parts, such as a network and its data, and each part has rows, such as a
method. For every row the learning rate is chosen on validation; then networks are
trained with paired seeds, in rounds: first a few seeds of everything, then more. Every
finished training is a line of one file, and is never repeated. `runner.py` trains.
"""

import dataclasses
import hashlib
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from experiments.compare import outcomes, search
from experiments.runs import identity, small_files

CHOSEN = "chosen"
"""The split of the line that says what a search has chosen."""

FLOAT = "float"
"""The row of a part whose networks others start from."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a part.

    Attributes:
        method: Name of its method.
        options: Options of the method that differ from the config.
        model: Options of the network that differ from the config.
        most: The largest number of seeds.
    """

    method: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    most: int = 1000


@dataclasses.dataclass(frozen=True)
class Part:
    """Rows that are compared with each other.

    Attributes:
        name: Name of the part.
        config: What is trained for the test.
        rows: The rows, the most important first.
        searched: What is trained to choose learning rates, if not `config`.
        group: Parts of one group share their searches. Default: a part on its own.
        factors: First learning rates of the search, in units of the default.
        momenta: Values of the momentum that are tried besides that of the config.
        start: The part whose only row, `FLOAT`, has the network to start from.
        distil: Whether that network is the teacher too.
        measure: "accuracy", or "bits_per_byte", of which less is better.
        asked: Whether it is trained only where the command line names it.
    """

    name: str
    config: ml_collections.ConfigDict
    rows: Mapping[str, Row]
    searched: ml_collections.ConfigDict | None = None
    group: str = ""
    factors: Sequence[float] = search.FACTORS
    momenta: Sequence[float] = ()
    start: "Part | None" = None
    distil: bool = False
    measure: str = "accuracy"
    asked: bool = False

    def config_of(self, row: str, *, searched: bool) -> ml_collections.ConfigDict:
        """The config of a row, with its method and options."""
        one = self.rows[row]
        base = self.searched if searched and self.searched else self.config
        config = base.copy_and_resolve_references()
        config.method = one.method
        config.methods[one.method].update(one.options)
        config.model_options.update(one.model)
        return config

    def setup(self, row: str, *, searched: bool) -> str:
        """Twelve digits that change with everything that a line depends on."""
        config = self.config_of(row, searched=searched)
        found: list[Any] = [identity.changed(config)]
        if self.start is not None:
            start = self.start.setup(FLOAT, searched=False)
            found += [start, self.distil and not searched]
        if searched:
            found += [list(self.factors), list(self.momenta), self.measure]
        text = small_files.dumps(found)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def rated(config: ml_collections.ConfigDict, rate: float) -> ml_collections.ConfigDict:
    """A copy with one learning rate for all methods, from which they search.

    That of full precision is 1e-3, its default.
    """
    config = config.copy_and_resolve_references()
    for name, options in config.methods.items():
        options.learning_rate = 1e-3 if name == "full_precision" else rate
    return config


class Study(NamedTuple):
    """A question, and what is trained to answer it.

    Attributes:
        name: Name of its file of lines and of its page.
        parts: The parts, the most important first.
        rounds: Numbers of seeds: all parts get the first number, then the second.
    """

    name: str
    parts: Sequence[Part]
    rounds: Sequence[int]


class Task(NamedTuple):
    """A row of a part, and seeds that it is trained with one after the other."""

    part: Part
    row: str
    seeds: Sequence[int]


def tasks(study: Study) -> Iterator[Task]:
    """Everything in its order: by rounds, parts, rows.

    Where networks start from a float network, each seed has one of its own, and a row
    is a task for each.
    """
    before = 0
    for number in study.rounds:
        for part in study.parts:
            seeds = list(range(before + 1, number + 1))
            alone = [[seed] for seed in seeds]
            for group in alone if part.start is not None else [seeds]:
                for row, one in part.rows.items():
                    wanted = [seed for seed in group if seed <= one.most]
                    if wanted:
                        yield Task(part, row, wanted)
        before = number


class Book:
    """What is known of a study: the lines of its file."""

    def __init__(self, study: Study, path: pathlib.Path):
        """Reads the lines.

        Raises:
            RunError: If the file cannot be read.
        """
        self.study, self.lines = study, outcomes.Lines(path)
        self._setups: dict[tuple[str, str, bool], str] = {}

    def head(self, part: Part, row: str, *, searched: bool) -> dict[str, Any]:
        """What the lines of a row have in common."""
        key = part.name, row, searched
        if key not in self._setups:
            self._setups[key] = part.setup(row, searched=searched)
        name = part.group if searched and part.group else part.name
        return {"part": name, "row": row, "setup": self._setups[key]}

    def chosen(self, part: Part, row: str) -> search.Choice | None:
        """What the search of a row has chosen; None if it has chosen nothing."""
        for one in self._all(part, row, CHOSEN):
            if "failure" in one:
                return None
            options = tuple(one["options"].items())
            setting = search.Setting(one["learning_rate"], options)
            return search.Choice(setting, one["at_edge"])
        return None

    def choose(self, part: Part, row: str, choice: search.Choice) -> search.Choice:
        """Keeps what a search has chosen, and returns it as it is read again."""
        rate = float(f"{choice.setting.learning_rate:.6g}")
        line = {
            **self.head(part, row, searched=True),
            "split": CHOSEN,
            "seed": search.SEED,
            "learning_rate": rate,
            "options": dict(choice.setting.options),
            "at_edge": choice.at_edge,
        }
        self.lines.append(line)
        setting = search.Setting(rate, choice.setting.options)
        return search.Choice(setting, choice.at_edge)

    def failure(self, part: Part, row: str) -> str | None:
        """Why nothing could be chosen, if that is so."""
        for one in self._all(part, row, CHOSEN):
            return one.get("failure")
        return None

    def fail(self, part: Part, row: str, why: str) -> None:
        """Keeps that every learning rate of a row failed."""
        line = {"split": CHOSEN, "seed": search.SEED, "learning_rate": 0.0}
        head = self.head(part, row, searched=True)
        self.lines.append({**head, **line, "options": {}, "failure": why})

    def tested(self, part: Part, row: str) -> dict[int, dict[str, Any]]:
        """The lines of a row with its chosen setting, by seed."""
        choice = self.chosen(part, row)
        if choice is None:
            return {}
        rate, options = choice.setting
        return {
            one["seed"]: one
            for one in self._all(part, row, "test")
            if one["learning_rate"] == rate and one["options"] == dict(options)
        }

    def missing(self, task: Task) -> list[int]:
        """Seeds of a task that have no line; none if its search failed."""
        if self.failure(task.part, task.row) is not None:
            return []
        found = self.tested(task.part, task.row)
        return [seed for seed in task.seeds if seed not in found]

    def unsearched(self, part: Part, row: str) -> int:
        """How many trainings of a search are missing, if it is not extended."""
        planned = len(part.factors) + len(part.momenta)
        if self._all(part, row, CHOSEN) or planned == 1:
            return 0
        return max(planned - len(self._all(part, row, "validation")), 0)

    def seconds(self, part: Part, row: str, split: str) -> float | None:
        """The median time of a training of a row, or of its part; None if unknown."""
        for rows in ([row], part.rows):
            found = [
                one["seconds"]
                for name in rows
                for one in self._all(part, name, split)
                if part.rows[name].model == part.rows[row].model
            ]
            if found:
                return statistics.median(found)
        return None

    def _all(self, part: Part, row: str, split: str) -> list[dict[str, Any]]:
        head = self.head(part, row, searched=split != "test")
        return [
            one
            for one in self.lines.records
            if one["split"] == split and head.items() <= one.items()
        ]
