"""Several processes that train one network, each with its own devices.

Every process runs the same program on the same config. Arrays on devices are global;
process 0 writes the files. With one process the functions here do nothing.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments import console as consoles
from experiments import errors
from experiments.runs import identity

HEARTBEAT_TIMEOUT = 60
"""Seconds without a signal after which a process counts as dead."""

JOIN_TIMEOUT = 300
"""Seconds that a process waits for the others when it starts."""

_T = TypeVar("_T")


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_timeout: int = HEARTBEAT_TIMEOUT,
    join_timeout: int = JOIN_TIMEOUT,
) -> None:
    """Joins the other processes. Call it before anything uses a device.

    Without arguments JAX finds the processes on TPU pods, SLURM, Open MPI and
    Kubernetes; elsewhere there is one process.

    Args:
        coordinator: Address of process 0, `host:port`, the same for all.
        num_processes: Number of processes; 1 does not look for others.
        process_id: Number of this process, from 0.
        heartbeat_timeout: Seconds without a signal after which a process counts as
            dead.
        join_timeout: Seconds to wait for the others at the start. Then JAX ends the
            process.

    Raises:
        RunError: If some arguments are missing, or the others cannot be reached.
    """
    given = (coordinator, num_processes, process_id)
    if num_processes == 1 and coordinator is None and process_id in (None, 0):
        return
    explicit = any(value is not None for value in given)
    if explicit and None in given:
        raise errors.RunError(
            "--coordinator, --num_processes and --process_id must be given together; "
            f"got {coordinator}, {num_processes} and {process_id}."
        )
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            cluster_detection_method="deactivate" if explicit else None,
            initialization_timeout=join_timeout,
            heartbeat_timeout_seconds=heartbeat_timeout,
            shutdown_timeout_seconds=heartbeat_timeout,
        )
    except ValueError as error:
        # What JAX says where it has found no cluster.
        if not explicit and "coordinator_address should be defined" in str(error):
            return
        raise errors.RunError(f"cannot join the other processes: {error}") from error
    except RuntimeError as error:
        raise errors.RunError(
            f"cannot join the other processes: {error}. --num_processes=1 trains in "
            "this process alone."
        ) from error


class LastWords:
    """Explains the end of this process when it cannot, since JAX ends it from C++.

    When one process dies, the others get an exception at best. JAX may also abort them,
    with its own message above a page of addresses, or a scheduler kills them. A child
    process waits for the end of this process and then writes a message to its log.
    """

    _PROGRAM = "import sys; sys.stdin.read() or print(sys.argv[1], file=sys.stderr)"

    def __init__(self) -> None:
        """Prepares nothing yet."""
        self._child: subprocess.Popen[str] | None = None

    def prepare_to_join(self, count: int | None, seconds: int) -> None:
        """Gets ready; call it before `initialize`.

        Args:
            count: Expected number of processes, if it is known.
            seconds: How long JAX waits for them.
        """
        if count is not None and count > 1:
            self._prepare(
                f"error: the {count} processes have not met within {seconds} seconds: "
                "one is missing, or cannot reach --coordinator. Start all of them."
            )

    def prepare(self) -> None:
        """Call it when the processes have joined; with one process it does nothing."""
        self.withdraw()
        if several():
            self._prepare(
                f"error: process {jax.process_index()} of {jax.process_count()} has "
                "been ended from outside: by JAX, because another process is gone, or "
                "by a signal. The same command, in all processes, continues from the "
                "latest checkpoint."
            )

    def _prepare(self, text: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-S", "-c", self._PROGRAM, text],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a signal to the whole job does not reach it
        )

    def withdraw(self) -> None:
        """Call it when this process ends by itself and has said why."""
        if self._child is not None:
            self._child.communicate("ended of itself")
            self._child = None


def several() -> bool:
    """Whether there is more than one process."""
    return jax.process_count() > 1


def is_primary() -> bool:
    """Whether this is process 0, which writes files and shows progress."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """Prints a message to standard error, in process 0 only."""
    if is_primary():
        consoles.say(consoles.create(stderr=True), text)


def gather(number: int) -> list[int]:
    """The numbers of all processes; every process must call it."""
    if not several():
        return [number]
    found = multihost_utils.process_allgather(np.asarray([number], np.int32))
    return np.asarray(found).ravel().tolist()


def agree(failure: errors.RunError | None) -> None:
    """Continues only if all processes can; every process must call it.

    Args:
        failure: The error of this process, if it cannot continue.

    Raises:
        RunError: `failure`, or one that names the process that has failed.
    """
    failed = np.flatnonzero(gather(int(failure is not None))).tolist()
    if failure is not None:
        raise failure
    if failed:
        raise errors.RunError(
            f"process {failed[0]} cannot go on; its own message says why."
        )


@contextlib.contextmanager
def agreeing() -> Iterator[None]:
    """Ends with the same outcome in all processes; every process must enter it.

    Raises:
        RunError: The error raised inside, or one that names the failed process.
    """
    failure = None
    try:
        yield
    except errors.RunError as error:
        failure = error
    agree(failure)


def agree_on(what: str, value: Mapping[str, Any], cure: str) -> None:
    """Continues only if all processes have the same value; every process must call it.

    Args:
        what: Name of the value, for the message.
        value: The value of this process, as JSON.
        cure: What the user can do, for the message.

    Raises:
        RunError: If a process has another value. All processes raise it, and the
            message names what differs.
    """
    if not several():
        return
    data = np.frombuffer(json.dumps(value, sort_keys=True).encode(), np.uint8)
    sizes = gather(len(data))
    padded = np.zeros(max(sizes), np.uint8)
    padded[: len(data)] = data
    found = np.asarray(multihost_utils.process_allgather(padded))
    texts = [bytes(row[:size]) for row, size in zip(found, sizes, strict=True)]
    first = json.loads(texts[0])
    for number, text in enumerate(texts):
        changes = identity.different(json.loads(text), first)
        if changes:
            raise errors.RunError(
                f"{what} of process {number} is not that of process 0:\n"
                + "\n".join(
                    f"  {name}: {there} in process {number}, {here} in process 0"
                    for name, (there, here) in changes.items()
                )
                + f"\n{cure}"
            )


def primary_first(function: Callable[[], _T]) -> _T:
    """Calls a function in process 0, then in the others, which find its files.

    Raises:
        RunError: If the function raises one in any process.
    """
    if not several():
        return function()
    found: list[_T] = []
    for turn in (True, False):
        with agreeing():
            if is_primary() == turn:
                found.append(function())
    return found[0]
