"""Convolutions and products with one-bit matrices on CPUs, for `adaste_jax` and JAX."""

from adaste_jax_cpu._convolution import conv_general_dilated
from adaste_jax_cpu._library import has_bfloat16, load, vector_bits
from adaste_jax_cpu._packed import packed_matmul

__version__ = "0.1.0"

__all__ = [
    "conv_general_dilated",
    "has_bfloat16",
    "load",
    "packed_matmul",
    "vector_bits",
]
