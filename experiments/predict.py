"""Loads a network that `experiments.export` wrote, and evaluates it on test images.

    python -m experiments.predict --model=quickstart.safetensors

The model is a one-bit file, or a program with its `.json` beside it. Nothing else of
the run is needed. A one-bit file may come from anywhere: what it says of itself is
checked first, and no data set is downloaded because a file names it. A program is code.
"""

import functools
import hashlib
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from adaste_jax import export
from experiments import command_line, errors
from experiments import console as consoles
from experiments.data import image_folder, sources, tfds
from experiments.deployment import deployed, description, fits
from experiments.runs import small_files

_JSON_LIMIT = 2**22


class Model(NamedTuple):
    """A network that was read.

    Attributes:
        call: Compiled function from uint8 images or text to logits.
        metadata: Metadata of the file; `description.check` has passed them.
        batch_size: Largest number of inputs that go through the network at once.
    """

    call: Callable[[Any], jax.Array]
    metadata: dict[str, Any]
    batch_size: int


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
    return _load(path)[:2]


def _load(path: str | os.PathLike[str]) -> Model:
    path = pathlib.Path(path)
    if path.exists() and not path.is_file():
        raise errors.RunError(f"cannot read {path}: it is no regular file.")
    if path.suffix == ".stablehlo":
        return _load_program(path)
    try:
        params, model_state, metadata, _ = export.load(path)
    except (OSError, ValueError) as error:
        raise errors.RunError(
            f"cannot read {path} as a one-bit file: {error}"
        ) from error
    fits.check(metadata, params, model_state)
    outputs = jax.jit(deployed.network(metadata))
    call = functools.partial(outputs, params, model_state)
    return Model(call, metadata, fits.batch_size(metadata, params, model_state))


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
    return Model(jax.jit(program.call), metadata, sys.maxsize)


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
        path: A one-bit file, or a program: a name that ends in ".stablehlo".
        dataset: Name of a data set. Default: the one that the network was trained on,
            if that needs no download.
        split: Split of the data set.
        data_dir: Folder of the data sets. Default: $TFDS_DATA_DIR.
        batch_size: Images in a batch, at most.
        num_test: Number of images; 0 evaluates all.

    Returns:
        `loss` and `accuracy`; `count`, the number of images they are taken over; and
        `left_out`, the number of images without a class.

    Raises:
        RunError: If the file or the data cannot be read, or do not fit each other.
    """
    deployed.check_count("num_test", num_test, least=0)
    deployed.check_count("batch_size", batch_size, least=1)
    model = _load(path)
    name = dataset or _dataset_here(model.metadata, data_dir)
    description.check_dataset(name)
    _check_classes(model.metadata["architecture"], name, data_dir)
    source = sources.source(name, split, data_dir or None)
    if not len(source):
        raise errors.RunError(f"the split {split!r} of {name} has no examples.")
    inputs = model.metadata["input"]
    expected = list(inputs["shape"])
    _check_shape(np.shape(source[0]["image"]), expected, free=inputs["image_size"])

    def call(images: Any) -> jax.Array:
        _check_shape(images.shape[1:], expected)
        return model.call(images)

    logits, labels = deployed.all_logits(
        {"file": call},
        source,
        batch_size=min(batch_size, model.batch_size),
        image_size=inputs["image_size"],
        most=num_test,
    )
    known = deployed.labelled(labels, logits["file"].shape[-1])
    count = int(known.reshape(len(labels), -1).any(axis=1).sum())
    found = deployed.score(logits["file"], labels)
    return {**found, "count": count, "left_out": len(labels) - count}


def _dataset_here(metadata: Mapping[str, Any], data_dir: str) -> str:
    """The data set that a file names, if it is here."""
    name = metadata.get("dataset")
    if name is None:
        raise errors.RunError("the file names no data set: give --dataset.")
    description.check_dataset(name)
    if name in sources.PACKAGED or name.startswith(image_folder.PREFIX):
        return name
    if not description.is_in_catalog(name):
        raise errors.RunError(
            f"the file names the data set {name!r}, which is not one of TFDS: give "
            "--dataset."
        )
    tfds.prepare(name, data_dir or None, download=False)
    return name


def _check_classes(architecture: Mapping[str, Any], name: str, data_dir: str) -> None:
    """Refuses a data set whose classes are not those of the network.

    Raises:
        RunError: If their number or their names differ.
    """
    there = architecture["num_classes"], architecture.get("class_names")
    here = sources.classes_of(name, data_dir or None)
    if there[0] != here[0]:
        raise errors.RunError(
            f"the network has {there[0]} classes, the data set {name} has {here[0]}: "
            "give another --dataset."
        )
    if there[1] is None or here[1] is None:
        return
    for number, (one, other) in enumerate(zip(there[1], here[1], strict=True)):
        if one != other:
            raise errors.RunError(
                f"class {number} is {one!r} in the network and {other!r} in the data "
                f"set {name}: give another --dataset."
            )


def _check_shape(
    found: Sequence[int], expected: Sequence[int], *, free: Any = False
) -> None:
    """Refuses inputs of another shape; with `free`, height and width may differ.

    Raises:
        RunError: If the shapes differ; the message gives both.
    """
    start = 2 if free and len(expected) == 3 and len(found) == 3 else 0
    if list(found)[start:] != list(expected)[start:]:
        raise errors.RunError(
            f"the network takes inputs of shape {list(expected)}, and those of the "
            f"data set have {list(found)}: give another --dataset."
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the accuracy."""
    parser = command_line.Parser(
        "experiments.predict", "Evaluates a network that experiments.export wrote."
    )
    parser.add_argument("--model", required=True, help="one-bit file or program")
    parser.add_argument(
        "--dataset",
        default="",
        help="default: that of training, if it needs no download",
    )
    parser.add_argument("--split", default="test", help="split of the data set")
    parser.add_argument(
        "--data_dir",
        default="",
        help="folder of the data sets; default: $TFDS_DATA_DIR",
    )
    parser.add_argument(
        "--batch_size", type=command_line.whole(1), default=500, help="images at once"
    )
    parser.add_argument(
        "--num_test",
        type=command_line.whole(),
        default=0,
        help="test images to evaluate; 0 is all",
    )
    console = consoles.program()
    arguments = vars(parser.parse_args(argv))
    with command_line.refusals(console):
        found = evaluate(arguments.pop("model"), **arguments)
    consoles.say(
        console,
        f"test accuracy {100 * found['accuracy']:.2f} %  loss {found['loss']:.4f}  "
        f"({found['count']:,} examples)",
    )
    if found["left_out"]:
        text = f"left out: {found['left_out']:,} examples without a class"
        consoles.say(console, text)


if __name__ == "__main__":
    main()
