"""The description of the network in a file: the schema of its metadata, with limits.

Whoever can write a file can write its metadata, so the metadata are not trusted.
`check` bounds every number before anything is built from it, and `fits.check` compares
the rest with the tensors of the file. Every error is a `RunError` that names the field.
"""

import math
import re
import reprlib
from collections.abc import Mapping
from typing import Any

from experiments import errors, fields, models

INPUT_LIMIT = 2**22
"""Largest size of an input, in numbers; 1024 x 1024 pixels of three channels fit."""

_NAME = fields.Text(letters=(1, 200))


def check(metadata: Mapping[str, Any]) -> None:
    """Checks that metadata describe a network, within the limits.

    Fields other than `architecture`, `input` and `dataset` are neither checked nor
    used.

    Args:
        metadata: Metadata of a file or a program.

    Raises:
        RunError: If a field is wrong; the message names the first.
    """
    architecture = _object(metadata, "", "architecture")
    inputs = _object(metadata, "", "input")
    if "dataset" in metadata:
        check_dataset(_field(metadata, "", "dataset", _NAME))
    _check_architecture(architecture)
    _check_input(inputs)


def check_dataset(name: str) -> None:
    """Checks that the name of a data set cannot lead out of the data folder.

    Args:
        name: Name of a data set, in any form that `sources.source` takes.

    Raises:
        RunError: If it is not a plain name.
    """
    parts = name.split("/")
    if (
        _NAME.refusal(name)
        or "\\" in name
        or not name.isprintable()
        or any(part.strip() in ("", ".", "..") or part[0] == "~" for part in parts)
    ):
        raise errors.RunError(
            f"{reprlib.repr(name)} is not the name of a data set: expected a plain "
            "name, 'digits', 'cifar10' or 'folder/NAME', that stays within the data "
            "folder."
        )


def is_in_catalog(name: str) -> bool:
    """Whether a name can be in TFDS itself, and not in another place online."""
    return re.fullmatch(r"\w+(/[\w.+-]+)?(:\d+\.\d+\.\d+)?", name) is not None


def num_layers(options: Mapping[str, Any]) -> int:
    """Number of layers in checked options; each layer has its own tensors."""
    return (
        options.get("depth", 0)
        + len(options.get("features", ()))
        + sum(options.get("blocks", ()))
        + sum(options.get("convolutions", ()))
    )


def _check_architecture(found: Mapping[str, Any]) -> None:
    where = "architecture."
    network = _field(found, where, "network", fields.Choice(sorted(models.MODELS)))
    classes = _field(found, where, "num_classes", fields.whole(2, 2**20))
    _field(found, where, "folded", fields.Flag())
    options, kinds = _object(found, where, "options"), models.OPTIONS[network]
    for name in options:
        if name not in kinds:
            raise _wrong(f"{where}options.{name}", f" is not an option of {network}.")
        _field(options, f"{where}options.", name, kinds[name])
    if found.get("class_names") is not None:
        names = fields.Several(_NAME, least=classes, most=classes)
        _field(found, where, "class_names", names)


def _check_input(found: Mapping[str, Any]) -> None:
    where = "input."
    for name in ("mean", "std", "max_value", "image_size"):
        if name not in found:
            raise _wrong(where + name, " must hold a value or null, got nothing.")
    is_text = found["mean"] is None
    rank = 1 if is_text else 3
    side = fields.whole(1, INPUT_LIMIT)
    shape = _field(found, where, "shape", fields.Several(side, least=rank, most=rank))
    if math.prod(shape) > INPUT_LIMIT:
        raise _wrong(
            f"{where}shape", f" must be of {INPUT_LIMIT} numbers at most, got {shape}."
        )
    if is_text:
        for name in ("std", "max_value", "image_size"):
            if found[name] is not None:
                raise _wrong(where + name, " must be null for text.")
        if found.get("tokenizer") is not None:
            _field(found, where, "tokenizer", fields.Text(letters=(64, 64)))
        return
    channels = shape[-1]
    moments = {"mean": fields.Number(-1e9, 1e9), "std": fields.Number(1e-9, 1e9)}
    for name, kind in moments.items():
        several = fields.Several(kind, least=channels, most=channels)
        _field(found, where, name, several)
    _field(found, where, "max_value", fields.Number(1, 65535))
    size = found["image_size"]
    if size is not None:
        _field(found, where, "image_size", side)
        if list(shape[:2]) != [size, size]:
            raise _wrong(
                f"{where}image_size",
                f" must be the side of images of shape {list(shape)}, got {size}.",
            )


def _object(found: Mapping[str, Any], where: str, name: str) -> Mapping[str, Any]:
    value = found.get(name)
    if not isinstance(value, Mapping):
        raise _wrong(
            where + name, f" must be a JSON object, got {fields.shown(value)}."
        )
    return value


def _field(found: Mapping[str, Any], where: str, name: str, kind: fields.Kind) -> Any:
    if name not in found:
        raise _wrong(where + name, " must be there.")
    if refusal := kind.refusal(found[name]):
        raise _wrong(where + name, refusal)
    return found[name]


def _wrong(field: str, refusal: str) -> errors.RunError:
    return errors.RunError(
        f"the file does not describe its network: its metadata field {field}{refusal} "
        "It was not written by experiments.export. adaste_jax.export.load reads what "
        "is in it."
    )
