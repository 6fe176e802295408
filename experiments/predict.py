"""Loads a network that `experiments.export` wrote, and evaluates it.

    python -m experiments.predict --model=quickstart.safetensors
    python -m experiments.predict --model=cifar10.safetensors --images a.png b.jpg

The first takes the test images of a data set, the second images of one's own, and
prints the likeliest classes of each. The model is a one-bit file, or a program with its
`.json` beside it. Nothing else of the run is needed. A one-bit file may come from
anywhere: what it says of itself is checked first, and no data set is downloaded because
a file names it. A program is code.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import rich.console

from experiments import command_line, errors
from experiments import console as consoles
from experiments.data import places, sources, tfds
from experiments.deployment import deployed, description, networks, single_images


class Answer(NamedTuple):
    """What a network says of an image.

    Attributes:
        image: Its path.
        classes: Names of classes and their scores, which are softmax probabilities;
            the likeliest first. Empty where there is an error.
        form: Whether weights were "packed" while the network ran, or "unpacked".
        error: Why the image has no answer.
    """

    image: str
    classes: list[tuple[str, float]]
    form: str
    error: str | None = None


def load(path: str | os.PathLike[str]) -> tuple[Callable[..., jax.Array], dict]:
    """The network of a file.

    Args:
        path: A one-bit file, or a program: a name that ends in ".stablehlo".

    Returns:
        The compiled function from uint8 images or text to logits, and the metadata.

    Raises:
        RunError: If the file cannot be read, or does not hold such a network.
    """
    return networks.load(path)[:2]


def evaluate(
    path: str | os.PathLike[str],
    *,
    dataset: str = "",
    split: str = "test",
    data_dir: str = "",
    batch_size: int = 500,
    num_test: int = 0,
) -> dict[str, Any]:
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
        `loss` and `accuracy`; `count`, the number of images they are taken over;
        `left_out`, the number of images without a class; and `form`, whether weights
        were "packed" or "unpacked" while the network ran.

    Raises:
        RunError: If the file or the data cannot be read, or do not fit each other.
    """
    deployed.check_count("num_test", num_test, least=0)
    deployed.check_count("batch_size", batch_size, least=1)
    model = networks.load(path)
    name = dataset or _dataset_here(model.metadata, data_dir)
    description.check_dataset(name)
    vocabulary = networks.vocabulary(path, model.metadata)
    place: Any = {"data_dir": data_dir or None, "vocabulary": vocabulary}
    here = sources.classes_of(name, **place)
    _check_classes(model.metadata["architecture"], name, here)
    inputs = model.metadata["input"]
    expected = list(inputs["shape"])
    source = sources.source(name, split, length=expected[0], **place)
    if not len(source):
        raise errors.RunError(f"the split {split!r} of {name} has no examples.")
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
    left_out = len(labels) - count
    return {**found, "count": count, "left_out": left_out, "form": model.form}


def classify(
    path: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    *,
    top: int = 5,
) -> Iterator[Answer]:
    """The likeliest classes of single images.

    Each is read as those of folders are: turned as its EXIF data say, in grey for
    networks of one channel, cropped and resized as in evaluation.

    Args:
        path: A one-bit file, whose weights stay packed; or a program.
        images: Image files, and folders with images.
        top: How many classes, at most.

    Yields:
        An answer for each image: classes and scores, or why there are none.

    Raises:
        RunError: If the network cannot be read, or does not take images.
    """
    deployed.check_count("top", top, least=1)
    model = networks.load(path, packed=True)
    single_images.check(model.metadata["input"])
    names = model.metadata["architecture"].get("class_names")
    for file in images:
        try:
            found = single_images.paths(file)
        except errors.RunError as error:
            yield Answer(os.fspath(file), [], model.form, str(error))
            continue
        for image in found:
            try:
                pixels = single_images.read(image, model.metadata["input"])
                scores = deployed.probabilities(model.call(pixels[None]))[0]
            except errors.RunError as error:
                yield Answer(image, [], model.form, str(error))
                continue
            best = np.argsort(-scores, kind="stable")[:top]
            classes = [(_name(names, k), float(scores[k])) for k in best]
            yield Answer(image, classes, model.form)


def _name(names: Sequence[str] | None, number: int) -> str:
    """The name of a class; what could steer a terminal is shown as escapes."""
    name = f"class {number}" if names is None else names[number]
    return name if name.isprintable() else ascii(name)


def _dataset_here(metadata: Mapping[str, Any], data_dir: str) -> str:
    """The data set that a file names, if it is here."""
    name = metadata.get("dataset")
    if name is None:
        raise errors.RunError("the file names no data set: give --dataset.")
    description.check_dataset(name)
    if name in sources.PACKAGED or places.is_own(name):
        return name
    if not description.is_in_catalog(name):
        raise errors.RunError(
            f"the file names the data set {name!r}, which is not one of TFDS: give "
            "--dataset."
        )
    tfds.prepare(name, data_dir or None, download=False)
    return name


def _check_classes(architecture: Mapping[str, Any], name: str, here: Any) -> None:
    """Refuses a data set whose classes, `here`, are not those of the network.

    Raises:
        RunError: If their number or their names differ.
    """
    there = architecture["num_classes"], architecture.get("class_names")
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
    """Prints the accuracy, or the classes of single images."""
    parser = command_line.Parser(
        "experiments.predict", "Evaluates a network that experiments.export wrote."
    )
    parser.add_argument("--model", required=True, help="one-bit file or program")
    parser.add_argument(
        "--images", nargs="+", help="image files, or folders of them, to classify"
    )
    parser.add_argument(
        "--top", type=command_line.whole(1), default=5, help="classes for each image"
    )
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
    given = parser.parse_args(argv)
    if given.images:
        of_data = ("dataset", "split", "data_dir", "batch_size", "num_test")
        parser.refuse(given, of_data, beside="--images")
    else:
        parser.refuse(given, ["top"], beside="a data set, only with --images")
    arguments = vars(given)
    model, images, top = (arguments.pop(name) for name in ("model", "images", "top"))
    with command_line.refusals(console):
        if images:
            _show(classify(model, images, top=top), console)
            return
        found = evaluate(model, **arguments)
    consoles.say(
        console,
        f"test accuracy {100 * found['accuracy']:.2f} %  loss {found['loss']:.4f}  "
        f"({found['count']:,} examples, weights {found['form']})",
    )
    if left_out := found["left_out"]:
        consoles.say(console, f"left out: {left_out:,} examples without a class")


def _show(answers: Iterator[Answer], console: rich.console.Console) -> None:
    """Prints an image a line, as they come; ends with status 1 where one failed."""
    failed, form = False, ""
    for answer in answers:
        if answer.error is not None:
            failed = True
            consoles.say_error(console, answer.error)
            continue
        form = answer.form
        scores = [f"{name} {100 * score:.1f} %" for name, score in answer.classes]
        consoles.say(console, f"{answer.image}: {', '.join(scores)}")
    if form:
        consoles.say(console, f"(weights {form})")
    if failed:
        sys.exit(errors.FAILED)


if __name__ == "__main__":
    main()
