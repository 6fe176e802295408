"""The network `decoder` in the forms that llama.cpp and `transformers` read."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from adaste_jax import export
from experiments import errors, models
from experiments.deployment import deployed
from experiments.models import hugging_face, hugging_face_files


def check(name: str, written: Sequence[str]) -> None:
    """Refuses networks that have no such form, before anything is written.

    Args:
        name: Name of the network.
        written: Flags of the forms that are to be written.

    Raises:
        RunError: If the network is no `decoder`, and something is to be written.
    """
    flags = [f"--{flag}" for flag in written]
    if name != "decoder" and flags:
        raise errors.RunError(
            f"{' and '.join(flags)}: the network {name!r} has no such form, and a "
            "'decoder' has: --config=experiments/configs/language_model.py:qwen3."
        )


def write_gguf(
    path: str | os.PathLike[str], described: Mapping[str, Any], weights: Any
) -> None:
    """Writes the weights that are shipped for llama.cpp.

    Args:
        path: The file.
        described: Description of the network, from `deployed.describe`.
        weights: The weights.

    Raises:
        ValueError: If llama.cpp has no such model, or no type for the weights.
    """
    network = _network(described)
    tensors = hugging_face.tensors(network, weights)
    config = hugging_face.config_of(network, context=described["input"]["shape"][0])
    told = {"general.name": f"decoder of {described['dataset']}"}
    export.to_gguf(path, tensors, config, metadata=told)


def write_hugging_face(
    folder: str | os.PathLike[str], described: Mapping[str, Any], params: Any
) -> None:
    """Writes the latents as a folder that `transformers` loads.

    Args:
        folder: The folder.
        described: Description of the network, from `deployed.describe`.
        params: The latents.

    Raises:
        RunError: If there is no such model, or the folder cannot be written.
    """
    context = described["input"]["shape"][0]
    hugging_face_files.write(folder, _network(described), params, context=context)


def size(folder: str | os.PathLike[str]) -> int:
    """Bytes of the files in a folder."""
    return sum(entry.stat().st_size for entry in os.scandir(folder))


def _network(described: Mapping[str, Any]) -> models.Decoder:
    network = deployed.module_of(described)
    assert isinstance(network, models.Decoder)
    return network
