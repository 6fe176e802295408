"""Reading a one-bit file: the checks of what stands in it.

Nothing in a file is trusted: sizes are compared with the size of the file before
anything is read, every tensor with its checksum, and no code is ever loaded. Only NumPy
is used.
"""

import dataclasses
import hashlib
import itertools
import math
import os
import reprlib
import struct
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from adaste_jax.export import _format, _pack, _packed

_BINARY_DTYPES = ("bfloat16", "float16", "float32", "float64")


class Tensor(NamedTuple):
    """One tensor of a file, as its header describes it."""

    name: str
    encoding: str  # "bits", "trits" or "real"
    dtype: str  # of the weights, a key of `_format.DTYPES`
    shape: tuple[int, ...]  # of the weights
    axes: tuple[int, ...]  # the packed ones; empty for "real"
    group: tuple[int, ...] | None  # that shares a scale, along each axis
    sha256: str | None  # of the bytes as stored; None where there is one of all
    stored: tuple[int, ...]  # the shape of the bytes, or of the tensor if "real"
    nbytes: int  # as stored


def read(
    path: str | os.PathLike[str], *, packed: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors by name, in the order of the file, and the header.

    With `packed`, those of packed weights are `Packed`.

    Raises:
        FormatError: If anything in the file is not as `docs/format.md` says.
        OSError: If the file cannot be read.
    """
    with open(path, "rb") as file:
        try:
            size = os.fstat(file.fileno()).st_size
            header, tensors = _read_header(file, size)
            digest = hashlib.sha256()
            found: dict[str, Any] = {
                t.name: _read_tensor(file, t, digest) for t in tensors
            }
            if header["format"] == _format.COMPACT:
                _check_sum(digest.hexdigest(), header.get("sha256"), "the data")
        except _format.FormatError as error:
            error.add_note(f"in the file {os.fspath(path)!r}")
            raise
    for tensor in tensors:
        name = tensor.name
        if tensor.encoding != "real":
            scale = found.pop(_format.scale_name(name), None)
            weights = dataclasses.replace(found[name], scale=scale)
            finish = _packed.by_columns if packed else _packed.on_host
            found[name] = finish(weights)
    return found, header


def _read_header(file: BinaryIO, size: int) -> tuple[dict[str, Any], list[Tensor]]:
    """The header, and the tensors in the order of their bytes."""
    if size < 8:
        _format.fail(f"{size} bytes are too few")
    (length,) = struct.unpack("<Q", _read(file, 8))
    if length > _format.HEADER_LIMIT or length > size - 8:
        _format.fail(
            f"a header of {length} bytes: the file has {size}, at most "
            f"{_format.HEADER_LIMIT}"
        )
    container = _format.json_object(_read(file, length))
    texts = container.pop("__metadata__", None)
    if not isinstance(texts, dict) or set(texts) != {_format.KEY}:
        _format.fail("a safetensors file without the header of this format")
    stored = texts[_format.KEY]
    text = stored.partition(" ")[2] if isinstance(stored, str) else ""
    if stored != _format.seal(text):
        _format.fail("the header does not have its checksum")
    header = _format.json_object(_format.utf8(text))
    version = header.get("format")
    if type(version) is not int or version not in _format.VERSIONS:
        _format.fail(
            f"format version {reprlib.repr(version)}, where one of "
            f"{_format.VERSIONS} is read: use the version of adaste_jax that wrote the "
            "file"
        )
    described = header.get("tensors")
    if version == _format.COMPACT and isinstance(described, dict):
        described = header["tensors"] = _whole(container, described)
    if not isinstance(described, dict) or set(described) != set(container):
        _format.fail("the header and the container do not name the same tensors")
    if not isinstance(header.get("metadata"), dict):
        _format.fail("the header has no metadata")
    data_size = size - 8 - length
    return header, _layout(container, described, data_size=data_size, version=version)


def _whole(container: dict[str, Any], packed: dict[str, Any]) -> dict[str, Any]:
    """The tensors of a short header, with the real ones, which the container has."""
    whole: dict[str, Any] = {}
    for name, entry in container.items():
        entry = entry if isinstance(entry, dict) else {}
        kind = entry.get("dtype")
        whole[name] = {
            "encoding": "real",
            "dtype": _format.KINDS.get(kind) if isinstance(kind, str) else None,
            "shape": entry.get("shape"),
            "axes": [],
        }
    return {**whole, **packed}


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
        _format.check_name(name, version)
        root, *parts = name.split("/")
        above = ["/".join([root, *parts[:depth]]) for depth in range(len(parts))]
        if root not in _format.ROOTS or any(folder in container for folder in above):
            _format.fail(
                f"{name!r} lies in no folder of {_format.ROOTS}, or below another "
                "tensor"
            )
        tensor, span = _describe(name, entry, described[name], version)
        spans.append((span, tensor))
    spans.sort()
    end = 0
    for span, tensor in spans:
        if span != (end, end + tensor.nbytes):
            _format.fail(f"{tensor.name!r} overlaps, leaves a gap or has a wrong size")
        end += tensor.nbytes
    if end != data_size:
        _format.fail(f"{data_size} bytes of data, and the header describes {end}")
    tensors = {tensor.name: tensor for _, tensor in spans}
    for scale in tensors.values():
        root, _, name = scale.name.partition("/")
        if root == "scales" and not _fits(scale, tensors.get(name), version):
            _format.fail(f"{scale.name!r} is no scale of packed weights")
        if scale.group is not None and _format.scale_name(scale.name) not in tensors:
            _format.fail(f"{scale.name!r} has groups and no scale")
    return list(tensors.values())


def _fits(scale: Tensor, weights: Tensor | None, version: int) -> bool:
    if weights is None or weights.encoding == "real" or scale.encoding != "real":
        return False
    dtypes = [weights.dtype]
    if version > 1 and weights.dtype in ("float32", "float64"):
        dtypes.append("float16")
    if scale.dtype not in dtypes:
        return False
    if weights.group is None:
        return scale.shape in ((), weights.shape[-1:])
    lengths = itertools.zip_longest(scale.shape, weights.group, weights.shape)
    return all(None not in axis and axis[0] * axis[1] == axis[2] for axis in lengths)


def _describe(
    name: str, entry: Any, description: Any, version: int
) -> tuple[Tensor, tuple[int, ...]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        _format.fail(f"{name!r} is not described as safetensors does")
    fields = {"encoding", "dtype", "shape", "axes"}
    if version != _format.COMPACT:
        fields.add("sha256")
    described = set(description) if isinstance(description, dict) else set()
    if version > 1 and described and description.get("encoding") != "real":
        described.discard("group")  # which may be there
    if described != fields:
        _format.fail(f"{name!r} is not described by {sorted(fields)}")
    group = (
        _format.shape(name, description["group"]) if "group" in description else None
    )
    if group is not None and (not group or 0 in group):
        _format.fail(f"{name!r} has groups of length 0, or without axes")
    encoding, dtype = description["encoding"], description["dtype"]
    shape, axes = (
        _format.shape(name, description["shape"]),
        _format.shape(name, description["axes"]),
    )
    if encoding in ("bits", "trits") and dtype in _BINARY_DTYPES:
        kind, itemsize = "U8", 1
        per_byte = _packed.PER_BYTE[encoding]
        axis = axes if shape else None
        try:
            stored = _pack.packed_shape(shape, axis=axis, per_byte=per_byte)
        except ValueError as error:
            raise _format.FormatError(f"{name!r}: {error}") from error
    elif (
        encoding == "real"
        and isinstance(dtype, str)
        and dtype in _format.DTYPES
        and not axes
    ):
        kind, itemsize = _format.DTYPES[dtype][0], _format.DTYPES[dtype][1].itemsize
        stored = shape
    else:
        _format.fail(
            f"{name!r} has an encoding or dtype that this version does not know"
        )
    if entry["dtype"] != kind or _format.shape(name, entry["shape"]) != stored:
        _format.fail(f"{name!r} is not stored as the header says")
    checksum = description.get("sha256")
    if version != _format.COMPACT and not isinstance(checksum, str):
        _format.fail(f"{name!r} has no checksum")
    tensor = Tensor(
        name=name,
        encoding=encoding,
        dtype=dtype,
        shape=shape,
        axes=axes,
        group=group,
        sha256=checksum,
        stored=stored,
        nbytes=math.prod(stored) * itemsize,
    )
    return tensor, _format.numbers(name, entry["data_offsets"])


def _read_tensor(
    file: BinaryIO, tensor: Tensor, digest: Any
) -> np.ndarray | _packed.Packed:
    """Reads a tensor, and adds its bytes to the checksum of all if it has none."""
    data = _read(file, tensor.nbytes)
    if tensor.sha256 is None:
        digest.update(data)
    else:
        _check_sum(_format.sha256(data), tensor.sha256, repr(tensor.name))
    dtype = _format.DTYPES[tensor.dtype][1]
    if tensor.encoding == "real":
        return np.frombuffer(data, dtype).reshape(tensor.shape)
    packed = np.frombuffer(data, np.uint8).reshape(tensor.stored)
    if tensor.encoding == "trits" and (packed >= 3**5).any():
        _format.fail(f"{tensor.name!r} has a byte that is not five trits")
    return _packed.Packed(
        packed=packed,
        scale=None,
        encoding=tensor.encoding,
        shape=tensor.shape,
        axes=tensor.axes,
        dtype=dtype,
        group=tensor.group,
    )


def _check_sum(found: str, expected: Any, what: str) -> None:
    if found != expected:
        _format.fail(f"{what} does not have its checksum: the file is damaged")


def _read(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        _format.fail(f"the file ends {count - len(data)} bytes early")
    return data
