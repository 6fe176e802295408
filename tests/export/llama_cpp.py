"""llama.cpp itself; a test that asks for it is skipped where it is not installed."""

import pytest

from benchmarks import llama_cpp


class Model(llama_cpp.Model):
    """See `benchmarks.llama_cpp`."""

    def __init__(self, *arguments):
        _need()
        super().__init__(*arguments)


def library():
    """See `benchmarks.llama_cpp`."""
    _need()
    return llama_cpp.library()


def dequantize(kind, data):
    """See `benchmarks.llama_cpp`."""
    _need()
    return llama_cpp.dequantize(kind, data)


def _need():
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed (extra llama)")
