r"""Trains a binary network, or resumes the run in the workdir.

    python -m experiments.main --config=experiments/configs/quickstart.py \
        --workdir=runs/quickstart [--config.field=value ...]

The same command continues after a crash, a kill or a preemption, and runs on several
processes: see docs/runs.md.

The work is done in `training/loop.py`, which a notebook can import.
"""

import contextlib
import os
import sys
import threading
import traceback
from typing import NoReturn

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from experiments import command_line, errors
from experiments import console as consoles
from experiments.runs import processes
from experiments.training import loop

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    command_line.config_file("quickstart"),
    "What to train: the name of a config or a file; NAME:smoke runs in seconds.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "host:port of process 0. Give it, --num_processes and --process_id if JAX cannot "
    "find the processes by itself (it can on TPU pods, SLURM, Open MPI, Kubernetes).",
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes",
    None,
    "Number of processes that train; 1 does not look for others.",
    lower_bound=1,
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Number of this process, from 0.", lower_bound=0
)
_HEARTBEAT_TIMEOUT = flags.DEFINE_integer(
    "heartbeat_timeout",
    processes.HEARTBEAT_TIMEOUT,
    "Seconds without a signal after which a process counts as dead and the others end.",
    lower_bound=1,
)
_JOIN_TIMEOUT = flags.DEFINE_integer(
    "join_timeout",
    processes.JOIN_TIMEOUT,
    "Seconds to wait at the start for the other processes.",
    lower_bound=1,
)


def main(argv: list[str]) -> None:
    """Trains, and prints the test accuracy."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.ERROR)
    console = consoles.program()
    last_words = processes.LastWords()
    try:
        last_words.prepare_to_join(_NUM_PROCESSES.value, _JOIN_TIMEOUT.value)
        processes.initialize(
            _COORDINATOR.value,
            _NUM_PROCESSES.value,
            _PROCESS_ID.value,
            heartbeat_timeout=_HEARTBEAT_TIMEOUT.value,
            join_timeout=_JOIN_TIMEOUT.value,
        )
        last_words.prepare()
        result = loop.train_and_evaluate(_CONFIG.value, _WORKDIR.value, console=console)
    except errors.StoppedError as stopped:
        if processes.is_primary():
            consoles.say(console, str(stopped))
        sys.exit(errors.STOPPED)
    except errors.RunError as error:
        consoles.say_error(console, error)
        last_words.withdraw()
        _leave(errors.FAILED)
    except Exception as error:
        if not processes.several():
            raise
        traceback.print_exc()
        last_words.withdraw()
        if isinstance(error, jax.errors.JaxRuntimeError):
            consoles.say_error(
                console,
                f"process {jax.process_index()} has lost the others: one has probably "
                "died; see its log. The same command, in all processes, continues "
                "from the latest checkpoint.",
            )
            os._exit(errors.FAILED)  # JAX would wait for the others, and abort
        _leave(errors.FAILED)
    finally:
        last_words.withdraw()
    if processes.is_primary():
        consoles.say(
            console,
            f"test accuracy {100 * result['test_accuracy']:.2f} %  "
            f"({result['one_bit_parameters']:,} weights of one bit)\n"
            f"results in {_WORKDIR.value}",
        )


def _leave(status: int) -> NoReturn:
    """Exits, in bounded time even if other processes wait for this one."""
    if not jax.distributed.is_initialized():
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    timer = threading.Timer(_HEARTBEAT_TIMEOUT.value, os._exit, [status])
    timer.daemon = True
    timer.start()
    with contextlib.suppress(Exception):
        jax.distributed.shutdown()  # at once, if the others fail for the same reason
    os._exit(status)


if __name__ == "__main__":
    command_line.run(main, __doc__)
