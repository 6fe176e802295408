"""The format of a one-bit file: versions, limits, dtypes and names.

It is described in `docs/format.md`. `_read` has the checks of a file that is read.
"""

import hashlib
import json
import math
import reprlib
from collections.abc import Sequence
from typing import Any, NoReturn

import ml_dtypes
import numpy as np

from adaste_jax import _paths

VERSIONS = (1, 2, 3)
"""2 escapes slashes in keys, and has scales of groups and of float16. It is written
where there is one of these, and 1 elsewhere. 3 is 2 with a short header."""

COMPACT = 3
"""The version whose header leaves out what the container says, and has one checksum."""

HEADER_LIMIT = 4 * 2**20
"""Largest header, in bytes: room for about ten thousand tensors."""

KEY = "adaste_jax"
"""Name of the one entry of the metadata of safetensors."""

ROOTS = ("params", "model_state", "scales")

DTYPES = {
    "bfloat16": ("BF16", np.dtype(ml_dtypes.bfloat16)),
    "bool": ("BOOL", np.dtype(np.bool_)),
    "float16": ("F16", np.dtype("<f2")),
    "float32": ("F32", np.dtype("<f4")),
    "float64": ("F64", np.dtype("<f8")),
    "int16": ("I16", np.dtype("<i2")),
    "int32": ("I32", np.dtype("<i4")),
    "int64": ("I64", np.dtype("<i8")),
    "int8": ("I8", np.dtype("i1")),
    "uint16": ("U16", np.dtype("<u2")),
    "uint32": ("U32", np.dtype("<u4")),
    "uint64": ("U64", np.dtype("<u8")),
    "uint8": ("U8", np.dtype("u1")),
}
"""Name in the header, name in safetensors, and NumPy dtype."""

KINDS = {kind: name for name, (kind, _) in DTYPES.items()}
"""Name in the header by the name in safetensors."""

_NAME_LIMIT = 1024
_DEPTH_LIMIT = 64
_RANK_LIMIT = 32
_SIZE_LIMIT = 2**62


class FormatError(ValueError):
    """A file is not a one-bit file, is damaged, or is of another version."""


def scale_name(name: str) -> str:
    """The name of the scale of a tensor of packed weights."""
    return f"scales/{name}"


def tensor_name(root: str, keys: Sequence[str], version: int) -> str:
    """The name of the leaf under `keys`, as "params/body/kernel".

    Raises:
        FormatError: If it is no name, or a key has a slash, which version 1 has not.
    """
    if version == 1:
        for key in keys:
            if "/" in key:
                fail(f"the key {key!r} has a slash, which a file of version 1 has not")
    else:
        keys = [_paths.escape(key) for key in keys]
    name = "/".join([root, *keys])
    check_name(name, version)
    return name


def check_name(name: str, version: int) -> None:
    """Refuses names that are empty, long, deep, or look like a path out of a folder."""
    parts = name.split("/")
    if version > 1:
        unescaped = [_paths.unescape(part) for part in parts]
        if [_paths.escape(key) for key in unescaped] != parts:
            fail(f"{reprlib.repr(name)} has a '~' that is neither '~0' nor '~1'")
        within = {piece for key in unescaped for piece in key.split("/")}
        if within & {".", ".."}:
            fail(f"{reprlib.repr(name)} has a key with '.' or '..' between slashes")
    if (
        len(name) > _NAME_LIMIT
        or len(parts) > _DEPTH_LIMIT
        or any(part in ("", ".", "..") for part in parts)
        or "\\" in name
        or not name.isprintable()
    ):
        fail(f"{reprlib.repr(name)} is no name of a tensor: 'params/body/kernel' is")


def seal(text: str) -> str:
    """The header as it is stored: its checksum, a space, and the JSON."""
    return f"{sha256(utf8(text))} {text}"


def nest(flat: dict[str, Any], version: int) -> dict[str, Any]:
    """Nested dictionaries from names with slashes, none of which lies below another."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        keys = name.split("/")
        *folders, leaf = keys if version == 1 else map(_paths.unescape, keys)
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value
    return tree


def utf8(text: str) -> bytes:
    """The bytes of a text."""
    return text.encode("utf-8", "surrogatepass")  # half a pair is refused when read


def sha256(data: bytes) -> str:
    """A checksum, as it stands in a header."""
    return hashlib.sha256(data).hexdigest()


def numbers(name: str, value: Any) -> tuple[int, ...]:
    """A list of whole numbers, or a refusal that says which tensor it belongs to."""
    if (
        not isinstance(value, list)
        or len(value) > _RANK_LIMIT
        or not all(type(n) is int and 0 <= n < _SIZE_LIMIT for n in value)
    ):
        fail(f"{name!r} has the shape, axes or offsets {reprlib.repr(value)}")
    return tuple(value)


def shape(name: str, value: Any) -> tuple[int, ...]:
    """Such a list that is the shape of a tensor."""
    found = numbers(name, value)
    if math.prod(max(n, 1) for n in found) >= _SIZE_LIMIT:
        fail(f"{name!r} has the shape {reprlib.repr(value)}")
    return found


def json_object(data: bytes) -> dict[str, Any]:
    """One JSON object, without repeated keys, NaN or infinity."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) != len(keys):
            fail("a name stands twice in the header")
        return dict(pairs)

    def constant(name: str) -> NoReturn:
        fail(f"{name} stands in the header")

    try:
        parsed = json.loads(
            data.decode(), object_pairs_hook=unique, parse_constant=constant
        )
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the header is no JSON in UTF-8: {error}.") from error
    if not isinstance(parsed, dict):
        fail("the header is no JSON object")
    return parsed


def fail(message: str) -> NoReturn:
    """Refuses a file.

    Raises:
        FormatError: Always.
    """
    raise FormatError(f"{message}.")
