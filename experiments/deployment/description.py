"""What a file says of the network in it: the schema of its metadata, with limits.

Whoever can write a file can write its metadata, so nothing there is believed: `check`
bounds every number before anything is built from it, and `fits.check` compares what is
left with the tensors of the file. Whatever is wrong is a `RunError` that names the
field.
"""

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from experiments import errors, models

INPUT_LIMIT = 2**22
"""Most numbers in one input, for example 1024 x 1024 pixels of three channels."""

_LAYERS, _FEATURES, _CLASSES, _NAME = 128, 2**20, 2**20, 200

Rule = tuple[str, Callable[[Any], bool]]
"""What a field must be, in words, and whether a value is that."""


def _whole(least: int, most: int) -> Rule:
    return (
        f"a whole number from {least} to {most}",
        lambda value: type(value) is int and least <= value <= most,
    )


def _number(least: float, most: float) -> Rule:
    return (
        f"a number from {least:g} to {most:g}",
        lambda value: type(value) in (int, float) and least <= value <= most,
    )


def _list(rule: Rule, *, least: int = 0, most: int) -> Rule:
    words, good = rule
    return (
        f"a list of {least} to {most} entries, each {words}",
        lambda value: (
            isinstance(value, list | tuple)
            and least <= len(value) <= most
            and all(map(good, value))
        ),
    )


def _one_of(*values: str) -> Rule:
    return (
        f"one of {', '.join(values)}",
        lambda value: isinstance(value, str) and value in values,
    )


_BOOL: Rule = ("true or false", lambda value: isinstance(value, bool))
_OBJECT: Rule = ("a JSON object", lambda value: isinstance(value, Mapping))
_NULL: Rule = ("null, as in text", lambda value: value is None)
_TEXT: Rule = (
    f"text of 1 to {_NAME} letters",
    lambda value: isinstance(value, str) and 0 < len(value) <= _NAME,
)

OPTIONS: dict[str, Rule] = {
    "blocks": _list(_whole(0, _LAYERS), most=16),
    "convolutions": _list(_whole(0, _LAYERS), most=16),
    "dense": _whole(1, _FEATURES),
    "depth": _whole(0, _LAYERS),
    "dtype": _one_of("float32", "bfloat16", "float16"),
    "features": _list(_whole(1, _FEATURES), most=_LAYERS),
    "heads": _whole(1, 1024),
    "norm_momentum": _number(0, 1),
    "patch": _whole(1, 1024),
    "stem": _TEXT,
    "use_logit_norm": _BOOL,
    "width": _whole(1, _FEATURES),
}
"""The options of all networks in `models`."""


def check(metadata: Mapping[str, Any]) -> None:
    """Refuses metadata that do not describe a network, or one beyond all bounds.

    Fields other than `architecture`, `input` and `dataset` are neither checked nor
    used.

    Args:
        metadata: Metadata of a file or a program.

    Raises:
        RunError: If a field is wrong; the message names the first.
    """
    architecture = _field(metadata, "", "architecture", _OBJECT)
    inputs = _field(metadata, "", "input", _OBJECT)
    if "dataset" in metadata:
        check_dataset(_field(metadata, "", "dataset", _TEXT))
    _check_architecture(architecture)
    _check_input(inputs)


def check_dataset(name: str) -> None:
    """Refuses names of data sets that could lead out of the data folder.

    Args:
        name: Name of a data set, in any form that `sources.source` takes.

    Raises:
        RunError: If it is not a plain name.
    """
    parts = name.split("/")
    if (
        not 0 < len(name) <= _NAME
        or "\\" in name
        or not name.isprintable()
        or any(part.strip() in ("", ".", "..") or part[0] == "~" for part in parts)
    ):
        raise errors.RunError(
            f"{reprlib.repr(name)} is no name of a data set: expected a plain one, "
            "'digits', 'cifar10' or 'folder/NAME', that stays within the data folder."
        )


def is_in_catalog(name: str) -> bool:
    """Whether a name can be one of TFDS itself, and not of another place online."""
    return re.fullmatch(r"\w+(/[\w.+-]+)?(:\d+\.\d+\.\d+)?", name) is not None


def num_layers(options: Mapping[str, Any]) -> int:
    """How many layers options that are checked ask for; each has tensors of its own."""
    return (
        options.get("depth", 0)
        + len(options.get("features", ()))
        + sum(options.get("blocks", ()))
        + sum(options.get("convolutions", ()))
    )


def _check_architecture(found: Mapping[str, Any]) -> None:
    where = "architecture."
    network = _field(found, where, "network", _one_of(*sorted(models.MODELS)))
    classes = _field(found, where, "num_classes", _whole(2, _CLASSES))
    _field(found, where, "folded", _BOOL)
    options = _field(found, where, "options", _OBJECT)
    for name in options:
        if name not in OPTIONS:
            raise _wrong(f"{where}options", f"options of {network}", name)
        _field(options, f"{where}options.", name, OPTIONS[name])
    if found.get("class_names") is not None:
        _field(found, where, "class_names", _list(_TEXT, least=classes, most=classes))


def _check_input(found: Mapping[str, Any]) -> None:
    where = "input."
    for name in ("mean", "std", "max_value", "image_size"):
        if name not in found:
            raise _wrong(where + name, "a value or null", None)
    is_text = found["mean"] is None
    rank = 1 if is_text else 3
    shape = _field(
        found, where, "shape", _list(_whole(1, INPUT_LIMIT), least=rank, most=rank)
    )
    if math.prod(shape) > INPUT_LIMIT:
        raise _wrong(
            f"{where}shape", f"at most {INPUT_LIMIT} numbers in an input", shape
        )
    if is_text:
        for name in ("std", "max_value", "image_size"):
            _field(found, where, name, _NULL)
        return
    channels = shape[-1]
    moments = {"mean": _number(-1e9, 1e9), "std": _number(1e-9, 1e9)}
    for name, rule in moments.items():
        _field(found, where, name, _list(rule, least=channels, most=channels))
    _field(found, where, "max_value", _number(1, 65535))
    size = found["image_size"]
    if size is not None:
        _field(found, where, "image_size", _whole(1, INPUT_LIMIT))
        if list(shape[:2]) != [size, size]:
            raise _wrong(
                f"{where}image_size", f"the side of images of shape {list(shape)}", size
            )


def _field(found: Mapping[str, Any], where: str, name: str, rule: Rule) -> Any:
    words, good = rule
    if name not in found:
        raise _wrong(where + name, words, None)
    value = found[name]
    if not good(value):
        raise _wrong(where + name, words, value)
    return value


def _wrong(field: str, expected: str, found: Any) -> errors.RunError:
    what = "nothing" if found is None else reprlib.repr(found)
    return errors.RunError(
        f"the file does not describe its network: expected {expected} in the metadata "
        f"field {field!r}, found {what}. It was not written by experiments.export. "
        "adaste_jax.export.load reads what is in it."
    )
