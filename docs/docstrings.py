"""Lets mkdocstrings see the examples: it knows the heading `Examples:` only."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Renames the section `Example:` of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", text)
