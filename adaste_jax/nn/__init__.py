"""Layers whose kernel passes through an estimator: `nn.linen` and `nn.nnx`."""

import importlib
import importlib.util
from typing import Any

from adaste_jax.nn._conv import conv_general_dilated
from adaste_jax.nn._dot import dot_general

if importlib.util.find_spec("flax") is None:
    raise ImportError('the layers need Flax: pip install "adaste_jax[flax]"')

__all__ = ["conv_general_dilated", "dot_general", "linen", "nnx"]


def __getattr__(name: str) -> Any:
    if name in ("linen", "nnx"):
        return importlib.import_module(f"adaste_jax.nn.{name}")
    raise AttributeError(f"module 'adaste_jax.nn' has no attribute {name!r}")
