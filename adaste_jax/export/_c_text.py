"""What the C sources of all networks share, and how expressions are put together."""

import importlib.resources
import re
import string

_FOLDER = importlib.resources.files(__package__) / "c"
MAIN = (_FOLDER / "main.c").read_text("utf-8")
"""The program that reads examples."""

HEADER = string.Template((_FOLDER / "network.h").read_text("utf-8"))
"""What `network.h` looks like."""

_PARTS = (_FOLDER / "functions.h").read_text("utf-8").strip("\n").split("\n\n")
FUNCTIONS = {
    re.findall(r"^static \w+ (\w+)\(", p, re.M)[0]: p + "\n" for p in _PARTS[1:]
}
"""What a network may call, in the order of the file; without libm."""


def needs(text: str) -> set[str]:
    """The functions of `FUNCTIONS` that an expression, or one of them, calls."""
    called = set(re.findall(r"\w+(?=\()", text)) & FUNCTIONS.keys()
    return called.union(*(needs(FUNCTIONS[name].partition("{")[2]) for name in called))


def total(*terms: tuple[str, int]) -> str:
    """The sum of expressions times numbers: an expression as short as it can be."""
    constant, parts = 0, []
    for value, factor in terms:
        if value.lstrip("-").isdigit():
            constant += int(value) * factor
        elif factor == 1:
            parts.append(value)
        elif factor:
            parts.append(
                f"{value if value.isidentifier() else f'({value})'} * {factor}"
            )
    if constant or not parts:
        parts.append(str(constant))
    return " + ".join(parts).replace("+ -", "- ")
