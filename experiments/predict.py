"""Loads a network that `experiments.export` wrote, and evaluates it on test images.

    python -m experiments.predict --model=quickstart.safetensors

The model is a one-bit file or a program (with its `.json` beside it). Nothing else of
the run is needed.
"""

import argparse
import functools
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import rich.console

from adaste_jax import export
from experiments import command_line, data_source, deployed, errors


def load(
    path: str | os.PathLike[str],
) -> tuple[Callable[[Any], jax.Array], dict[str, Any]]:
    """The network of a file.

    Args:
        path: A one-bit file, or a program: a name that ends in ".stablehlo".

    Returns:
        The compiled function from uint8 images or text to logits, and the metadata.

    Raises:
        RunError: If the file cannot be read, or does not hold such a network.
    """
    path = pathlib.Path(path)
    if path.suffix == ".stablehlo":
        return _load_program(path)
    try:
        loaded = export.load(path)
    except (OSError, ValueError) as error:
        raise errors.RunError(
            f"cannot read {path} as a one-bit file: {error}"
        ) from error
    outputs = jax.jit(deployed.network(loaded.metadata))
    call = functools.partial(outputs, loaded.params, loaded.model_state)
    return call, loaded.metadata


def _load_program(path: pathlib.Path) -> tuple[Callable[[Any], Any], dict[str, Any]]:
    try:
        data = path.read_bytes()
        described = json.loads(path.with_name(path.name + ".json").read_text("utf-8"))
        if hashlib.sha256(data).hexdigest() != described["sha256"]:
            raise ValueError("it does not have the checksum in the .json beside it")
        metadata = described["metadata"]
    except (OSError, ValueError, KeyError) as error:
        raise errors.RunError(f"cannot read {path} as a program: {error}") from error
    try:
        program = jax.export.deserialize(bytearray(data))
    except Exception as error:  # another version of JAX fails in many ways
        raise errors.RunError(
            f"cannot read {path}: it was written by jax {described['jax']}, this is "
            f"jax {jax.__version__} ({error}). Export the network again with this "
            "version, or use that one."
        ) from error
    return jax.jit(program.call), metadata


def evaluate(
    path: str | os.PathLike[str],
    *,
    dataset: str = "",
    split: str = "test",
    data_dir: str = "",
    batch_size: int = 500,
    num_test: int = 0,
) -> dict[str, float]:
    """Loss and accuracy of a file on the test images.

    Args:
        path: As in `load`.
        dataset: Default: the one that the network was trained on.
        split: Of the data set.
        data_dir: As in `data.load`.
        batch_size: Images in a batch.
        num_test: How many images; 0 for all.

    Returns:
        `loss`, `accuracy` and `count`.

    Raises:
        RunError: If the file or the data cannot be read, or do not fit.
    """
    function, metadata = load(path)
    source = data_source.source(dataset or metadata["dataset"], split, data_dir or None)
    image_size = metadata["input"]["image_size"]
    expected = metadata["input"]["shape"]
    found = list(np.shape(source[0]["image"]))
    if image_size is None and found != expected:
        raise errors.RunError(
            f"the network takes inputs of shape {expected}, and those of the data set "
            f"have {found}: give another --dataset."
        )
    logits, labels = deployed.all_logits(
        {"file": function},
        source,
        batch_size=batch_size,
        image_size=image_size,
        most=num_test,
    )
    return {**deployed.score(logits["file"], labels), "count": len(labels)}


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the accuracy."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.predict",
        description="Evaluates a network that experiments.export wrote.",
    )
    parser.add_argument("--model", required=True, help="one-bit file or program")
    parser.add_argument("--dataset", default="", help="default: as in training")
    parser.add_argument("--split", default="test", help="of the data set")
    parser.add_argument("--data_dir", default="", help="of TFDS; or $TFDS_DATA_DIR")
    parser.add_argument(
        "--batch_size", type=command_line.whole(1), default=500, help="images at once"
    )
    parser.add_argument(
        "--num_test",
        type=command_line.whole(),
        default=0,
        help="test images to evaluate; 0 is all",
    )
    arguments = vars(parser.parse_args(argv))
    console = rich.console.Console()
    try:
        found = evaluate(arguments.pop("model"), **arguments)
    except errors.RunError as error:
        console.print(errors.markup(error), soft_wrap=True, highlight=False)
        sys.exit(1)
    console.print(
        f"test accuracy {100 * found['accuracy']:.2f} %  loss {found['loss']:.4f}  "
        f"({found['count']:,} examples)",
        highlight=False,
    )


if __name__ == "__main__":
    main()
