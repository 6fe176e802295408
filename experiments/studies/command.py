"""The command line of studies that run in the background."""

import pathlib
from collections.abc import Callable, Mapping, Sequence

import rich.console

from experiments import command_line
from experiments import console as consoles
from experiments.studies import runner
from experiments.studies.study import Book, Study


def run(
    module: str,
    about: str,
    questions: Mapping[str, Callable[[bool], Study]],
    write_page: Callable[[Book, pathlib.Path], None],
    argv: Sequence[str] | None,
) -> None:
    """Runs a study as the command line says.

    Args:
        module: Module of the program.
        about: What it does.
        questions: Studies by name, each a function that is told whether to be small.
        write_page: Writes the page from what is known.
        argv: Arguments. Default: those of the process.
    """
    parser = command_line.Parser(module, about)
    if len(questions) > 1:
        parser.add_argument("question", choices=list(questions))
    parser.add_argument("--workdir", help="folder of float networks and of a lock")
    parser.add_argument(
        "--out", default="docs/results", help="folder of the lines and of the page"
    )
    parser.add_argument("--parts", help="only parts whose name begins so: A;B")
    parser.add_argument(
        "--seeds", type=command_line.whole(1), help="at most so many seeds"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="a small study, which takes seconds"
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="only say how long it takes"
    )
    parser.add_argument("--page", action="store_true", help="only write the page")
    given = parser.parse_args(argv)
    name = given.question if len(questions) > 1 else next(iter(questions))
    console = consoles.program()
    out = pathlib.Path(given.out)
    with command_line.refusals(console):
        study = questions[name](given.smoke)
        whole = Book(study, out / f"{study.name}.jsonl")
        if given.page:
            write_page(whole, out)
            return
        if not given.workdir:
            parser.error("--workdir is needed")
        chosen = _chosen(parser, study, given.parts, given.seeds)
        book = Book(chosen, out / f"{study.name}.jsonl")
        with runner.Runner(book, pathlib.Path(given.workdir), console) as one:
            if given.dry_run:
                _estimate(one, console)
                return
            for _ in one.run():
                whole.lines = book.lines
                write_page(whole, out)
        whole.lines = book.lines
        write_page(whole, out)


def _chosen(
    parser: command_line.Parser, study: Study, names: str | None, seeds: int | None
) -> Study:
    """The parts and the seeds of a study that the command line names."""
    if names:
        wanted = [name.strip() for name in names.split(";")]
        unknown = [
            name
            for name in wanted
            if not any(part.name.startswith(name) for part in study.parts)
        ]
        if unknown:
            known = "; ".join(part.name for part in study.parts)
            parser.error(
                f"--parts: no part begins with {unknown[0]!r}; there are {known}"
            )
        kept = [part for part in study.parts if part.name.startswith(tuple(wanted))]
    else:
        kept = [part for part in study.parts if not part.asked]
    study = study._replace(parts=kept)
    if seeds:
        rounds = sorted({min(number, seeds) for number in study.rounds})
        study = study._replace(rounds=rounds)
    return study


def _estimate(one: runner.Runner, console: rich.console.Console) -> None:
    """Says what is missing and how long it takes, by part."""
    counts: dict[str, tuple[int, float]] = {}
    for part, number, cost in one.costs(measure=True):
        before = counts.get(part, (0, 0.0))
        counts[part] = before[0] + number, before[1] + number * (cost or 0.0)
    for part, (number, seconds) in counts.items():
        consoles.say(console, f"{part}: {number} trainings, {runner.duration(seconds)}")
    total = sum(number for number, _ in counts.values())
    seconds = sum(cost for _, cost in counts.values())
    consoles.say(console, f"in all: {total} trainings, {runner.duration(seconds)}")
