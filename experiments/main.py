"""Trains a binary network, or resumes what stands in the workdir.

    python -m experiments.main --config=experiments/configs/quickstart.py \
        --workdir=runs/quickstart [--config.field=value ...]

Short on purpose: what it does is in `loop.py`, which a notebook can import.
"""

import sys

import rich.console
from absl import app, flags, logging
from ml_collections import config_flags

from experiments import errors, loop

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    "experiments/configs/quickstart.py",
    "What to train: a file of experiments/configs; FILE:smoke runs in seconds.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)


def main(argv: list[str]) -> None:
    """Trains, and prints the test accuracy."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.ERROR)
    console = rich.console.Console()
    try:
        result = loop.train_and_evaluate(_CONFIG.value, _WORKDIR.value, console=console)
    except errors.RunError as error:
        console.print(f"[bold red]error:[/] {error}", soft_wrap=True, highlight=False)
        sys.exit(1)
    console.print(
        f"test accuracy {100 * result['test_accuracy']:.2f} %  "
        f"({result['one_bit_parameters']:,} weights of one bit)\n"
        f"results in {_WORKDIR.value}",
        highlight=False,
    )


if __name__ == "__main__":
    app.run(main)
