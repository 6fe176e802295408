"""Images in folders, one folder for each class, read as they are used.

    NAME/train/CLASS/*.jpg
    NAME/test/CLASS/*.jpg          or val, or validation

or as TinyImageNet comes (http://cs231n.stanford.edu/tiny-imagenet-200.zip):

    NAME/train/CLASS/images/*.JPEG
    NAME/val/images/*.JPEG
    NAME/val/val_annotations.txt   a line each: file, class, and the box, by tabs

What stays in memory is the path and the label of every image, some 150 bytes; an image
is read and decoded each time it is asked for, in every epoch anew.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from experiments import errors

PREFIX = "folder/"
"""Of the names of these data sets; what follows is a folder of the data folder."""

_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_TEST_FOLDERS = ("test", "val", "validation")
_ANNOTATIONS = "val_annotations.txt"


class ImageFiles:
    """Examples by number: a PIL image in RGB, and its class.

    Attributes:
        labels: int32 [n].
    """

    def __init__(self, paths: Sequence[str], labels: Sequence[int] | np.ndarray):
        """Reads nothing yet.

        Args:
            paths: Files of images.
            labels: Their classes.
        """
        self._paths = list(paths)
        self.labels = np.asarray(labels, np.int32)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Any:
        path = self._paths[index]
        try:
            with Image.open(path) as image:
                return {"image": image.convert("RGB"), "label": self.labels[index]}
        except OSError as error:
            raise errors.RunError(f"cannot read the image {path}: {error}") from error

    def take(self, chosen: np.ndarray) -> "ImageFiles":
        """Some of them, by their numbers."""
        return ImageFiles([self._paths[i] for i in chosen], self.labels[chosen])


def classes(name: str, data_dir: str | None = None) -> list[str]:
    """Names of the classes: the folders in `train`, sorted.

    Args:
        name: `"folder/NAME"`.
        data_dir: Where the folder NAME lies. Default: $TFDS_DATA_DIR.

    Raises:
        RunError: If there is no such folder, or it has no classes.
    """
    train = _root(name, data_dir) / "train"
    if not train.is_dir():
        raise errors.RunError(
            f"there is no folder {train}. The data set {name!r} is read from the "
            "folder of that name in config.data_dir (or $TFDS_DATA_DIR), with "
            "train/CLASS/ and test/CLASS/ in it, or as TinyImageNet is unpacked."
        )
    names = sorted(entry.name for entry in os.scandir(train) if entry.is_dir())
    if not names:
        raise errors.RunError(f"{train} has no folders, which would be the classes.")
    return names


def files(name: str, split: str, data_dir: str | None = None) -> ImageFiles:
    """The images of a split, in the order of their paths (TinyImageNet's: of its list).

    Args:
        name: As in `classes`.
        split: `"train"` or `"test"`: the folder of that name, else `val` or
            `validation`.
        data_dir: As in `classes`.

    Raises:
        RunError: If the split is not there, or has no images or unknown classes.
    """
    numbers = {name: number for number, name in enumerate(classes(name, data_dir))}
    root = _root(name, data_dir)
    candidates = [root / part for part in _TEST_FOLDERS if split == "test"]
    candidates += [root / split]
    # The test images of TinyImageNet have no labels: its folder `test` has no classes.
    for folder in candidates:
        if (folder / _ANNOTATIONS).is_file():
            return _annotated(folder, numbers)
        if any((folder / known).is_dir() for known in numbers):
            return _in_classes(folder, numbers)
    raise errors.RunError(
        f"{root} has no split {split!r}: none of "
        f"{', '.join(folder.name for folder in candidates)} has folders of the classes "
        f"of train, or a {_ANNOTATIONS}."
    )


def _root(name: str, data_dir: str | None) -> pathlib.Path:
    folder = data_dir or os.environ.get("TFDS_DATA_DIR")
    if not folder:
        raise errors.RunError(
            f"the data set {name!r} is a folder: say where it lies in config.data_dir, "
            "or in $TFDS_DATA_DIR."
        )
    return pathlib.Path(folder).expanduser() / name.removeprefix(PREFIX)


def _in_classes(folder: pathlib.Path, numbers: Mapping[str, int]) -> ImageFiles:
    """A folder for each class, however deep the images lie in it."""
    unknown = sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and entry.name not in numbers
    )
    if unknown:
        raise errors.RunError(
            f"{folder} has classes that train has not: {', '.join(unknown[:5])}."
        )
    paths, labels = [], []
    for name, number in numbers.items():
        found = sorted(
            os.path.join(place, file)
            for place, _, names in os.walk(folder / name)
            for file in names
            if file.lower().endswith(_SUFFIXES)
        )
        paths += found
        labels += [number] * len(found)
    if not paths:
        raise errors.RunError(
            f"{folder} holds no images ({', '.join(_SUFFIXES)}) in its classes."
        )
    return ImageFiles(paths, labels)


def _annotated(folder: pathlib.Path, numbers: Mapping[str, int]) -> ImageFiles:
    """The validation images of TinyImageNet."""
    paths, labels = [], []
    for line in (folder / _ANNOTATIONS).read_text("utf-8").splitlines():
        file, label = line.split("\t")[:2]
        if label not in numbers:
            raise errors.RunError(
                f"{folder / _ANNOTATIONS} has a class that train has not: {label}."
            )
        paths.append(os.path.join(folder, "images", file))
        labels.append(numbers[label])
    return ImageFiles(paths, labels)
