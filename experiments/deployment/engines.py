"""A network in the forms of other engines: written, and run if the engine is here."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any, NamedTuple

import jax

from adaste_jax import export
from experiments import errors, models
from experiments.data import tokens
from experiments.deployment import c_sources, deployed
from experiments.models import hugging_face, hugging_face_files

Path = str | os.PathLike[str]
Run = Callable[[Any], Any] | None  # from raw images or text to logits


class Network(NamedTuple):
    """What is written.

    Attributes:
        described: Description of the network, from `deployed.describe`.
        params: The weights that are shipped.
        model_state: Batch-norm statistics.
        latents: The latents of the weights.
        metadata: What the files say of the network.
        where: Which of the weights are binary.
        vocabulary: The tokens of a text.
    """

    described: Mapping[str, Any]
    params: Any
    model_state: Any
    latents: Any
    metadata: Mapping[str, Any]
    where: Any
    vocabulary: tokens.Vocabulary = tokens.BYTES

    @property
    def traced(self) -> tuple[Any, Any, Any]:
        """The arguments by position that exporters share."""
        return deployed.network(self.described), self.params, self.model_state

    @property
    def inputs(self) -> dict[str, Any]:
        """The arguments by keyword that exporters share."""
        raw = deployed.raw_input(self.described)
        return {"input_shape": raw.shape[1:], "input_dtype": raw.dtype}


def _program(path: Path, network: Network) -> tuple[int, Run]:
    written = export.to_stablehlo(
        *network.traced,
        **network.inputs,
        path=path,
        where=network.where,
        deploy=lambda weights: weights,  # shipped already; their scale is found
        metadata=network.metadata,
    )
    read_back = jax.export.deserialize(bytearray(written))
    return len(written), jax.jit(read_back.call)


def _onnx(path: Path, network: Network) -> tuple[int, Run]:
    model = export.to_onnx(
        *network.traced, **network.inputs, path=path, metadata=network.metadata
    )
    return len(model), deployed.onnx_network(model)


def _c(path: Path, network: Network) -> tuple[int, Run]:
    sources = export.to_c(*network.traced, **network.inputs, path=path)
    compiler = c_sources.compiler()
    run = c_sources.network(path, compiler) if compiler else None
    return c_sources.flash(sources["network.h"]), run


def _gguf(path: Path, network: Network) -> tuple[int, Run]:
    """The weights that are shipped, for llama.cpp."""
    described = network.described
    decoder = _decoder(described)
    config = hugging_face.config_of(decoder, context=described["input"]["shape"][0])
    with tempfile.TemporaryDirectory() as folder:
        export.to_gguf(
            path,
            hugging_face.tensors(decoder, network.params),
            config,
            tokenizer=_tokenizer(network, pathlib.Path(folder) / "tokenizer.json"),
            metadata={"general.name": f"decoder of {described['dataset']}"},
        )
    return os.path.getsize(path), None


def _hugging_face(path: Path, network: Network) -> tuple[int, Run]:
    """The latents, as a folder that `transformers` loads."""
    decoder, context = _decoder(network.described), network.described["input"]["shape"]
    hugging_face_files.write(path, decoder, network.latents, context=context[0])
    _tokenizer(network, pathlib.Path(path) / "tokenizer.json")
    return sum(entry.stat().st_size for entry in os.scandir(path)), None


def _tokenizer(network: Network, path: pathlib.Path) -> pathlib.Path | None:
    """Writes the tokenizer, if there is one."""
    if network.vocabulary.source is None:
        return None
    export.write_file(path, network.vocabulary.source.encode())
    return path


def _decoder(described: Mapping[str, Any]) -> models.Decoder:
    network = deployed.module_of(described)
    assert isinstance(network, models.Decoder)
    return network


WRITERS: dict[str, Callable[[Path, Network], tuple[int, Run]]] = {
    "program": _program,
    "onnx": _onnx,
    "c": _c,
    "gguf": _gguf,
    "hugging_face": _hugging_face,
}
"""By the flag of `experiments.export`: each returns bytes, and a function or None."""

LANGUAGE_MODELS = ("gguf", "hugging_face")


def check(name: str, written: Set[str]) -> None:
    """Refuses networks that have no such form, before anything is written.

    Args:
        name: Name of the network.
        written: Names of the forms that are to be written.

    Raises:
        TypeError: If a form is not known.
        RunError: If the network is no `decoder`, and one is for language models.
    """
    if unknown := written - WRITERS.keys():
        raise TypeError(f"nothing is written as {', '.join(sorted(unknown))}.")
    flags = [f"--{flag}" for flag in LANGUAGE_MODELS if flag in written]
    if name != "decoder" and flags:
        raise errors.RunError(
            f"{' and '.join(flags)}: the network {name!r} has no such form, and a "
            "'decoder' has: --config=experiments/configs/language_model.py:qwen3."
        )


def write(
    files: Mapping[str, Path], network: Network
) -> tuple[dict[str, int], dict[str, Callable[[Any], Any]]]:
    """Writes files, in the order of `WRITERS`.

    Args:
        files: Where to write, by the name of the writer.
        network: What is written.

    Returns:
        Bytes of each file, and functions of those that can be run here.

    Raises:
        RunError: If a file cannot be written; the message names it.
    """
    sizes, functions = {}, {}
    for name, writer in WRITERS.items():
        if name in files:
            with writing(files[name]):
                sizes[name], run = writer(files[name], network)
            if run is not None:
                functions[name] = run
    return sizes, functions


@contextlib.contextmanager
def writing(file: Path) -> Iterator[None]:
    """Says of an error in the library which file could not be written."""
    try:
        yield
    except (OSError, ImportError, TypeError, ValueError) as error:
        reason = ", ".join([str(error), *getattr(error, "__notes__", ())])
        raise errors.RunError(f"cannot write {os.fspath(file)}: {reason}") from error
