"""Old names, which warn for one release."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any


def old_names(
    module: str, names: Mapping[str, tuple[Any, str]], *, goes_in: str
) -> Callable[[str], Any]:
    """The `__getattr__` of a module that keeps old names.

    Args:
        module: Name of the module.
        names: For each old name, its value and the text of what to write instead.
        goes_in: The version in which the old names are removed.

    Returns:
        The function, which gives a `DeprecationWarning` for an old name.
    """

    def getattr_of_module(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value, instead = names[name]
        warnings.warn(
            f"{module}.{name} is removed in {goes_in}. Write {instead}.",
            DeprecationWarning,
            stacklevel=2,
        )
        return value

    return getattr_of_module
