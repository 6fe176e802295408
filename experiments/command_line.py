"""Starts a program; what is wrong with its flags is said without a traceback."""

import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags

from experiments import console as consoles
from experiments import errors

HELP = "Pass --helpshort or --helpfull to see help on flags."


def run(main: Callable[[list[str]], Any]) -> None:
    """As `absl.app.run`, for programs with the flag `--config`.

    Args:
        main: Gets the arguments that are no flags.
    """
    consoles.program()
    app.run(main, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
        _ = flags.FLAGS.config.seed  # a file that is missing is found out here
        return rest
    except (AttributeError, KeyError) as error:
        message = (
            f"--config has no field {_reason(error)}\n"
            "The fields and their meaning: experiments/configs/base.py."
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
    """The words within errors within errors."""
    first = error.args[0] if error.args else ""
    return _reason(first) if isinstance(first, BaseException) else str(first)
