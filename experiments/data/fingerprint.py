"""Identities of data, to compare two data sets without comparing their examples.

The identity of a part of the data is a small dict: `examples`, their number, `digest`,
a hash in hexadecimal, and `source`, a description. It depends neither on the folder of
the data nor on the process. It takes at most a second for CIFAR-10; for files it reads
the size of each.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import errors
from experiments.data import listing
from experiments.runs.origins import differences as differences

SAMPLE = 256
"""The contents of so many files of a split, spread evenly, are hashed too."""

_BEGINNING = 1 << 20


def of(source: Any) -> dict[str, Any]:
    """The identity of a source of examples.

    Args:
        source: Examples. If the source has a method `identity`, its result is used. For
            others only the number of examples is known, and the digest is None.
    """
    if hasattr(source, "identity"):
        return source.identity()
    return {"examples": len(source), "digest": None, "source": type(source).__name__}


def of_arrays(**arrays: np.ndarray) -> dict[str, Any]:
    """The identity of arrays with an example a row: every byte counts."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        _add(digest, [name, array.dtype.str, list(array.shape)])
        digest.update(np.ascontiguousarray(array).data)
    size = len(next(iter(arrays.values())))
    return {"examples": size, "digest": digest.hexdigest(), "source": "arrays"}


def of_records(name: str, split: str, size: int, **facts: Any) -> dict[str, Any]:
    """The identity of a slice of a prepared data set, without reading its examples.

    Args:
        name: Name of the data set, with its version.
        split: The slice.
        size: Number of examples in the slice.
        **facts: Other facts about the data set, as JSON: for each split the numbers of
            examples and bytes, and how many examples are in which file. A changed image
            of the same size in bytes is not detected.
    """
    digest = hashlib.sha256()
    _add(digest, [name, split, size, facts])
    return {
        "examples": size,
        "digest": digest.hexdigest(),
        "source": f"{name} {split}",
    }


def of_files(
    paths: Sequence[str], labels: np.ndarray, *, root: str, source: str
) -> dict[str, Any]:
    """The identity of files: path below the root, size and label of each, in order.

    The first megabyte of `SAMPLE` files, spread evenly, is hashed too. Only for these
    files a change that keeps the size is detected. Times are ignored, since a copy has
    others.

    Args:
        paths: The files.
        labels: Label of each file.
        root: Folder of the files; only the part of a path below it counts.
        source: Description of the files.

    Raises:
        RunError: If a file no longer exists.
    """
    digest = hashlib.sha256()
    sample = set(np.linspace(0, len(paths) - 1, SAMPLE).astype(int).tolist())
    for index, (path, label) in enumerate(zip(paths, labels, strict=True)):
        name = path.removeprefix(root).replace(os.sep, "/").lstrip("/")
        try:
            _add(digest, [listing.spelt(name), os.stat(path).st_size, int(label)])
            if index in sample:
                with open(path, "rb") as file:
                    digest.update(hashlib.sha256(file.read(_BEGINNING)).digest())
        except OSError as error:
            raise errors.RunError(f"cannot read {path}: {error.strerror}.") from error
    return {"examples": len(paths), "digest": digest.hexdigest(), "source": source}


def _add(digest: Any, value: Any) -> None:
    """Adds a JSON value, so that different sequences of values differ."""
    digest.update(json.dumps(value, sort_keys=True).encode("ascii") + b"\n")
