"""Neural networks with one-bit weights, in JAX.

Latents are the real numbers that are trained, weights are what the network uses, and
an estimator maps the first to the second with its own backward rule.

`import adaste_jax` needs JAX and Optax only. `adaste_jax.nn`, which needs Flax, and
`adaste_jax.export` are imported when they are first used.
"""

import importlib
import importlib.metadata
from typing import Any

from adaste_jax import estimators, methods, metrics, optim, train
from adaste_jax._from_torch import from_torch
from adaste_jax._paths import kernels
from adaste_jax._summary import summary
from adaste_jax._tree import binarize, deploy

__version__ = importlib.metadata.version("adaste_jax")

__all__ = [
    "binarize",
    "datasets",
    "deploy",
    "estimators",
    "export",
    "from_torch",
    "kernels",
    "methods",
    "metrics",
    "nn",
    "optim",
    "summary",
    "train",
]

_LAZY = ("datasets", "export", "nn")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"adaste_jax.{name}")
    raise AttributeError(f"module 'adaste_jax' has no attribute {name!r}")
