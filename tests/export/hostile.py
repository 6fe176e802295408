"""One-bit files made by hand, whole and broken."""

import hashlib
import json
import struct
from typing import Any

DATA = bytes([49, 7]) + struct.pack("<2f", 0.5, -1.5)


def container(header: bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file with any header."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def description(data: bytes, **fields: Any) -> dict[str, Any]:
    sha256 = hashlib.sha256(data).hexdigest()
    return {"axes": [], "sha256": sha256, **fields}


def parts(*, version: int = 1) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two headers of a file with one binary and one real tensor.

    In version 2 the real one has a slash and a tilde in its key.
    """
    real_name = "params/bias" if version == 1 else "params/mlp~1~0/bias"
    bits, real = DATA[:2], DATA[2:]
    kernel = description(bits, encoding="bits", dtype="float32", shape=[3, 5])
    kernel["axes"] = [0, 1]
    bias = description(real, encoding="real", dtype="float32", shape=[2])
    outer = {
        "params/kernel": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
        real_name: {"dtype": "F32", "shape": [2], "data_offsets": [2, 10]},
    }
    inner = {
        "format": version,
        "adaste_jax": "0",
        "jax": "0",
        "metadata": {"note": "x"},
        "tensors": {"params/kernel": kernel, real_name: bias},
    }
    return outer, inner


def grouped() -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The two headers and the data of a file of version 2 with scales of groups.

    The kernel is [16, 2] in groups of 8 inputs, with scales of float16; the rows are
    [4, 5], ternary, and each is a group.
    """
    kernel = {"encoding": "bits", "dtype": "float32", "shape": [16, 2], "group": [8, 1]}
    rows = {"encoding": "trits", "dtype": "float32", "shape": [4, 5], "group": [1, 5]}
    half = {"encoding": "real", "dtype": "float16", "shape": [2, 2]}
    single = {"encoding": "real", "dtype": "float32", "shape": [4, 1]}
    tensors = {  # what is stored, and how
        "params/a~1b/kernel": (bytes([1, 2, 3, 254]), "U8", [2, 2], kernel),
        "scales/params/a~1b/kernel": (
            struct.pack("<4e", 0.5, 2, 3, 0.25),
            "F16",
            [2, 2],
            half,
        ),
        "params/rows": (bytes([0, 121, 242, 7]), "U8", [4, 1], rows),
        "scales/params/rows": (struct.pack("<4f", 0.1, 2, 3, 4), "F32", [4, 1], single),
        "params/plain": (DATA[:2], "U8", [2], {**kernel, "shape": [3, 5]}),
    }
    del tensors["params/plain"][3]["group"]
    outer, described, data = {}, {}, b""
    for name, (stored, kind, shape, fields) in tensors.items():
        place = [len(data), len(data) + len(stored)]
        outer[name] = {"dtype": kind, "shape": shape, "data_offsets": place}
        described[name] = description(stored, **fields)
        data += stored
    described["params/a~1b/kernel"]["axes"] = [0]
    described["params/rows"]["axes"] = [1]
    described["params/plain"]["axes"] = [0, 1]
    return outer, {**parts(version=2)[1], "tensors": described}, data


def compact() -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The two headers and the data of the file of `grouped` as one of version 3."""
    outer, inner, data = grouped()
    packed = {
        name: {key: value for key, value in tensor.items() if key != "sha256"}
        for name, tensor in inner["tensors"].items()
        if tensor["encoding"] != "real"
    }
    sha256 = hashlib.sha256(data).hexdigest()
    return outer, {**inner, "format": 3, "tensors": packed, "sha256": sha256}, data


def assemble(outer: Any, inner: Any, data: bytes = DATA) -> bytes:
    """A file whose header has its checksum, whatever it says."""
    text = inner if isinstance(inner, str) else json.dumps(inner)
    checksum = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    texts = {"adaste_jax": f"{checksum} {text}"}
    return container(json.dumps({"__metadata__": texts, **outer}).encode(), data)
