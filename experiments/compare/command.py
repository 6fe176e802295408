"""The command line of comparisons: its flags, and the table it prints.

The docstring of `experiments.compare` has an example.
"""

from collections.abc import Mapping, Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from experiments import command_line, errors, methods
from experiments import console as consoles
from experiments.compare import entry, search, tables, tuning
from experiments.compare.comparison import compare_config

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "What to train: the name of a config, or a file.",
    lock_config=True,
)
flags.mark_flag_as_required("config")
_METHODS = flags.DEFINE_list("methods", ["all"], "Names of methods, or all.")
_SEEDS = flags.DEFINE_integer(
    "seeds", 5, "Seeds per method: networks that are trained and tested.", lower_bound=1
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the results.", required=True)
_FACTORS = flags.DEFINE_list(
    "learning_rates",
    [str(factor) for factor in search.FACTORS],
    "First learning rates of the search, in units of the method's default.",
)
_KNOBS = flags.DEFINE_bool(
    "knobs", True, "Also choose the method's option in search.KNOBS."
)
_TOGETHER = flags.DEFINE_integer(
    "together",
    0,
    "Trials in one compiled program; 0 chooses automatically.",
    lower_bound=0,
)
_MOMENTA = flags.DEFINE_list(
    "momenta", [], "Also choose the momentum of Adam, from these and the config's."
)
_BASELINE = flags.DEFINE_string(
    "baseline", "ste", "Method that the others are compared with."
)
_TUNE = flags.DEFINE_bool(
    "tune",
    False,
    "Only choose learning rates on validation, from more of them; nothing is tested.",
)


def main(argv: list[str]) -> None:
    """Compares the methods given by the flags."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    names = sorted(methods.METHODS) if _METHODS.value == ["all"] else _METHODS.value
    from_flags(names)


def from_flags(variants: Mapping[str, entry.Variant] | Sequence[str]) -> None:
    """Compares as the command line says, and prints the table."""
    logging.set_verbosity(logging.ERROR)
    console = consoles.program()
    with command_line.refusals(console):
        rows = compare_config(
            _CONFIG.value,
            variants,
            _WORKDIR.value,
            seeds=_SEEDS.value,
            factors=_numbers("learning_rates", _FACTORS.value),
            knobs=_KNOBS.value,
            together=_TOGETHER.value,
            momenta=_numbers("momenta", _MOMENTA.value),
            baseline=_BASELINE.value,
            tune=_TUNE.value,
            console=console,
        )
    if _TUNE.value:
        tuning.show(console, rows)
    else:
        tables.show(console, rows, baseline=_BASELINE.value)
    consoles.say(console, f"results in {_WORKDIR.value}")


def _numbers(flag: str, texts: Sequence[str]) -> list[float]:
    """The numbers in a flag.

    Raises:
        RunError: If one is not a number.
    """
    try:
        return [float(text) for text in texts]
    except ValueError as error:
        raise errors.RunError(f"--{flag} must be numbers: {error}.") from error
