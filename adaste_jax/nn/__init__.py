"""Layers whose kernel passes through an estimator: `nn.linen` and `nn.nnx`."""

import importlib
import importlib.util
from typing import Any

if importlib.util.find_spec("flax") is None:
    raise ImportError('the layers need Flax: pip install "adaste_jax[flax]"')

__all__ = ["linen", "nnx"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"adaste_jax.nn.{name}")
    raise AttributeError(f"module 'adaste_jax.nn' has no attribute {name!r}")
