"""The command `adaste`: `adaste train` is `python -m experiments.main`, and so on."""

import runpy
import sys
from importlib import metadata

from experiments import command_line, fields
from experiments import console as consoles
from experiments.errors import FAILED

COMMANDS = {
    "train": ("experiments.main", "train a network, or resume a run"),
    "compare": ("experiments.compare", "train with several methods, and print a table"),
    "export": ("experiments.export", "write a trained network with one bit a weight"),
    "predict": ("experiments.predict", "evaluate a network that was exported"),
    "generate": ("experiments.generate", "write text with a language model"),
    "hub": ("experiments.hub", "send a one-bit file to a hub of models, or fetch one"),
    "report": ("experiments.report", "draw one or several runs on a page"),
}
"""From a command to its module, and what it does."""

_USAGE = """usage: adaste COMMAND [--flag=value ...]

{commands}

adaste COMMAND --help lists the flags. A config is named by a file, or by its name:

  adaste train quickstart --workdir=runs/quickstart
  adaste train cifar10_resnet18:fast --workdir=runs/resnet --config.seed=1

configs: {configs}"""


def main() -> None:
    """Runs the command that the arguments name."""
    console = consoles.program()
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        consoles.say(console, _usage())
    elif name == "--version":
        consoles.say(console, f"adaste_jax {metadata.version('adaste_jax')}")
    elif name not in COMMANDS:
        consoles.say_error(console, fields.unknown("command", name, COMMANDS))
        sys.exit(FAILED)
    else:
        if name in ("train", "compare") and rest and not rest[0].startswith("-"):
            rest[0] = f"--config={rest[0]}"
        sys.argv = [f"adaste {name}", *rest]
        runpy.run_module(COMMANDS[name][0], run_name="__main__")


def _usage() -> str:
    commands = "\n".join(f"  {name:10}{what}" for name, (_, what) in COMMANDS.items())
    return _USAGE.format(
        commands=commands, configs=", ".join(command_line.config_names())
    )


if __name__ == "__main__":
    main()
