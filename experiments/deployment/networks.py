"""Loads the networks that `experiments.export` wrote, files and programs.

A file may come from anywhere: what it says of itself is checked first. A program is
code.
"""

import functools
import hashlib
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from adaste_jax import export
from experiments import errors
from experiments.data import tokens
from experiments.deployment import deployed, description, fits
from experiments.runs import small_files

_JSON_LIMIT = 2**22


class Model(NamedTuple):
    """A network that was read.

    Attributes:
        call: Compiled function from uint8 images or text to logits.
        metadata: Metadata of the file; `description.check` has passed them.
        batch_size: Largest number of inputs that go through the network at once.
        form: Whether its weights are "packed" while it runs, or "unpacked".
    """

    call: Callable[[Any], jax.Array]
    metadata: dict[str, Any]
    batch_size: int
    form: str


def load(path: str | os.PathLike[str], *, packed: bool = False) -> Model:
    """The network of a file.

    Args:
        path: A one-bit file, or a program: a name that ends in ".stablehlo".
        packed: Whether the weights of a file stay packed while it runs. Those of a
            program do.

    Raises:
        RunError: If the file cannot be read, or does not hold such a network.
    """
    path = pathlib.Path(path)
    if path.exists() and not path.is_file():
        raise errors.RunError(f"cannot read {path}: it is no regular file.")
    if path.suffix == ".stablehlo":
        return _load_program(path)
    try:
        params, model_state, metadata, _ = export.load(path, packed=packed)
    except (OSError, ValueError) as error:
        raise errors.RunError(
            f"cannot read {path} as a one-bit file: {error}"
        ) from error
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
        params,
        is_leaf=lambda leaf: isinstance(leaf, export.Packed),
    )
    fits.check(metadata, shapes, model_state)
    most = fits.batch_size(metadata, shapes, model_state)
    outputs = deployed.network(metadata)
    if packed:
        outputs = functools.partial(export.apply_packed, outputs)
    call = functools.partial(jax.jit(outputs), params, model_state)
    return Model(call, metadata, most, "packed" if packed else "unpacked")


def tokenizer_beside(path: str | os.PathLike[str]) -> pathlib.Path:
    """Where the tokenizer of a file stands, if its network has one."""
    return pathlib.Path(path).with_suffix(".tokenizer.json")


def vocabulary(path: str | os.PathLike[str], described: Any) -> tokens.Vocabulary:
    """The tokens of a network of text.

    Args:
        path: Its file, which has the tokenizer beside it.
        described: Metadata of the file.

    Raises:
        RunError: If the tokenizer cannot be read, or is another one.
    """
    digest = described["input"].get("tokenizer")
    if digest is None:
        return tokens.BYTES
    beside = tokenizer_beside(path)
    found = tokens.find(beside, described["architecture"]["num_classes"])
    if found.digest != digest:
        raise errors.RunError(f"{beside} is not the tokenizer of the network {path}.")
    return found


def _load_program(path: pathlib.Path) -> Model:
    beside = path.with_name(path.name + ".json")
    try:
        data = path.read_bytes()
        if beside.stat().st_size > _JSON_LIMIT:
            raise OSError(f"{beside} has more than {_JSON_LIMIT} bytes")
    except OSError as error:
        raise errors.RunError(f"cannot read {path} as a program: {error}") from error
    described = small_files.read(
        beside, cure="Export the network again.", sha256=str, jax=str, metadata=dict
    )
    if hashlib.sha256(data).hexdigest() != described["sha256"]:
        raise errors.RunError(
            f"cannot read {path} as a program: it does not have the checksum in the "
            ".json beside it."
        )
    try:
        program = jax.export.deserialize(bytearray(data))
    except Exception as error:  # another version of JAX fails in many ways
        raise errors.RunError(
            f"cannot read {path}: it was written by jax {described['jax']}, this is "
            f"jax {jax.__version__} ({error}). Export the network again with this "
            "version, or use that one."
        ) from error
    metadata = described["metadata"]
    description.check(metadata)
    shape = metadata["input"]["shape"]
    classes = metadata["architecture"]["num_classes"]
    if (
        len(program.in_avals) != 1
        or list(program.in_avals[0].shape[1:]) != list(shape)
        or len(program.out_avals) != 1
        or program.out_avals[0].shape[-1:] != (classes,)
    ):
        raise errors.RunError(
            f"the program {path} takes {program.in_avals} and gives "
            f"{program.out_avals}, and the .json beside it says an input of {shape} "
            f"and {classes} classes."
        )
    return Model(jax.jit(program.call), metadata, sys.maxsize, "packed")
