"""What data a run computes from, told apart without comparing them.

The identity of a part of the data is a small dict: `examples`, how many there are,
`digest`, a hash in hexadecimal, and `source`, what it is in words. It depends neither
on the place where the data lie nor on the process, and costs a second at most for
CIFAR-10; for files it asks for the size of each.
"""

import hashlib
import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import errors

SAMPLE = 256
"""Of so many files of a split the contents are hashed too, spread over the split."""

_BEGINNING = 1 << 20


def of(source: Any) -> dict[str, Any]:
    """The identity of a source of examples.

    Args:
        source: What has a method `identity` is asked. Of others only the number of
            examples is known, and the digest is None.
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
    """The identity of a slice of a prepared data set, which is not read for it.

    Args:
        name: Of the data set, with its version.
        split: The slice.
        size: Examples in it.
        **facts: What else is known of the data set, as JSON: of each split the number
            of examples and of bytes, and how many examples are in which file. Another
            image of as many bytes is not noticed.
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

    Of `SAMPLE` files, spread evenly, the first megabyte is hashed too. A file that is
    changed in place and keeps its size is noticed among those only. Times do not count,
    since a copy has others.

    Args:
        paths: The files.
        labels: Of each.
        root: Where they lie; what follows in a path counts.
        source: What they are, in words.

    Raises:
        RunError: If one is not there any more.
    """
    digest = hashlib.sha256()
    sample = set(np.linspace(0, len(paths) - 1, SAMPLE).astype(int).tolist())
    for index, (path, label) in enumerate(zip(paths, labels, strict=True)):
        name = path.removeprefix(root).replace(os.sep, "/").lstrip("/")
        try:
            _add(digest, [_spelt(name), os.stat(path).st_size, int(label)])
            if index in sample:
                with open(path, "rb") as file:
                    digest.update(hashlib.sha256(file.read(_BEGINNING)).digest())
        except OSError as error:
            raise errors.RunError(f"cannot read {path}: {error.strerror}.") from error
    return {"examples": len(paths), "digest": digest.hexdigest(), "source": source}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two identities of `data.Splits`, a line each.

    Args:
        before: From `data.Splits.identity`, perhaps read from JSON.
        now: Likewise.

    Returns:
        Nothing, if they are the same as far as is known.
    """
    lines = []
    for part in ("train", "validation", "test"):
        one, other = before.get(part), now.get(part)
        if one is None or other is None:
            continue
        sizes = [known["examples"] for known in (one, other)]
        digests = [known["digest"] for known in (one, other)]
        if sizes[0] != sizes[1]:
            lines.append(f"{part}: {sizes[0]} examples then, {sizes[1]} now")
        elif None in digests or digests[0] == digests[1]:
            continue
        elif one["source"] != other["source"]:
            lines.append(f"{part}: {one['source']} then, {other['source']} now")
        else:
            lines.append(f"{part}: {sizes[0]} examples then and now, but other ones")
    if "classes" in before and before["classes"] != now.get("classes"):
        lines.append(
            f"classes: {_listing(before['classes'])} then, "
            f"{_listing(now.get('classes'))} now"
        )
    return lines


def _add(digest: Any, value: Any) -> None:
    """Adds a value of JSON, so that no two sequences of values look alike."""
    digest.update(json.dumps(value, sort_keys=True).encode("ascii") + b"\n")


def _spelt(name: str) -> str:
    """One spelling of letters that systems write in several ways."""
    return unicodedata.normalize("NFC", name)


def _listing(classes: Any) -> str:
    if not isinstance(classes, list | tuple):
        return str(classes)
    shown = ", ".join(map(str, classes[:5]))
    return f"{len(classes)} ({shown}{', ...' if len(classes) > 5 else ''})"
