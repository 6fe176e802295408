"""Which checkpoints are kept, and whether their contents are complete."""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from adaste_jax import metrics
from experiments import errors
from experiments.runs import small_files


def nonfinite(arrays: Any) -> str:
    """Text about leaves with numbers that are not finite; empty if there are none."""
    found = metrics.nonfinite(arrays)
    shown = [f"{path}: {count} of them" for path, count in list(found.items())[:5]]
    if len(found) > len(shown):
        shown.append(f"and {len(found) - len(shown)} leaves more")
    return ", ".join(shown)


class Policy:
    """Keeps the latest checkpoints, and the one of the best step."""

    def __init__(self, best: Callable[[], tuple[float, int] | None], keep: int):
        self._best, self._keep = best, keep

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        """Which of the checkpoints, in ascending order, are kept."""
        del context
        best = self._best()
        first = len(checkpoints) - self._keep
        return [
            number >= first or (best is not None and info.step == best[1])
            for number, info in enumerate(checkpoints)
        ]


def best_of(folder: pathlib.Path, steps: list[int]) -> tuple[float, int] | None:
    """The best accuracy that the newest readable record knows, and its step.

    Version 0.1 kept the accuracy of each checkpoint in a file of its own instead.
    """
    for step in reversed(steps):
        with contextlib.suppress(errors.RunError):
            file = folder / str(step) / "record" / "metadata"
            record = small_files.read(file, cure="")
            if "best" in record:
                return tuple(record["best"]) if record["best"] else None
    known = []
    for step in steps:
        with contextlib.suppress(errors.RunError):
            file = folder / str(step) / "metrics" / "metrics"
            found = small_files.read(file, cure="", accuracy=float)
            known.append((found["accuracy"], step))
    return max(known, default=None)


def checksum(arrays: Any, record: Mapping[str, Any]) -> str:
    """Checksum of every bit of the arrays and of the record."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(record, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        header = (jax.tree_util.keystr(path), str(array.dtype), array.shape)
        digest.update(repr(header).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def first_line(error: Exception) -> str:
    """The message of an error, without the C++ locations that TensorStore adds."""
    line = (str(error).strip() or repr(error)).splitlines()[0]
    for tail in (
        " [source locations",
        " [tensorstore_spec",
    ):  # long, and of no use here
        line = line.split(tail)[0]
    return line[:1000]


def exist(folder: pathlib.Path) -> bool:
    """Whether a folder holds checkpoints, readable or not."""
    return any(found.name.isdecimal() for found in folder.glob("*"))
