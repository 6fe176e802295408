"""Layers whose kernel passes through an estimator: `nn.linen` and `nn.nnx`."""

import importlib
from typing import Any

__all__ = ["linen", "nnx"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"adaste_jax.nn.{name}")
    raise AttributeError(f"module 'adaste_jax.nn' has no attribute {name!r}")
