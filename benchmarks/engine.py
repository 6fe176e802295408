"""What an engine of `benchmarks.engines` is."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.engine_networks import Case


class UnfitError(Exception):
    """An engine does not run a network, or is not here; the message says why."""


class Built(NamedTuple):
    """A network in an engine."""

    run: Callable[[np.ndarray], np.ndarray]  # a batch of inputs to logits
    size: int  # bytes that are shipped
    clock: Callable[[np.ndarray], float] | None = None
    """Seconds of one run, where the engine takes the time itself."""

    def seconds(self, inputs: np.ndarray) -> float:
        """The time of one run."""
        if self.clock is not None:
            return self.clock(inputs)
        start = time.perf_counter()
        self.run(inputs)
        return time.perf_counter() - start


class Engine(NamedTuple):
    """How a network comes into an engine."""

    build: Callable[[Case], Built]
    beside: str = ""  # the engine that runs the same with float32 weights
    most: int = 0  # test examples that it runs; 0 is all
    timed: bool = True
    floats: bool = True  # it computes in floating point: answers must be equal
