r"""Text from files, as tokens: documents, packed into pieces of one length.

    NAME/train/*  and  NAME/test/*       or val, or validation
    NAME/train*   and  NAME/test*        files instead of folders
    NAME, a file or a folder of files    the last tenth is for testing

`documents` says what a document is. They come in the order of the paths, with "\n\n"
in between, and are packed once into one file of the cache, which is mapped into memory.
So a text may be larger than memory, and the number of a piece is a place in it. What a
token is, a byte or one of a `tokenizer.json`, says `tokens`.
"""

import functools
import json
import os
import pathlib
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import console as consoles
from experiments import errors
from experiments.data import (
    cache,
    documents,
    fingerprint,
    listing,
    places,
    text,
    tokens,
)
from experiments.runs import processes

BETWEEN = b"\n\n"
"""Bytes between two documents."""

_TEST = ("test", "val", "validation")


class Pieces:
    """Examples by number: tokens of a text [length], and those that follow.

    Bytes, and tokens of at most 256 kinds, are uint8; others are int32.
    """

    def __init__(
        self, packed: "Packed", begin: int, end: int, *, length: int, name: str
    ):
        """Pieces `begin` to `end` of a text; reads nothing yet.

        Args:
            packed: The text.
            begin: Number of the first piece.
            end: Number behind the last piece.
            length: Tokens in a piece.
            name: Name of the data set and the split.
        """
        self._packed, self._range, self._length = packed, range(begin, end), length
        self._name = name

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, index: int) -> Any:
        start = self._range[index] * self._length
        values = self._packed.tokens[start : start + self._length + 1]
        kind = tokens.dtype(self._packed.vocabulary.size)
        return {"image": values[:-1].astype(kind), "label": values[1:].astype(np.int32)}

    def part(self, begin: int, end: int) -> "Pieces":
        """The pieces with these numbers; `end` may lie behind the last."""
        chosen = self._range[begin:end]
        return Pieces(
            self._packed,
            chosen.start,
            chosen.stop,
            length=self._length,
            name=self._name,
        )

    def identity(self) -> dict[str, Any]:
        """Identity of these pieces: that of the text, and their place in it."""
        place = f"[{self._range.start}:{self._range.stop}]"
        vocabulary = self._packed.vocabulary
        facts: dict[str, Any] = {vocabulary.unit: self._packed.size}
        if vocabulary.digest is not None:
            facts["tokenizer"] = vocabulary.digest
        return fingerprint.of_records(
            self._name,
            place,
            len(self),
            checksum=self._packed.checksum,
            length=self._length,
            **facts,
        )

    @functools.cached_property
    def bytes_per_token(self) -> float:
        """Mean number of bytes of the text that a label stands for."""
        begin, end = (
            self._length * n + 1 for n in (self._range.start, self._range.stop)
        )
        sizes = self._packed.sizes
        return 1.0 if sizes is None or begin == end else float(sizes[begin:end].mean())


class Packed(NamedTuple):
    """A text in one file.

    Attributes:
        path: The file: the records of its tokens, and nothing else.
        size: Number of tokens.
        checksum: CRC-32 of the file.
        vocabulary: What a token is.
    """

    path: str
    size: int
    checksum: int
    vocabulary: tokens.Vocabulary

    @property
    def tokens(self) -> np.ndarray:
        """The tokens, integers [size], mapped from the file."""
        values = _mapped(self.path, self.vocabulary.record)
        return values if values.dtype.names is None else values["token"]

    @property
    def sizes(self) -> np.ndarray | None:
        """How many bytes each token stands for, [size]; None if it is one byte."""
        values = _mapped(self.path, self.vocabulary.record)
        return None if values.dtype.names is None else values["bytes"]


@functools.lru_cache(maxsize=8)
def _mapped(path: str, record: np.dtype) -> np.ndarray:
    return np.memmap(path, record, "r")


def find(
    name: str,
    split: str,
    data_dir: str | None = None,
    *,
    length: int = text.LENGTH,
    cache_dir: str | None = None,
    vocabulary: tokens.Vocabulary = tokens.BYTES,
) -> Pieces:
    """The pieces of a split, in order.

    Args:
        name: `"text/NAME"`.
        split: `"train"` or `"test"`. Without files for testing, the last tenth of the
            text is `"test"`.
        data_dir: Folder in which NAME lies. Default: $TFDS_DATA_DIR.
        length: Tokens in a piece.
        cache_dir: Folder for the packed text. Default: `adaste_jax` in $XDG_CACHE_HOME,
            else in `~/.cache`.
        vocabulary: What a token is.

    Raises:
        RunError: If there is no text or too little of it, or a file cannot be read.
    """
    if split not in ("train", "test"):
        raise errors.RunError(f"{name} has no split {split!r}; it has train, test.")
    root = places.find(name, data_dir)
    parts = _parts(root)
    title = f"{name} {split}"
    packed = _packed(
        parts.get(split, parts["train"]), root, title, cache_dir, vocabulary
    )
    size = (packed.size - 1) // length
    begin, end = 0, size
    if "test" not in parts:
        end = size - size // 10
        if split == "test":
            begin, end = end, size
    if begin >= end:
        raise errors.RunError(
            f"{title} has {packed.size} {vocabulary.unit}, which are too few for "
            f"pieces of {length}."
        )
    return Pieces(packed, begin, end, length=length, name=title)


