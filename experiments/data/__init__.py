"""Examples: read, decoded, split, varied, and fed to the training."""

import importlib
import warnings
from typing import Any

_MOVED = ("AUGMENTATIONS", "Arrays", "Splits", "augment", "epoch_order", "load")
"""Names of version 0.1, when this package was one module; they are removed in 0.3."""


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        f"experiments.data.{name} is now experiments.data.datasets.{name}; the old "
        "name is removed in 0.3.",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(importlib.import_module("experiments.data.datasets"), name)
