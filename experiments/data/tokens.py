"""The tokens of a text: its bytes, or those of a `tokenizer.json` of Hugging Face."""

import codecs
import functools
import hashlib
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import ml_collections
import numpy as np

from experiments import errors
from experiments.data import text

_AT_ONCE = 16
_LONGEST = 2**18
_RECORD = np.dtype([("token", "<i4"), ("bytes", "<u4")])


def dtype(size: int) -> np.dtype:
    """Dtype of tokens as a network takes them, from the number of different ones."""
    return np.dtype(np.uint8 if size <= text.VALUES else np.int32)


class Vocabulary(Protocol):
    """How text becomes tokens.

    Attributes:
        size: Number of different tokens; a network may have more than there are.
        unit: What a token is called.
        digest: SHA-256 of the `tokenizer.json`; None for bytes.
        source: Its text; None for bytes.
        record: What is stored for a token: the token alone if it is a byte, else
            `token` and `bytes`, how many bytes of the text it stands for.
    """

    size: int
    unit: str
    digest: str | None
    source: str | None
    record: np.dtype

    def packed(self, documents: Iterable[bytes]) -> Iterator[np.ndarray]:
        """The records of documents, which are text in UTF-8."""

    def encode(self, letters: str) -> list[int]:
        """The tokens of a text."""

    def decode(self, tokens: Iterable[int], prompt: Sequence[int]) -> Iterator[str]:
        """The text of tokens that follow a prompt, as they come."""


class Bytes:
    """Each byte is a token; see `Vocabulary`."""

    size, unit, record = text.VALUES, "bytes", np.dtype(np.uint8)
    digest: str | None = None
    source: str | None = None

    def packed(self, documents: Iterable[bytes]) -> Iterator[np.ndarray]:
        """See `Vocabulary`."""
        return (np.frombuffer(document, np.uint8) for document in documents)

    def encode(self, letters: str) -> list[int]:
        """See `Vocabulary`."""
        return list(letters.encode("utf-8", "surrogateescape"))

    def decode(self, tokens: Iterable[int], prompt: Sequence[int]) -> Iterator[str]:
        """See `Vocabulary`; bytes that are no UTF-8 are "�"."""
        del prompt
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in tokens:
            yield decoder.decode(bytes([token]))
        yield decoder.decode(b"", final=True)


BYTES = Bytes()


class Tokenizer:
    """The tokens of a `tokenizer.json`; see `Vocabulary`.

    Nothing is added to a text: no token for its beginning or end.
    """

    unit, record = "tokens", _RECORD

    def __init__(self, data: bytes, size: int):
        """Reads the tokenizer.

        Args:
            data: What the file holds.
            size: Number of tokens of the network; 0 for those of the tokenizer.

        Raises:
            RunError: If tokenizers is not installed.
            ValueError: If the file holds no tokenizer, or one of more tokens.
        """
        self._tokenizer = _parsed(data)
        self.digest: str | None = hashlib.sha256(data).hexdigest()
        self.source: str | None = data.decode()
        known = max(self._tokenizer.get_vocab().values(), default=-1) + 1
        if size and size < known:
            raise ValueError(
                f"it has {known} tokens, more than the {size} of the network"
            )
        self.size = size or known

    def packed(self, documents: Iterable[bytes]) -> Iterator[np.ndarray]:
        """See `Vocabulary`; a token ends where the last of its letters does.

        Documents of more than 2^18 letters are cut in front of a line, since tokens
        take far more memory than their text while they are made.
        """
        parts = itertools.chain.from_iterable(map(_parts, documents))
        while group := list(itertools.islice(parts, _AT_ONCE)):
            found = self._tokenizer.encode_batch(group, add_special_tokens=False)
            yield from map(_records, group, found)

    def encode(self, letters: str) -> list[int]:
        """See `Vocabulary`."""
        found = self._tokenizer.encode(letters, add_special_tokens=False)
        return list(found.ids)

    def decode(self, tokens: Iterable[int], prompt: Sequence[int]) -> Iterator[str]:
        """See `Vocabulary`."""
        from tokenizers import decoders

        stream = decoders.DecodeStream(ids=list(prompt), skip_special_tokens=False)
        for token in tokens:
            yield stream.step(self._tokenizer, token) or ""


@functools.lru_cache(maxsize=2)
def _parsed(data: bytes) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise errors.RunError("it needs tokenizers: pip install tokenizers") from error
    try:
        found = tokenizers.Tokenizer.from_str(data.decode())
    except Exception as error:  # that of the library is no kind of its own
        raise ValueError(f"it is no tokenizer.json ({error})") from error
    found.no_truncation()
    found.no_padding()
    return found


def _parts(document: bytes) -> Iterator[str]:
    letters, begin = document.decode(), 0
    while len(letters) - begin > _LONGEST:
        line = letters.rfind("\n", begin + 1, begin + _LONGEST)
        end = line if line > begin else begin + _LONGEST
        yield letters[begin:end]
        begin = end
    yield letters[begin:]


def _records(document: str, encoding: Any) -> np.ndarray:
    codes = np.frombuffer(document.encode("utf-32-le"), "<u4")
    sizes = 1 + (codes > 0x7F) + (codes > 0x7FF) + (codes > 0xFFFF)
    before = np.concatenate([[0], np.cumsum(sizes)])
    records = np.empty(len(encoding.ids), _RECORD)
    records["token"] = encoding.ids
    # Tokens of a part of a letter, and those without one, do not go back.
    ends = np.array([end for _, end in encoding.offsets], np.int64)
    ends = np.maximum.accumulate(ends)
    ends[-1:] = len(document)
    records["bytes"] = np.diff(before[ends], prepend=0)
    return records


def find(path: str | pathlib.Path | None, size: int = 0) -> Vocabulary:
    """The vocabulary of a file.

    Args:
        path: A `tokenizer.json`; nothing for bytes.
        size: Number of tokens of the network; 0 for those of the tokenizer.

    Raises:
        RunError: If the file cannot be read or holds more tokens, or tokenizers is not
            installed.
    """
    if not path:
        return BYTES
    file = pathlib.Path(path).expanduser()
    try:
        return Tokenizer(file.read_bytes(), size)
    except (OSError, ValueError, errors.RunError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise errors.RunError(f"cannot use the tokenizer {file}: {reason}.") from error


def of(config: ml_collections.ConfigDict) -> Vocabulary:
    """The vocabulary that a config names.

    Raises:
        RunError: See `find`.
    """
    try:
        return find(config.tokenizer, config.vocabulary_size)
    except errors.RunError as error:
        raise errors.RunError(f"config.tokenizer: {error}") from error


def bytes_per_token(source: Any) -> float:
    """Mean number of bytes that a label of these examples stands for."""
    return getattr(source, "bytes_per_token", 1.0)
