"""The compiled library, and its handlers by name."""

import ctypes
import functools
import pathlib

import jax

from adaste_jax_cpu import _places

_HANDLERS = {
    "adaste_convolution": "AdasteConvolution",
    "adaste_convolution_inputs": "AdasteConvolutionInputs",
    "adaste_convolution_kernel": "AdasteConvolutionKernel",
    "adaste_packed_matmul": "AdastePackedMatmul",
}


@functools.cache
def load() -> ctypes.CDLL:
    """Loads oneDNN and the library, and registers the handlers with XLA.

    Raises:
        OSError: If a library is missing, or does not run on this machine.
    """
    ctypes.CDLL(str(_places.onednn_library()))
    library = ctypes.CDLL(str(pathlib.Path(__file__).parent / "_native.so"))
    for name, symbol in _HANDLERS.items():
        capsule = jax.ffi.pycapsule(getattr(library, symbol))
        jax.ffi.register_ffi_target(name, capsule, platform="cpu")
    return library


def has_bfloat16() -> bool:
    """Whether this machine has instructions for bfloat16 that oneDNN uses."""
    return bool(load().AdasteHasBfloat16())


def vector_bits() -> int:
    """Bits of the vectors of the packed product: 512, 256, or 0 where there is none."""
    return int(load().AdasteVectorBits())
