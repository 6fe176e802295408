"""Trains methods alike, and says which is better and how sure that is.

    python -m experiments.compare --config=experiments/configs/quickstart.py \
        --methods=full_precision,ste,adaste --seeds=10 --workdir=runs/compare \
        [--learning_rates=0.3,1,3] [--config.field=value ...]

Network, data, their order, epochs, augmentation and evaluation are the same for all
methods: the deployed network of the last epoch, with batch-norm statistics taken anew
where the training weights were soft. For each method the learning rate, and the option
that matters most beside it, are chosen on the validation split, as `search` says. Then
it is trained with seeds 1 to N, and the test split is looked at once.

A method that fails is a row that says so. What is finished stands in the workdir: the
same command goes on where it was interrupted, and methods and seeds may be added.
"""

import functools
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import rich.console
from absl import app, flags, logging
from ml_collections import config_flags

from experiments import (
    checks,
    command_line,
    entry,
    errors,
    fields,
    identity,
    methods,
    run,
    search,
    small_files,
    tables,
    workdir,
)
from experiments import console as consoles


def compare(
    config: ml_collections.ConfigDict,
    variants: Mapping[str, entry.Variant] | Sequence[str],
    workdir_path: str | pathlib.Path,
    *,
    seeds: int = 5,
    factors: Sequence[float] = search.FACTORS,
    knobs: bool = True,
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
        factors: Learning rates to begin the search with, in units of the method's
            default.
        knobs: Whether the option of `search.KNOBS` is chosen too.
        together: See `trials.choose_together`.
        baseline: The method that differences are taken to.
        console: Where progress is shown. Default: standard output.

    Returns:
        Rows of the table; see `tables`.

    Raises:
        RunError: If the comparison cannot start.
    """
    console = console or consoles.create()
    if not isinstance(variants, Mapping):
        if len(set(variants)) < len(variants):
            raise errors.RunError(f"a method is named twice: {', '.join(variants)}.")
        variants = {name: entry.Variant(name) for name in variants}
    _check(config, variants, seeds, factors, together)
    folder = workdir.Workdir(workdir_path, _common(config), upgrade=_upgraded)
    splits = run.load(config)
    origin = {"data": splits.identity()}
    begun = (folder.path / "trials").exists()
    for message in folder.settle_origin(origin, begun=begun):
        consoles.say(console, message)
    if not len(splits.validation):
        raise errors.RunError(
            "learning rates are chosen on validation examples, and this config keeps "
            "none: pass --config.validation=0.1."
        )
    with consoles.bar(console, "epochs") as bar:
        task = bar.add_task("")
        entries = [
            entry.Entry(
                config,
                name,
                variant,
                folder.path / "trials" / name,
                splits=splits,
                factors=factors,
                knobs=knobs,
                together=together,
                advance=functools.partial(bar.advance, task),
            )
            for name, variant in variants.items()
        ]
        planned = [one.num_trials(seeds) * config.num_epochs for one in entries]
        bar.update(task, total=sum(planned))
        rows = []
        for number, (name, one) in enumerate(zip(variants, entries, strict=True)):
            bar.update(task, description=name)
            rows.append(one.row(seeds))
            bar.update(task, completed=sum(planned[: number + 1]))
            consoles.say(console, _line(rows[-1]))
    rows = tables.compare_rows(rows, baseline=baseline)
    try:
        small_files.write_json(folder.path / "table.json", rows)
        table = tables.markdown(rows, baseline=baseline)
        small_files.write(folder.path / "table.md", table)
        if any("mean" in one for one in rows):
            tables.draw(folder.path / "table.png", rows, baseline=baseline)
    except OSError as error:
        raise errors.RunError(
            f"cannot write the table in {folder.path}: {error}. The trials are whole: "
            "the same command makes it from them."
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
    """What `_common` gives today for the file of a folder."""
    return _common(identity.config_of(found))


def _check(
    config: ml_collections.ConfigDict,
    variants: Mapping[str, entry.Variant],
    seeds: int,
    factors: Sequence[float],
    together: int,
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
                fields.unknown("method", variant.method, {*methods.METHODS, "all"})
            )
    if seeds < 1:
        raise errors.RunError(f"--seeds must be at least 1, got {seeds}.")
    if not factors or not all(0 < factor < math.inf for factor in factors):
        raise errors.RunError(
            f"--learning_rates must be factors above 0, got {list(factors)}."
        )
    if together < 0:
        raise errors.RunError(f"--together must be at least 0, got {together}.")
    checks.check_common(config)
    if not config.resident:
        raise errors.RunError("a comparison needs config.resident to be True.")


def _line(found: dict[str, Any]) -> str:
    if "failure" in found:
        return f"{found['method']}  failed: {found['failure']}"
    spread = "" if found["std"] is None else f" ± {100 * found['std']:.2f}"
    options = "".join(f", {name} {value}" for name, value in found["options"].items())
    return (
        f"{found['method']}  test {100 * found['mean']:.2f}{spread} %  "
        f"learning rate {found['learning_rate']:.3g}{options}"
    )


_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "What to train: a file of experiments/configs.", lock_config=True
)
flags.mark_flag_as_required("config")
_METHODS = flags.DEFINE_list("methods", ["all"], "Names of methods, or all.")
_SEEDS = flags.DEFINE_integer(
    "seeds", 5, "Networks that are tested for each method.", lower_bound=1
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the results.", required=True)
_FACTORS = flags.DEFINE_list(
    "learning_rates",
    [str(factor) for factor in search.FACTORS],
    "Learning rates to begin the search with, in units of the method's default.",
)
_KNOBS = flags.DEFINE_bool("knobs", True, "Choose the option of search.KNOBS too.")
_TOGETHER = flags.DEFINE_integer(
    "together", 0, "Trials in one compiled program; 0 chooses.", lower_bound=0
)
_BASELINE = flags.DEFINE_string("baseline", "ste", "Method to take differences to.")


def main(argv: list[str]) -> None:
    """Compares the methods that are named."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    names = sorted(methods.METHODS) if _METHODS.value == ["all"] else _METHODS.value
    from_flags(names)


def from_flags(variants: Mapping[str, entry.Variant] | Sequence[str]) -> None:
    """Compares as the command line says, and prints the table."""
    logging.set_verbosity(logging.ERROR)
    console = consoles.program()
    try:
        rows = compare(
            _CONFIG.value,
            variants,
            _WORKDIR.value,
            seeds=_SEEDS.value,
            factors=_numbers(_FACTORS.value),
            knobs=_KNOBS.value,
            together=_TOGETHER.value,
            baseline=_BASELINE.value,
            console=console,
        )
    except errors.RunError as error:
        consoles.say_error(console, error)
        sys.exit(1)
    table = tables.markdown(rows, baseline=_BASELINE.value)
    consoles.say(console, table)
    consoles.say(console, f"results in {_WORKDIR.value}")


def _numbers(texts: Sequence[str]) -> list[float]:
    """Numbers of a flag.

    Raises:
        RunError: If one is none.
    """
    try:
        return [float(text) for text in texts]
    except ValueError as error:
        raise errors.RunError(f"--learning_rates must be numbers: {error}.") from error


if __name__ == "__main__":
    command_line.run(main)
