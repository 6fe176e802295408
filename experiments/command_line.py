"""Starts a program; errors in its flags are printed without a traceback."""

import argparse
import contextlib
import difflib
import inspect
import pathlib
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

import rich.console
from absl import app, flags

from experiments import console as consoles
from experiments import errors, fields

CONFIGS = pathlib.Path(__file__).parent / "configs"
HELP = "Pass --help to see the flags."
_NO_CONFIGS = ("__init__", "base", "protocols")
_HELP_FLAGS = ("--help", "-help", "-h", "--helpshort")


def run(main: Callable[[list[str]], Any], about: str | None) -> None:
    """Runs a program with the flag `--config`; see `absl.app.run`.

    Args:
        main: Function of the arguments that are not flags.
        about: What `--help` says of the program, before its flags.
    """
    consoles.program()
    app.run(main, flags_parser=lambda argv: _parse(argv, about or ""))


class Parser(argparse.ArgumentParser):
    """The parser of a program without `--config`; it guesses what was mistyped."""

    def __init__(self, module: str, description: str) -> None:
        """A parser without flags.

        Args:
            module: Module of the program.
            description: What it does.
        """
        started = sys.argv[0]  # `adaste export` where the command was typed like that
        name = started if started.startswith("adaste ") else f"python -m {module}"
        super().__init__(prog=name, description=description)

    def refuse(
        self, given: argparse.Namespace, names: Iterable[str], *, beside: str
    ) -> None:
        """Ends with an error at the first flag that was given and would be ignored.

        Args:
            given: The parsed arguments.
            names: Flags that mean nothing here, without dashes.
            beside: The flag with which they do not go.
        """
        for name in names:
            if getattr(given, name) != self.get_default(name):
                self.error(f"--{name} does not go with {beside}")

    def error(self, message: str) -> NoReturn:
        """Prints what is wrong with the arguments, and exits with status 2."""
        if message.startswith("unrecognized arguments: "):
            given = message.split()[2].partition("=")[0]
            near = difflib.get_close_matches(given, self._option_string_actions, n=1)
            message += f" (did you mean {near[0]}?)" if near else ""
        super().error(message)


def config_names() -> list[str]:
    """Names of the configs that come with the programs."""
    names = {file.stem for file in CONFIGS.glob("*.py")}
    return sorted(names.difference(_NO_CONFIGS))


def config_file(value: str) -> str:
    """The file of a config, which is named by its path or by its name.

    Args:
        value: `FILE`, `FILE:VARIANT`, `NAME` or `NAME:VARIANT`. A path below
            experiments/configs that is not found here is one of the installed configs.

    Returns:
        The same with the path of a file.

    Raises:
        ValueError: If there is no config of this name; it lists them.
    """
    path, colon, variant = value.partition(":")
    name = path.removeprefix("experiments/configs/").removesuffix(".py")
    if not path or pathlib.Path(path).is_file():
        return value
    if name in config_names():
        return f"{CONFIGS / name}.py{colon}{variant}"
    if path != name:
        return value  # a path that is wrong: the error names it
    raise ValueError(fields.unknown("config", path, config_names()))


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


def _parse(argv: list[str], about: str) -> list[str]:
    if any(flag in argv for flag in _HELP_FLAGS):
        consoles.say(consoles.create(), _help(about))
        sys.exit()
    try:
        rest = flags.FLAGS(list(_with_files(argv)))
        _ = flags.FLAGS.config.seed  # a file that is missing is found out here
        return rest
    except (AttributeError, KeyError) as error:
        message = f"--config has no field {_reason(error)}\n--help lists all fields."
    except OSError as error:
        message = str(error).partition("failure to load: ")[2] or str(error)
    except ValueError as error:
        message = f"--config: {error}"
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


def _with_files(argv: Sequence[str]) -> Iterator[str]:
    """The arguments, with files in the place of names of configs."""
    before = ""
    for argument in argv:
        flag, equals, value = argument.partition("=")
        if flag in ("--config", "-config") and equals:
            yield f"{flag}={config_file(value)}"
        else:
            yield (
                config_file(argument) if before in ("--config", "-config") else argument
            )
        before = argument


def _help(about: str) -> str:
    """What the program does, and its flags with their defaults."""
    modules = flags.FLAGS.flags_by_module_dict()
    if sys.argv[0].startswith("adaste "):
        about = re.sub(r"python -m experiments\.\w+", sys.argv[0], about)
    lines = [inspect.cleandoc(about), "", "flags:"]
    for module, group in modules.items():
        if module != sys.argv[0] and not module.startswith("experiments"):
            continue
        for flag in sorted(group, key=lambda flag: flag.name):
            if flag.name.startswith("config."):
                continue
            default = (flag.default_as_str or "").strip("'")
            default = "" if default in ("", "None") else f" (default: {default})"
            text = " ".join((flag.help or "").split()) + default
            lines += [f"  --{flag.name}", *textwrap.wrap(text, 72, **_INDENT)]
    base = (CONFIGS / "base.py").read_text("utf-8").splitlines()
    fields_there = [
        line[2:] for line in base if line.startswith(("    config.", "    #"))
    ]
    names = textwrap.wrap(", ".join(config_names()), 72, **_INDENT)
    lines += ["", "configs:", *names]
    return "\n".join([*lines, "", "fields, each with its default:", *fields_there])


_INDENT: dict[str, Any] = {"initial_indent": " " * 6, "subsequent_indent": " " * 6}
