"""Folders of Hugging Face with a decoder: `config.json` and `*.safetensors`."""

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from adaste_jax import export
from experiments import errors, models
from experiments.models import hugging_face
from experiments.models.decoder import Decoder

CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


class Checkpoint(NamedTuple):
    """What a folder holds.

    Attributes:
        num_classes: Size of the vocabulary.
        options: The other attributes of the `Decoder`.
        params: Its parameters, float32.
        digest: SHA-256 of the files with weights.
    """

    num_classes: int
    options: dict[str, Any]
    params: dict[str, Any]
    digest: str


def write(
    folder: str | os.PathLike[str], network: Decoder, params: Any, *, context: int
) -> None:
    """Writes a folder that `transformers.AutoModelForCausalLM` loads.

    Args:
        folder: The folder, which is made; files in it of these names are replaced.
        network: The network.
        params: Its latents, or the weights that are shipped.
        context: Most tokens in a sequence: those that it was trained on.

    Raises:
        RunError: If no kind of model has its form, or the files cannot be written.
    """
    text = json.dumps(hugging_face.config_of(network, context=context), indent=2) + "\n"
    data = safetensors.numpy.save(
        hugging_face.tensors(network, params), metadata={"format": "pt"}
    )
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        export.write_file(folder / _WEIGHTS, data)
        export.write_file(folder / CONFIG, text.encode())
    except OSError as error:
        raise errors.RunError(f"cannot write {folder}: {error}") from error


def is_checkpoint(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is one of these, and no workdir."""
    folder = pathlib.Path(folder)
    there = any((folder / name).exists() for name in (_WEIGHTS, _INDEX))
    return there and (folder / CONFIG).exists()


def read(folder: str | os.PathLike[str]) -> Checkpoint:
    """The network in a folder, for `models.create("decoder", ...)`.

    Args:
        folder: A folder with `config.json` and `model.safetensors`, or its parts.

    Raises:
        RunError: If it cannot be read, or is not of a form that `Decoder` has.
    """
    folder = pathlib.Path(folder)
    described = _json(folder / CONFIG)
    network = hugging_face.network_of(described, folder / CONFIG)
    places = hugging_face.places(network)
    params: dict[str, Any] = {}
    digest, found = hashlib.sha256(), set()
    for file in _files(folder):
        try:
            digest.update(file.read_bytes())
            for name, leaf in _tensors(file):
                found.add(name)
                _put(params, name, leaf, places, file)
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise errors.RunError(f"cannot read {file}: {error}") from error
    if missing := [name for name in places if name not in found]:
        raise errors.RunError(
            f"{folder} lacks {len(missing)} tensors that its {CONFIG} calls for: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}."
        )
    decided = models.OPTIONS["decoder"].keys() - {"scan", "dtype"}
    options = {name: getattr(network, name) for name in decided}
    return Checkpoint(network.num_classes, options, params, digest.hexdigest())


def _json(file: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise errors.RunError(f"cannot read {file}: {error}") from error
    if not isinstance(found, dict):
        raise errors.RunError(f"cannot read {file}: it holds no JSON object.")
    return found


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files with weights: one, or those that an index lists."""
    if not (folder / _INDEX).exists():
        return [folder / _WEIGHTS]
    names = set(_json(folder / _INDEX).get("weight_map", {}).values())
    for name in names:
        if not re.fullmatch(r"[\w.-]+\.safetensors", str(name)):
            raise errors.RunError(f"{folder / _INDEX} names {name!r}, no file there.")
    return [folder / name for name in sorted(names)]


def _tensors(file: pathlib.Path) -> Iterator[tuple[str, np.ndarray]]:
    with safetensors.safe_open(file, framework="flax") as opened:
        for name in sorted(opened.keys()):
            yield name, np.asarray(opened.get_tensor(name), np.float32)


def _put(
    params: dict[str, Any],
    name: str,
    leaf: np.ndarray,
    places: Mapping[str, hugging_face.Place],
    file: pathlib.Path,
) -> None:
    """Puts a tensor into the tree."""
    if name not in places:
        if name == "lm_head.weight" or name.endswith("rotary_emb.inv_freq"):
            return  # of a tied head, and of positions: both follow from the rest
        raise errors.RunError(
            f"{file} holds {name!r}, which a decoder of its {CONFIG} does not have."
        )
    path, turned, shape = places[name]
    there, leaf = leaf.shape, leaf.T if turned else leaf
    if leaf.shape != shape:
        raise errors.RunError(
            f"{file} holds {name!r} of shape {there}, and its {CONFIG} calls for "
            f"{shape[::-1] if turned else shape}."
        )
    *folders, last = path
    for key in folders:
        params = params.setdefault(key, {})
    params[last] = np.ascontiguousarray(leaf)