def _parts(root: pathlib.Path) -> dict[str, list[str]]:
    """The files of each split; only those of "train" if none are for testing."""
    if not root.exists():
        raise errors.RunError(
            f"there is no {root}. The data set text/{root.name} is the file or the "
            "folder of that name in config.data_dir (or $TFDS_DATA_DIR)."
        )
    if root.is_file():
        if not root.name.lower().endswith(documents.SUFFIXES):
            raise errors.RunError(
                f"{root} is not a file of text, which ends in "
                f"{', '.join(documents.SUFFIXES)}."
            )
        return {"train": [str(root)]}
    found = listing.files(root, documents.SUFFIXES)
    top = [pathlib.PurePath(path).relative_to(root).parts[0] for path in found.paths]
    parts: dict[str, list[str]] = {}
    for split, beginnings in (("train", ("train",)), ("test", _TEST)):
        for beginning in beginnings:
            chosen = [
                path
                for path, part in zip(found.paths, top, strict=True)
                if part.startswith(beginning)
            ]
            if chosen:
                parts[split] = chosen
                break
    if "train" not in parts:
        parts = {"train": found.paths}
    if not parts["train"]:
        raise errors.RunError(
            f"{root} holds no text ({', '.join(documents.SUFFIXES)})."
        )
    used = sum(map(len, parts.values()))
    skipped = [f"{count} {reason}" for reason, count in sorted(found.skipped.items())]
    if len(found.paths) > used:
        skipped.append(f"{len(found.paths) - used} of no split")
    processes.say(
        f"text/{root.name}: "
        + ", ".join(f"{len(paths)} files of {split}" for split, paths in parts.items())
        + (f"; skipped: {', '.join(skipped)}" if skipped else "")
    )
    return parts


def _packed(
    paths: Sequence[str],
    root: pathlib.Path,
    title: str,
    cache_dir: str | None,
    vocabulary: tokens.Vocabulary,
) -> Packed:
    """The text of files in one file of the cache, which is written if it is not there.

    A second file, with size and checksum, says that the first is whole.
    """
    below = str(root if root.is_dir() else root.parent)
    identity = fingerprint.of_files(
        paths, np.zeros(len(paths), int), root=below, source=title
    )
    folder = cache.folder(cache_dir)
    names = [one[:32] for one in (identity["digest"], vocabulary.digest) if one]
    file = folder / f"text-{'-'.join(names)}.bin"
    try:
        found = json.loads(file.with_suffix(".json").read_text())
        if file.stat().st_size == found["size"] * vocabulary.record.itemsize:
            return Packed(str(file), found["size"], found["checksum"], vocabulary)
    except (OSError, ValueError, KeyError):
        pass  # not there, or damaged: it is written anew
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _pack(paths, file, title, vocabulary)
    except OSError as error:
        raise errors.RunError(
            f"cannot write the packed text to {folder} ({error}): make room, or give "
            "another folder as cache_dir."
        ) from error


def _pack(
    paths: Sequence[str],
    file: pathlib.Path,
    title: str,
    vocabulary: tokens.Vocabulary,
) -> Packed:
    def texts() -> Iterator[bytes]:
        between = b""
        for path in paths:
            for document in documents.of(path):
                yield between + document
                between = BETWEEN
            bar.advance(task)

    size, checksum = 0, 0
    with (
        tempfile.TemporaryDirectory(dir=file.parent, prefix="packing-") as place,
        consoles.bar(consoles.create(stderr=True)) as bar,
    ):
        part = pathlib.Path(place) / file.name
        task = bar.add_task(f"packing {title}", total=len(paths))
        with part.open("wb") as opened:
            for records in vocabulary.packed(texts()):
                values = records.tobytes()
                opened.write(values)
                size += len(records)
                checksum = zlib.crc32(values, checksum)
        told = part.with_suffix(".json")
        told.write_text(json.dumps({"size": size, "checksum": checksum}))
        os.replace(part, file)
        os.replace(told, file.with_suffix(".json"))
    _mapped.cache_clear()
    return Packed(str(file), size, checksum, vocabulary)
