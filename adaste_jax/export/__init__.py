"""From trained latents to a file with one bit a weight, and from it to predictions."""

from adaste_jax.export._apply_packed import apply_packed
from adaste_jax.export._c import to_c
from adaste_jax.export._file import Loaded, load, save, write_file
from adaste_jax.export._fold import (
    apply_folded,
    fold_batch_norm,
    fold_linen,
    fold_threshold,
)
from adaste_jax.export._format import FormatError
from adaste_jax.export._gguf import to_gguf
from adaste_jax.export._graph import UnsupportedError
from adaste_jax.export._matmul import packed_matmul
from adaste_jax.export._onnx import to_onnx
from adaste_jax.export._pack import (
    pack,
    pack_ternary,
    packed_shape,
    unpack,
    unpack_ternary,
)
from adaste_jax.export._packed import Packed
from adaste_jax.export._program import packed_forward, to_stablehlo
from adaste_jax.export._qonnx import to_qonnx

__all__ = [
    "FormatError",
    "Loaded",
    "Packed",
    "UnsupportedError",
    "apply_folded",
    "apply_packed",
    "fold_batch_norm",
    "fold_linen",
    "fold_threshold",
    "load",
    "pack",
    "pack_ternary",
    "packed_forward",
    "packed_matmul",
    "packed_shape",
    "save",
    "to_c",
    "to_gguf",
    "to_onnx",
    "to_qonnx",
    "to_stablehlo",
    "unpack",
    "unpack_ternary",
    "write_file",
]
