"""The public names of adaste_jax with their signatures, as text.

`python -m tests.api` writes `tests/api.txt`; `test_api.py` compares. Types are left
out, since they print differently from one version of Python or JAX to the next.
"""

import inspect
import pathlib
import types
from collections.abc import Iterator
from typing import Any

import adaste_jax

FILE = pathlib.Path(__file__).with_name("api.txt")


def _default(value: Any) -> str:
    """What a default is called, without addresses in memory."""
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    text = repr(value)
    return type(value).__name__ if " at 0x" in text else text


def _signature(function: Any) -> str:
    """`(latent, *, mu, alpha=0.01)`."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # a class that takes what its base class in C takes
        return "(...)"
    empty = inspect.Parameter.empty  # positional-only ones are not marked
    parameters, starred = [], False
    for parameter in signature.parameters.values():
        name = str(parameter.replace(annotation=empty, default=empty))
        default = parameter.default
        parameters.append(name if default is empty else f"{name}={_default(default)}")
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parameters.insert(-1, "*")
        starred |= parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
    return f"({', '.join(parameters)})"


def _members(name: str, kind: type) -> Iterator[str]:
    """Methods and properties of a class that this package defines."""
    ours = [base for base in kind.__mro__ if base.__module__.startswith("adaste_jax")]
    for member in sorted({member for base in ours for member in vars(base)}):
        found = inspect.getattr_static(kind, member)
        if member.startswith("_") and member != "__call__":
            continue
        if isinstance(found, property):
            yield f"{name}.{member}"
        elif isinstance(found, types.FunctionType | classmethod | staticmethod):
            function = getattr(found, "__func__", found)
            if inspect.unwrap(function).__module__.startswith("adaste_jax"):
                yield f"{name}.{member}{_signature(function)}"


def _public(module: types.ModuleType) -> list[str]:
    """Names of `__all__`, or what a module without it defines."""
    defined = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
    ]
    return sorted(getattr(module, "__all__", defined))


def lines(module: types.ModuleType) -> Iterator[str]:
    """One line a public name, and those of the modules among them."""
    for name in _public(module):
        value = getattr(module, name)
        path = f"{module.__name__}.{name}"
        if inspect.ismodule(value):
            yield path
            yield from lines(value)
        elif inspect.isclass(value):
            yield f"class {path}{_signature(value)}"
            yield from _members(path, value)
        elif callable(value):
            yield f"{path}{_signature(value)}"
        else:
            yield f"{path}: {type(value).__name__}"


def text() -> str:
    """All of it."""
    return "\n".join(lines(adaste_jax)) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
    print(f"wrote {FILE}")
