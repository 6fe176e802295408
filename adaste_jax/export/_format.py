"""Reading a one-bit file: what may stand in it, and the checks that it does.

The format is described in `docs/format.md`. Nothing in a file is trusted: sizes are
compared with the size of the file before anything is read, every tensor with its
checksum, and no code is ever loaded. Only NumPy is used.
"""

import hashlib
import json
import math
import os
import reprlib
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple, NoReturn

import ml_dtypes
import numpy as np

from adaste_jax import _paths
from adaste_jax.export import _encode, _pack

VERSIONS = (1, 2)
"""2 escapes slashes in keys. It is written where a key has one, and 1 elsewhere."""

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

_BINARY_DTYPES = ("bfloat16", "float16", "float32", "float64")
_RANK_LIMIT = 32
_NAME_LIMIT = 1024
_DEPTH_LIMIT = 64
_SIZE_LIMIT = 2**62


class FormatError(ValueError):
    """A file is not a one-bit file, is damaged, or is of another version."""


class Tensor(NamedTuple):
    """One tensor of a file, as its header describes it."""

    name: str
    encoding: str  # "bits", "trits" or "real"
    dtype: str  # of the weights, a key of DTYPES
    shape: tuple[int, ...]  # of the weights
    axes: tuple[int, ...]  # the packed ones; empty for "real"
    sha256: str  # of the bytes as stored
    stored: tuple[int, ...]  # the shape of the bytes, or of the tensor if "real"
    nbytes: int  # as stored


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors by name, in the order of the file, and the header.

    Raises:
        FormatError: If anything in the file is not as `docs/format.md` says.
        OSError: If the file cannot be read.
    """
    with open(path, "rb") as file:
        try:
            size = os.fstat(file.fileno()).st_size
            header, tensors = _read_header(file, size)
            found = {t.name: _read_tensor(file, t) for t in tensors}
        except FormatError as error:
            error.add_note(f"in the file {os.fspath(path)!r}")
            raise
    for name in [t.name for t in tensors if t.encoding != "real"]:
        if scale_name(name) in found:
            scaled = found[name] * found.pop(scale_name(name))
            found[name] = np.asarray(scaled)  # of rank 0, it was a scalar
    return found, header


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
                _fail(f"the key {key!r} has a slash, which a file of version 1 has not")
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
            _fail(f"{reprlib.repr(name)} has a '~' that is neither '~0' nor '~1'")
        within = {piece for key in unescaped for piece in key.split("/")}
        if within & {".", ".."}:
            _fail(f"{reprlib.repr(name)} has a key with '.' or '..' between slashes")
    if (
        len(name) > _NAME_LIMIT
        or len(parts) > _DEPTH_LIMIT
        or any(part in ("", ".", "..") for part in parts)
        or "\\" in name
        or not name.isprintable()
    ):
        _fail(f"{reprlib.repr(name)} is no name of a tensor: 'params/body/kernel' is")


def seal(text: str) -> str:
    """The header as it is stored: its checksum, a space, and the JSON."""
    return f"{_sha256(_utf8(text))} {text}"


def nest(flat: dict[str, np.ndarray], version: int) -> dict[str, Any]:
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


def _read_header(file: BinaryIO, size: int) -> tuple[dict[str, Any], list[Tensor]]:
    """The header, and the tensors in the order of their bytes."""
    if size < 8:
        _fail(f"{size} bytes are too few")
    (length,) = struct.unpack("<Q", _read(file, 8))
    if length > HEADER_LIMIT or length > size - 8:
        _fail(
            f"a header of {length} bytes: the file has {size}, at most {HEADER_LIMIT}"
        )
    container = _json(_read(file, length))
    texts = container.pop("__metadata__", None)
    if not isinstance(texts, dict) or set(texts) != {KEY}:
        _fail("a safetensors file without the header of this format")
    stored = texts[KEY]
    text = stored.partition(" ")[2] if isinstance(stored, str) else ""
    if stored != seal(text):
        _fail("the header does not have its checksum")
    header = _json(_utf8(text))
    version = header.get("format")
    if type(version) is not int or version not in VERSIONS:
        _fail(
            f"format version {reprlib.repr(version)}, where one of {VERSIONS} is read: "
            "use the version of adaste_jax that wrote the file"
        )
    described = header.get("tensors")
    if not isinstance(described, dict) or set(described) != set(container):
        _fail("the header and the container do not name the same tensors")
    if not isinstance(header.get("metadata"), dict):
        _fail("the header has no metadata")
    data_size = size - 8 - length
    return header, _layout(container, described, data_size=data_size, version=version)


def _layout(
    container: dict[str, Any],
    described: dict[str, Any],
    *,
    data_size: int,
    version: int,
) -> list[Tensor]:
    """Tensors in the order of their bytes, which must fill the data without a gap."""
    spans = []
    for name, entry in container.items():
        check_name(name, version)
        root, *parts = name.split("/")
        above = ["/".join([root, *parts[:depth]]) for depth in range(len(parts))]
        if root not in ROOTS or any(folder in container for folder in above):
            _fail(f"{name!r} lies in no folder of {ROOTS}, or below another tensor")
        tensor, span = _describe(name, entry, described[name])
        spans.append((span, tensor))
    spans.sort()
    end = 0
    for span, tensor in spans:
        if span != (end, end + tensor.nbytes):
            _fail(f"{tensor.name!r} overlaps, leaves a gap or has a wrong size")
        end += tensor.nbytes
    if end != data_size:
        _fail(f"{data_size} bytes of data, and the header describes {end}")
    tensors = {tensor.name: tensor for _, tensor in spans}
    for scale in tensors.values():
        root, _, name = scale.name.partition("/")
        if root == "scales" and not _fits(scale, tensors.get(name)):
            _fail(f"{scale.name!r} is no scale of packed weights")
    return list(tensors.values())


def _fits(scale: Tensor, weights: Tensor | None) -> bool:
    return (
        weights is not None
        and weights.encoding != "real"
        and scale.encoding == "real"
        and scale.dtype == weights.dtype
        and scale.shape in ((), weights.shape[-1:])
    )


def _describe(
    name: str, entry: Any, description: Any
) -> tuple[Tensor, tuple[int, ...]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        _fail(f"{name!r} is not described as safetensors does")
    fields = {"encoding", "dtype", "shape", "axes", "sha256"}
    if not isinstance(description, dict) or set(description) != fields:
        _fail(f"{name!r} is described without one of {sorted(fields)}")
    encoding, dtype = description["encoding"], description["dtype"]
    shape, axes = _shape(name, description["shape"]), _shape(name, description["axes"])
    if encoding in ("bits", "trits") and dtype in _BINARY_DTYPES:
        kind, itemsize = "U8", 1
        per_byte = _encode.PER_BYTE[encoding]
        axis = axes if shape else None
        try:
            stored = _pack.packed_shape(shape, axis=axis, per_byte=per_byte)
        except ValueError as error:
            raise FormatError(f"{name!r}: {error}") from error
    elif encoding == "real" and isinstance(dtype, str) and dtype in DTYPES and not axes:
        kind, itemsize = DTYPES[dtype][0], DTYPES[dtype][1].itemsize
        stored = shape
    else:
        _fail(f"{name!r} has an encoding or dtype that this version does not know")
    if entry["dtype"] != kind or _shape(name, entry["shape"]) != stored:
        _fail(f"{name!r} is not stored as the header says")
    if not isinstance(description["sha256"], str):
        _fail(f"{name!r} has no checksum")
    tensor = Tensor(
        name=name,
        encoding=encoding,
        dtype=dtype,
        shape=shape,
        axes=axes,
        sha256=description["sha256"],
        stored=stored,
        nbytes=math.prod(stored) * itemsize,
    )
    return tensor, _numbers(name, entry["data_offsets"])


def _read_tensor(file: BinaryIO, tensor: Tensor) -> np.ndarray:
    data = _read(file, tensor.nbytes)
    if _sha256(data) != tensor.sha256:
        _fail(f"{tensor.name!r} does not have its checksum: the file is damaged")
    dtype = DTYPES[tensor.dtype][1]
    if tensor.encoding == "real":
        return np.frombuffer(data, dtype).reshape(tensor.shape)
    packed = np.frombuffer(data, np.uint8).reshape(tensor.stored)
    if tensor.encoding == "trits" and (packed >= 3**5).any():
        _fail(f"{tensor.name!r} has a byte that is not five trits")
    return _encode.decode_on_host(
        tensor.encoding, packed, tensor.shape, tensor.axes, dtype
    )


def _numbers(name: str, value: Any) -> tuple[int, ...]:
    if (
        not isinstance(value, list)
        or len(value) > _RANK_LIMIT
        or not all(type(n) is int and 0 <= n < _SIZE_LIMIT for n in value)
    ):
        _fail(f"{name!r} has the shape, axes or offsets {reprlib.repr(value)}")
    return tuple(value)


def _shape(name: str, value: Any) -> tuple[int, ...]:
    shape = _numbers(name, value)
    if math.prod(max(n, 1) for n in shape) >= _SIZE_LIMIT:
        _fail(f"{name!r} has the shape {reprlib.repr(value)}")
    return shape


def _json(data: bytes) -> dict[str, Any]:
    """One JSON object, without repeated keys, NaN or infinity."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) != len(keys):
            _fail("a name stands twice in the header")
        return dict(pairs)

    def constant(name: str) -> NoReturn:
        _fail(f"{name} stands in the header")

    try:
        parsed = json.loads(
            data.decode(), object_pairs_hook=unique, parse_constant=constant
        )
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the header is no JSON in UTF-8: {error}.") from error
    if not isinstance(parsed, dict):
        _fail("the header is no JSON object")
    return parsed


def _read(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        _fail(f"the file ends {count - len(data)} bytes early")
    return data


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # half a pair is refused by _json


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _fail(message: str) -> NoReturn:
    raise FormatError(f"{message}.")
