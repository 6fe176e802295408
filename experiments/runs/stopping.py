"""Stops a run between two steps at a signal: preemption or Ctrl-C."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from jax.experimental import multihost_utils

from experiments.runs import processes


class SignalError(BaseException):
    """A signal came during work that can be repeated.

    It is not an `Exception`, since code that reads files would treat it as damage.
    """


class Stopping(contextlib.AbstractContextManager):
    """Turns SIGTERM and SIGINT into a request that the loop checks.

    With several processes a SIGTERM to one of them stops all at the same step; JAX
    passes it on. A second SIGINT, a second or more after the first, ends the program at
    once. Outside the main thread Python allows no handlers, so signals act as before.
    """

    def __init__(self) -> None:
        """Changes nothing before `with`."""
        self.signal: signal.Signals | None = None
        self._since = 0.0
        self._reached = False
        self._at_once = False
        self._former: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Stopping":
        """Installs the signal handlers."""
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGINT]
            if not processes.several():  # JAX has a handler for it, which tells all
                numbers.append(signal.SIGTERM)
            for number in numbers:
                self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        """Restores the previous signal handlers."""
        for number, handler in self._former.items():
            # None: a handler that was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside it a signal raises `SignalError` at once, for long work without steps.

        Such work, for example an evaluation or the decoding of images, can be repeated.
        With several processes a signal waits for the end of the work, since no process
        may leave the others.

        Raises:
            SignalError: If a signal comes, or has come before.
        """
        if not processes.several():
            if self.signal is not None:
                raise SignalError
            self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    @property
    def name(self) -> str:
        """Name of the signal that came, for messages."""
        return self.signal.name if self.signal is not None else "a signal"

    def reached(self, step: int) -> bool:
        """Whether to stop here.

        Args:
            step: Number of finished steps. Every process must call this after every
                call of the step.
        """
        if processes.several():
            self._reached |= multihost_utils.reached_preemption_sync_point(step)
        else:
            self._reached = self.signal is not None
        return self._reached

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.signal is None:
            self.signal, self._since = signal.Signals(number), time.monotonic()
            if self._at_once:
                raise SignalError
            if processes.several():
                os.kill(os.getpid(), signal.SIGTERM)
        elif number == signal.SIGINT and time.monotonic() - self._since > 1:
            raise KeyboardInterrupt
