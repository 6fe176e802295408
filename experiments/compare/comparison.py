"""Trains methods under the same conditions, and says which is better and how surely."""

import functools
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
import rich.console

from experiments import console as consoles
from experiments import errors, fields, methods
from experiments.compare import entry, outcomes, search, tables, tuning
from experiments.data import datasets, memory
from experiments.runs import identity, small_files, workdir
from experiments.training import checks, problem

_MOMENTA = {"momenta": fields.Several(fields.Number(0, 1, below=True))}


def compare_config(
    config: ml_collections.ConfigDict,
    variants: Mapping[str, entry.Variant] | Sequence[str],
    workdir_path: str | pathlib.Path,
    *,
    seeds: int = 5,
    factors: Sequence[float] = search.FACTORS,
    knobs: bool = True,
    together: int = 0,
    momenta: Sequence[float] = (),
    baseline: str = "ste",
    tune: bool = False,
    console: rich.console.Console | None = None,
) -> list[dict[str, Any]]:
    """Trains all methods, and writes `table.md`, `table.json` and `table.png`.

    Args:
        config: A config with the fields of `configs/base.py`. Its `method` and `seed`
            are ignored.
        variants: Variants by the name of their rows; or names of `methods.METHODS`.
        workdir_path: Folder of the results, which may hold results already.
        seeds: Number of networks that are tested for each method.
        factors: First learning rates of the search, in units of the method's default.
        knobs: Whether the method's option in `search.KNOBS` is also chosen.
        together: Trials in one compiled program; 0 chooses automatically.
        momenta: Values of `config.momentum` that are tried besides its own, for methods
            that leave their optimiser open.
        baseline: The method that the others are compared with.
        tune: Whether only learning rates are chosen, from more of them, and no test
            example is used; `tuned.md` and `tuned.json` are written instead.
        console: Console for progress. Default: standard output.

    Returns:
        Rows of the table; see `tables.row` and `tuning.row`.

    Images that training streams, such as those of a folder, are decoded once and kept
    in memory, as evaluation sees them: without random crops.

    Raises:
        RunError: If the comparison cannot start.
    """
    checks.check_common(config)
    opened = checks.settled(config)
    config = opened.copy_and_resolve_references()
    config.resident = True

    def load():
        splits = problem.load(opened)
        if not isinstance(
            splits.train, datasets.Arrays
        ):  # one's own data, which are streamed
            size = opened.image_size or None
            splits = memory.decoded(splits, image_size=size)
        return splits, functools.partial(problem.Problem, splits=splits)

    return compare_problems(
        config,
        variants,
        workdir_path,
        load=load,
        seeds=seeds,
        factors=factors,
        knobs=knobs,
        together=together,
        momenta=momenta,
        baseline=baseline,
        tune=tune,
        console=console,
    )


