"""Kinds of values that a config can hold, each with a check that names the field.

A row of a table (`checks.FIELDS`, `models.OPTIONS`) is the name of a field and its
kind.
"""

import difflib
import math
import numbers
import re
import reprlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Protocol

import ml_collections
import numpy as np

from experiments import errors

MOST_WHOLE = 2**31 - 1
"""Steps and sizes are counted in 32 bits."""

_MOST = float(np.finfo(np.float32).max)
_LISTED = 60


class Kind(Protocol):
    """What a field may hold."""

    def refusal(self, value: Any) -> str | None:
        """What is wrong with a value, as text after the field's name; None if right."""


class Number(NamedTuple):
    """A finite number in an interval, of Python or NumPy; booleans are not numbers.

    Attributes:
        least: The smallest value.
        most: The largest value. Default: the largest of float32, or of int32.
        above: Whether `least` itself is excluded.
        below: Whether `most` itself is excluded.
        whole: Whether it must be an integer.
    """

    least: float = -math.inf
    most: float | None = None
    above: bool = False
    below: bool = False
    whole: bool = False

    def refusal(self, value: Any) -> str | None:
        """See `Kind`."""
        limit: float = MOST_WHOLE if self.whole else _MOST
        most = limit if self.most is None else self.most
        kind = numbers.Integral if self.whole else numbers.Real
        if isinstance(value, bool) or not isinstance(value, kind):
            return f" must be {self}, got {shown(value)}."
        number = int(value) if isinstance(value, numbers.Integral) else float(value)
        low = self.least < number if self.above else self.least <= number
        high = number < most if self.below else number <= most
        if low and high and abs(number) <= most:
            return None
        # The general limit is said only to those who pass it.
        passed = low and self.most is None and number != math.inf
        cap = f" and at most {limit}" if passed else ""
        return f" must be {self}{cap}, got {shown(value)}."

    def __str__(self) -> str:
        """For example `a whole number >= 1`, `a number in [0, 1)`."""
        name = "a whole number" if self.whole else "a number"
        if self.most is not None:
            left, right = "(" if self.above else "[", ")" if self.below else "]"
            return f"{name} in {left}{self.least:g}, {self.most:.12g}{right}"
        if self.least > -math.inf:
            return f"{name} {'>' if self.above else '>='} {self.least:g}"
        return name


class Flag:
    """True or False; numbers are not accepted."""

    def refusal(self, value: Any) -> str | None:
        """See `Kind`."""
        right = isinstance(value, bool | np.bool_)
        return None if right else f" must be True or False, got {shown(value)}."


class Text(NamedTuple):
    """A string.

    Attributes:
        optional: Whether it may be None, which means the same as an empty string.
        letters: Smallest and largest number of letters. Default: any number.
    """

    optional: bool = False
    letters: tuple[int, int] | None = None

    def refusal(self, value: Any) -> str | None:
        """See `Kind`."""
        if value is None and self.optional:
            return None
        least, most = self.letters or (0, math.inf)
        if isinstance(value, str) and least <= len(value) <= most:
            return None
        letters = f" of {least} to {most} letters" if self.letters else ""
        return f" must be a string{letters}, got {shown(value)}."


class Choice(NamedTuple):
    """One of several names.

    Attributes:
        known: The allowed names.
        what: What the names stand for, for the message. If it is empty, the message
            says that the field must be one of them.
        optional: Whether it may be None.
    """

    known: Collection[str]
    what: str = ""
    optional: bool = False

    def refusal(self, value: Any) -> str | None:
        """See `Kind`."""
        if isinstance(value, str) and value in self.known:
            return None
        if value is None and self.optional:
            return None
        if self.what:
            return f": {unknown(self.what, value, self.known)}"
        listed = ", ".join(self.known)
        return (
            f" must be one of {listed}, got {shown(value)}{guess(value, self.known)}."
        )


class Several(NamedTuple):
    """A tuple or list.

    Attributes:
        of: The kind of its entries.
        least: The smallest number of entries.
        most: The largest number of entries.
    """

    of: Kind
    least: int = 0
    most: int = 128

    def refusal(self, value: Any) -> str | None:
        """See `Kind`."""
        if not isinstance(value, tuple | list):
            return f" must be a tuple, got {shown(value)}."
        if not self.least <= len(value) <= self.most:
            return f" must have {self.least} to {self.most} entries, got {len(value)}."
        for index, entry in enumerate(value):
            if refusal := self.of.refusal(entry):
                return f"[{index}]{refusal}"
        return None


class Pattern:
    """A regular expression."""

    def refusal(self, value: Any) -> str | None:
        """See `Kind`."""
        try:
            re.compile(value)
        except (TypeError, re.error) as error:
            return f" must be a regular expression, got {shown(value)} ({error})."
        return None if isinstance(value, str) else f" must be a string, got {value!r}."


def whole(least: float = 0, most: float | None = None) -> Number:
    """A whole number in [least, most]."""
    return Number(least, most, whole=True)


def positive() -> Number:
    """A number above 0."""
    return Number(0, above=True)


def check(
    values: Mapping[str, Any], kinds: Mapping[str, Kind], *, prefix: str = "config."
) -> None:
    """Checks that every value is of its kind.

    Args:
        values: Values by name of the field. Names that `kinds` lacks are not checked.
        kinds: The kinds, by the same names.
        prefix: Text before the name in the message.

    Raises:
        RunError: If a value is not; the message names the field, what it must be, and
            the value.
    """
    for name, value in values.items():
        if name in kinds and (refusal := kinds[name].refusal(value)):
            raise errors.RunError(f"{prefix}{name}{refusal}")


def mapping(value: Any, path: str) -> dict[str, Any]:
    """The options that a field holds, as a dict.

    Raises:
        RunError: If the field is not a mapping.
    """
    if not isinstance(value, Mapping | ml_collections.ConfigDict):
        raise errors.RunError(f"{path} must hold options, got {shown(value)}.")
    return {name: value[name] for name in value}


def unknown(what: str, name: Any, known: Collection[str]) -> str:
    """The message about an unknown name, with a guess of what was meant.

    Args:
        what: What the name should stand for.
        name: The given name.
        known: The known names.

    Returns:
        For example `there is no method 'stee' (did you mean 'ste'?); there are ...`
    """
    listed = sorted(known)
    rest = ", ..." if len(listed) > _LISTED else ""
    return (
        f"there is no {what} {shown(name)}{guess(name, known)}; there are "
        f"{', '.join(listed[:_LISTED])}{rest}."
    )


def guess(name: Any, known: Collection[str]) -> str:
    """` (did you mean ...?)`, or nothing if no known name is similar."""
    if not isinstance(name, str):
        return ""
    # Names differ from what was typed in case, dashes and a few letters.
    plain = {one.lower().replace("-", "_"): one for one in known}
    near = difflib.get_close_matches(name.lower().replace("-", "_"), plain, n=1)
    return f" (did you mean {plain[near[0]]!r}?)" if near else ""


def shown(value: Any) -> str:
    """A value on one line: NumPy numbers as numbers, long values cut."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, ml_collections.ConfigDict):
        value = value.to_dict()
    try:
        text = " ".join(repr(value).split())
    except RecursionError:  # lists in lists in lists
        text = reprlib.repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
