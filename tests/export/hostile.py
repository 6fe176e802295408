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


def assemble(outer: Any, inner: Any, data: bytes = DATA) -> bytes:
    """A file whose header has its checksum, whatever it says."""
    text = inner if isinstance(inner, str) else json.dumps(inner)
    checksum = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    texts = {"adaste_jax": f"{checksum} {text}"}
    return container(json.dumps({"__metadata__": texts, **outer}).encode(), data)