def compare_problems(
    config: ml_collections.ConfigDict,
    variants: Mapping[str, entry.Variant] | Sequence[str],
    workdir_path: str | os.PathLike[str],
    *,
    load: Callable[[], tuple[datasets.Splits[Any], Callable[..., problem.Problem]]],
    seeds: int,
    factors: Sequence[float],
    knobs: bool,
    together: int,
    baseline: str,
    tune: bool,
    console: rich.console.Console | None,
    momenta: Sequence[float] = (),
) -> list[dict[str, Any]]:
    """Compares like `compare_config`, with data and networks given by `load`.

    Args:
        config: Config of all rows; all of it but the methods is already checked.
        variants: Rows to train.
        workdir_path: Folder of the results.
        load: Returns the data, and the function from a config to its problem. Called
            once, after everything else has been checked.
        seeds: Number of networks that are tested for each method.
        factors: First learning rates of the search, in units of the default.
        knobs: Whether the method's option in `search.KNOBS` is also chosen.
        together: Trials in one compiled program; 0 chooses automatically.
        baseline: Row that the others are compared with.
        tune: Whether only learning rates are chosen.
        console: Console for progress. Default: standard output.
        momenta: Values of `config.momentum` that are tried besides its own.
    """
    console = console or consoles.create()
    if not isinstance(variants, Mapping):
        if len(set(variants)) < len(variants):
            raise errors.RunError(f"a method is named twice: {', '.join(variants)}.")
        variants = {name: entry.Variant(name) for name in variants}
    _check(variants, seeds, factors, together, tune)
    fields.check({"momenta": tuple(momenta)}, _MOMENTA, prefix="--")
    folder = workdir.Workdir(workdir_path, _common(config), upgrade=_upgraded)
    splits, problem_of = load()
    origin = {"data": splits.identity()}
    begun = (folder.path / "trials").exists()
    for message in folder.settle_origin(origin, begun=begun):
        consoles.say(console, message)
    if not len(splits.validation):
        raise errors.RunError(
            "learning rates are chosen on validation examples, and this config has "
            "none: pass --config.validation=0.1."
        )
    with consoles.bar(console, "epochs") as bar:
        task = bar.add_task("")
        entries = [
            entry.Entry(
                config,
                name,
                variant,
                outcomes.Folder(folder.path / "trials" / name),
                problem_of=problem_of,
                factors=factors,
                knobs=knobs,
                together=together,
                advance=functools.partial(bar.advance, task),
                momenta=momenta,
            )
            for name, variant in variants.items()
        ]
        planned = [
            (one.num_rates() if tune else one.num_trials(seeds)) * config.num_epochs
            for one in entries
        ]
        bar.update(task, total=sum(planned))
        rows = []
        for number, (name, one) in enumerate(zip(variants, entries, strict=True)):
            bar.update(task, description=name)
            rows.append(one.tuned() if tune else one.row(seeds))
            bar.update(task, completed=sum(planned[: number + 1]))
            parts = tuning.parts if tune else _parts
            consoles.say(console, consoles.fitted(console, parts(rows[-1])))
    if not tune:
        rows = tables.compare_rows(rows, baseline=baseline)
    try:
        if tune:
            small_files.write_json(folder.path / "tuned.json", rows)
            small_files.write(folder.path / "tuned.md", tuning.markdown(rows))
            return rows
        small_files.write_json(folder.path / "table.json", rows)
        table = tables.markdown(rows, baseline=baseline)
        small_files.write(folder.path / "table.md", table)
        if any("mean" in one for one in rows):
            tables.draw(folder.path / "table.png", rows, baseline=baseline)
    except OSError as error:
        raise errors.RunError(
            f"cannot write the table in {folder.path}: {error}. The trials are "
            "complete: the same command writes the table from them."
        ) from error
    return rows


def _common(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What all rows have in common, as JSON."""
    fields = identity.stored(config)
    return {
        name: value
        for name, value in fields.items()
        if name not in ("method", "methods", "seed")
    }


def _upgraded(found: Mapping[str, Any]) -> dict[str, Any]:
    """The result of `_common` in today's form, for the file of a folder."""
    return _common(identity.config_of(found))


def _check(
    variants: Mapping[str, entry.Variant],
    seeds: int,
    factors: Sequence[float],
    together: int,
    tune: bool,
) -> None:
    """Checks the arguments before anything is trained.

    Raises:
        RunError: If one is wrong. The message names the argument.
    """
    if not variants:
        raise errors.RunError(
            "name at least one method, for example --methods=ste,adaste."
        )
    for variant in variants.values():
        if variant.method not in methods.METHODS:
            raise errors.RunError(
                fields.unknown("method", variant.method, {*methods.METHODS, "all"})
            )
    if seeds < 1:
        raise errors.RunError(f"--seeds must be at least 1, got {seeds}.")
    if not factors or not all(0 < factor < math.inf for factor in factors):
        raise errors.RunError(
            f"--learning_rates must be factors above 0, got {list(factors)}."
        )
    if tune and set(factors) == {1.0}:
        raise errors.RunError(
            "--tune chooses among learning rates: give --learning_rates another than 1."
        )
    if together < 0:
        raise errors.RunError(f"--together must be at least 0, got {together}.")


def _parts(found: dict[str, Any]) -> list[str]:
    """The parts of the line that says the result of a row."""
    if "failure" in found:
        return [f"{found['method']}  failed: {found['failure']}"]
    spread = "" if found["std"] is None else f" ± {100 * found['std']:.2f}"
    options = [f"{name} {value}" for name, value in found["options"].items()]
    return [
        found["method"],
        f"test {100 * found['mean']:.2f}{spread} %",
        ", ".join([f"learning rate {found['learning_rate']:.3g}", *options]),
    ]
