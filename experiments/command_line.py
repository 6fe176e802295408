"""Starts a program; errors in its flags are printed without a traceback."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import rich.console
from absl import app, flags

from experiments import console as consoles
from experiments import errors, fields

HELP = "Pass --helpshort or --helpfull to see help on flags."


def run(main: Callable[[list[str]], Any]) -> None:
    """Runs a program with the flag `--config`; see `absl.app.run`.

    Args:
        main: Function of the arguments that are not flags.
    """
    consoles.program()
    app.run(main, flags_parser=_parse)


@contextlib.contextmanager
def refusals(console: rich.console.Console) -> Iterator[None]:
    """Ends the program with status 1 at a `RunError`, and prints its message."""
    try:
        yield
    except errors.RunError as error:
        consoles.say_error(console, error)
        sys.exit(errors.FAILED)


def whole(least: int = 0) -> Callable[[str], int]:
    """The type of an `argparse` flag for whole numbers of at least `least`.

    Flags of absl have `lower_bound` for this.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> _ = parser.add_argument("--num_test", type=whole(), default=0)
        >>> parser.parse_args(["--num_test=20"]).num_test
        20
    """

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= fields.MOST_WHOLE:
            raise argparse.ArgumentTypeError(
                f"must be a whole number >= {least}, got {text!r}"
            )
        return number

    return parse


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
        _ = flags.FLAGS.config.seed  # a file that is missing is found out here
        return rest
    except (AttributeError, KeyError) as error:
        message = (
            f"--config has no field {_reason(error)}\n"
            "All fields are described in experiments/configs/base.py."
        )
    except OSError as error:
        message = str(error).partition("failure to load: ")[2] or str(error)
    except flags.Error as error:
        # What a `get_config` refuses comes with its traceback, as text.
        _, refused, reason = str(error).rpartition("\nValueError: ")
        message = f"--config: {reason.strip()}" if refused else f"{error}\n{HELP}"
    consoles.say_error(consoles.create(), message)
    sys.exit(errors.FAILED)


def _reason(error: BaseException) -> str:
    """The text of the innermost error."""
    first = error.args[0] if error.args else ""
    return _reason(first) if isinstance(first, BaseException) else str(first)
