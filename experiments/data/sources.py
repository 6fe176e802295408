"""Random access to the examples of any data set, by its name."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypedDict

import numpy as np

from adaste_jax import datasets
from experiments import errors
from experiments.data import image_folder, places, text, text_files, tfds, tokens
from experiments.runs import processes


class Example(TypedDict):
    """An image and its class; or a piece of text and the token after each token."""

    image: Any  # uint8 [height, width, channels], PIL image, encoded; or text [length]
    label: Any  # integer; or integers [length]


class Source(Protocol):
    """Examples by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


class Packaged(NamedTuple):
    """A data set that needs no download.

    Attributes:
        read: Returns its splits, "train" and "test": inputs and labels.
        num_classes: Labels are in 0 ... num_classes - 1.
        max_value: The largest possible value of a pixel; None for text.
        class_names: Names of the labels, in order; None for text.
    """

    read: Callable[[], dict[str, tuple[np.ndarray, np.ndarray]]]
    num_classes: int
    max_value: int | None
    class_names: tuple[str, ...] | None


PACKAGED = {
    "digits": Packaged(datasets.digits, 10, 16, tuple(map(str, range(10)))),
    "pydoc_topics": Packaged(text.pydoc_topics, text.VALUES, None, None),
}


def source(
    name: str,
    split: str,
    data_dir: str | None = None,
    *,
    length: int = text.LENGTH,
    vocabulary: tokens.Vocabulary = tokens.BYTES,
) -> Source:
    """Random access to a split of a data set that need not fit into memory.

    Args:
        name: A name of `PACKAGED`, a name of TensorFlow Datasets, `"folder/NAME"`
            for a folder of images, or `"text/NAME"` for text.
        split: `"train"`, `"test"`, or a slice as TFDS writes it: `"train[:200]"`.
            Packaged data sets, folders and text have whole splits only.
        data_dir: Folder of the data sets. Default: $TFDS_DATA_DIR.
        length: Tokens in an example of `"text/NAME"`.
        vocabulary: Tokens of `"text/NAME"`.

    Returns:
        A sequence of examples.

    Raises:
        RunError: If there is no such data set or split, or it cannot be read.

    Example:
        >>> images = source("digits", "test")
        >>> len(images), images[0]["image"].shape
        (360, (8, 8, 1))
    """
    if name in PACKAGED:
        splits = PACKAGED[name].read()
        if split not in splits:
            raise _no_split(name, split, splits)
        pairs = zip(*splits[split], strict=True)
        return [{"image": image, "label": label} for image, label in pairs]
    if name.startswith(places.TEXT):
        return text_files.find(
            name, split, data_dir, length=length, vocabulary=vocabulary
        )
    if name.startswith(places.IMAGES):
        found = image_folder.find(name, split, data_dir)
        processes.say(str(found))
        return found.files
    opened = tfds.prepare(name, data_dir)
    try:
        return tfds.Records(opened, split)
    except ValueError as error:
        raise _no_split(name, split, opened.info.splits) from error


def is_text(name: str) -> bool:
    """Whether a data set is text, by its name."""
    if name in PACKAGED:
        return PACKAGED[name].max_value is None
    return name.startswith(places.TEXT)


def classes_of(
    name: str,
    data_dir: str | None = None,
    vocabulary: tokens.Vocabulary = tokens.BYTES,
) -> tuple[int, tuple[str, ...] | None]:
    """Number and names of the classes of a data set; text has no names.

    Args:
        name: Name of the data set, in any form that `source` takes.
        data_dir: Folder of the data sets. Default: $TFDS_DATA_DIR.
        vocabulary: Tokens of `"text/NAME"`.

    Raises:
        RunError: If the data set cannot be read.
    """
    if name in PACKAGED:
        return PACKAGED[name].num_classes, PACKAGED[name].class_names
    if name.startswith(places.TEXT):
        return vocabulary.size, None
    if name.startswith(places.IMAGES):
        names = tuple(image_folder.classes(name, data_dir))
    else:
        names = tfds.class_names(tfds.prepare(name, data_dir))
    return len(names), names


def _no_split(name: str, split: str, known: Any) -> errors.RunError:
    return errors.RunError(f"{name} has no split {split!r}; it has {', '.join(known)}.")
