"""The optional package `adaste-jax-cpu`: found, or XLA does its work."""

import functools
import importlib
import importlib.util
import os
from typing import Any

PACKAGE = "adaste_jax_cpu"

VARIABLE = "ADASTE_NATIVE"
"""Set to 0 in the environment, it leaves the package alone."""


def find() -> Any:
    """The package, or None where it is not there, not wanted, or cannot be loaded."""
    return _load()[0]


def describe() -> str:
    """One line on what it does here, or why it cannot; empty where it is not there."""
    package, failure = _load()
    if failure:
        return f"adaste-jax-cpu is installed but not used: {failure}"
    if package is None:
        return ""
    dtypes = "float32 and bfloat16" if package.has_bfloat16() else "float32"
    text = f"adaste-jax-cpu {package.__version__}: convolutions in {dtypes}"
    if bits := package.vector_bits():
        text += f", packed products with {bits} bits"
    return text


def _load() -> tuple[Any, str]:
    return (None, "") if os.environ.get(VARIABLE) == "0" else _load_once()


@functools.cache
def _load_once() -> tuple[Any, str]:
    if importlib.util.find_spec(PACKAGE) is None:
        return None, ""
    try:
        package = importlib.import_module(PACKAGE)
        package.load()
    except (ImportError, OSError) as error:  # a library is missing, or another machine
        return None, str(error)
    return package, ""
