"""Images in folders, one folder for each class; they are read as they are used.

    NAME/train/CLASS/*.jpg
    NAME/test/CLASS/*.jpg          or val, or validation

or in the form of TinyImageNet (http://cs231n.stanford.edu/tiny-imagenet-200.zip):

    NAME/train/CLASS/images/*.JPEG
    NAME/val/images/*.JPEG
    NAME/val/val_annotations.txt   a line each: file, class, and the box, by tabs

`listing` says what counts as a class and as an image, and `images` how pixels are
converted. Paths and labels stay in memory, some 150 bytes an image. An image is read
and decoded each time it is used, again in every epoch.
"""

import collections
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from experiments import errors
from experiments.data import image_files, listing, places
from experiments.data.image_files import ImageFiles as ImageFiles

USUAL_SIZE = 64
"""Side in pixels to which images are resized if the config gives none."""

_LOOKED_AT = 256
_TEST_FOLDERS = ("test", "val", "validation")
_ANNOTATIONS = "val_annotations.txt"


def classes(name: str, data_dir: str | None = None) -> list[str]:
    """Names of the classes: the folders in `train`, sorted.

    Args:
        name: `"folder/NAME"`.
        data_dir: Folder in which NAME lies. Default: $TFDS_DATA_DIR.

    Raises:
        RunError: If there is no such folder, if it has no classes, or if the names of
            two classes look the same.
    """
    train = places.find(name, data_dir) / "train"
    if not train.is_dir():
        raise errors.RunError(
            f"there is no folder {train}. The data set {name!r} is read from the "
            "folder of that name in config.data_dir (or $TFDS_DATA_DIR), with "
            "train/CLASS/ and test/CLASS/ in it, or as TinyImageNet is unpacked."
        )
    names = listing.folders(train)
    if not names:
        raise errors.RunError(
            f"{train} has no folders: it needs one folder for each class."
        )
    spellings = collections.Counter(map(listing.spelt, names))
    twice = [name for name in names if spellings[listing.spelt(name)] > 1]
    if twice:
        raise errors.RunError(
            f"{train} has two folders whose names look alike, {twice[0]!a} and "
            f"{twice[1]!a}: move their images into one."
        )
    return names


def files(name: str, split: str, data_dir: str | None = None) -> image_files.ImageFiles:
    """The images of a split, ordered by path (for TinyImageNet: by its list).

    Args:
        name: `"folder/NAME"`.
        split: `"train"` or `"test"`. For `"test"` the folder is `test`, `val` or
            `validation`: the first that has classes.
        data_dir: Folder in which NAME lies. Default: $TFDS_DATA_DIR.

    Raises:
        RunError: If the split is missing, has no images or has unknown classes, or if a
            class of `train` has no images.
    """
    return find(name, split, data_dir).files


def find(name: str, split: str, data_dir: str | None = None) -> image_files.Split:
    """The images of a split, and what was skipped.

    Args:
        name: `"folder/NAME"`.
        split: `"train"` or `"test"`; see `files`.
        data_dir: Folder in which NAME lies. Default: $TFDS_DATA_DIR.

    Raises:
        RunError: If the split is missing, has no images or has unknown classes, or if a
            class of `train` has no images.
    """
    names = classes(name, data_dir)
    root = places.find(name, data_dir)
    folders = _TEST_FOLDERS if split == "test" else (split,)
    # The test images of TinyImageNet have no labels: its folder `test` has no classes.
    for folder in (root / part for part in folders):
        if not folder.is_dir():
            continue
        title = f"{name}/{folder.name}"
        if (folder / _ANNOTATIONS).is_file():
            return _annotated(title, folder, names)
        known = set(map(listing.spelt, names))
        if known.intersection(map(listing.spelt, listing.folders(folder))):
            return _in_classes(title, folder, names, strict=split == "train")
    raise errors.RunError(
        f"{root} has no split {split!r}: none of {', '.join(folders)} has folders of "
        f"the classes of train, or a {_ANNOTATIONS}."
    )


def choose_size(name: str, data_dir: str | None = None) -> tuple[int, str]:
    """A value of `config.image_size` that suits the training images.

    Small images that all have one size stay as they are. All others get `USUAL_SIZE`
    pixels, or fewer where half of the images are smaller than that: then the median of
    their shorter sides, rounded down to a multiple of 8.

    Args:
        name: `"folder/NAME"`.
        data_dir: Folder in which NAME lies. Default: $TFDS_DATA_DIR.

    Returns:
        The side of the images, 0 to keep their size; and a sentence that says why.

    Raises:
        RunError: If the folder or an image cannot be read.
    """
    images = files(name, "train", data_dir)
    sizes = images.sizes(at_most=_LOOKED_AT)
    if len(set(sizes)) == 1 and max(sizes[0]) <= USUAL_SIZE:
        sizes = images.sizes()  # one image of another size would end the run later
    least, most = min(sizes), max(sizes)
    if least == most and max(least) <= USUAL_SIZE:
        return 0, f"all images are {least[0]} x {least[1]} pixels, and stay so."
    shorter = int(np.median([min(size) for size in sizes]))
    side = USUAL_SIZE if shorter >= USUAL_SIZE else max(8, shorter // 8 * 8)
    found = f"{least[0]} x {least[1]}"
    if least != most:
        found += f" to {most[0]} x {most[1]}"
    return side, (
        f"images of {found} pixels are made {side} x {side}; "
        "--config.image_size sets another size."
    )


def _in_classes(
    title: str, folder: pathlib.Path, names: Sequence[str], *, strict: bool
) -> image_files.Split:
    """Reads a folder for each class, with images at any depth.

    Args:
        title: Name of the data set and the split.
        folder: Folder of the split.
        names: Classes of `train`.
        strict: Whether each class must have a folder. A folder without images is always
            an error.
    """
    places: dict[str, list[str]] = {listing.spelt(name): [] for name in names}
    unknown: list[str] = []
    for place in listing.folders(folder):
        places.get(listing.spelt(place), unknown).append(place)
    if unknown:
        raise errors.RunError(
            f"{folder} has classes that are not in train: {listing.some(unknown)}."
        )
    beside = listing.images(folder, deep=False)
    skipped = {"": beside.skipped}
    if beside.paths:
        skipped[""]["images in no class"] += len(beside.paths)
    paths: list[str] = []
    labels: list[int] = []
    empty = []
    for number, name in enumerate(names):
        skipped[name] = collections.Counter()
        before = len(paths)
        for place in places[listing.spelt(name)]:
            found = listing.images(folder / place)
            paths += found.paths
            skipped[name] += found.skipped
        labels += [number] * (len(paths) - before)
        if len(paths) == before and (strict or places[listing.spelt(name)]):
            empty.append(name)
    suffixes = ", ".join(listing.SUFFIXES)
    if not paths:
        raise errors.RunError(f"{folder} holds no images ({suffixes}) in its classes.")
    if empty:
        reasons = sorted(skipped[empty[0]].items())
        instead = ", ".join(f"{count} {reason}" for reason, count in reasons)
        raise errors.RunError(
            f"{folder} has classes without images: {listing.some(empty)}. In "
            f"{empty[0]} there are {instead or 'no files'}. Add images ({suffixes}), "
            "or delete the folders."
        )
    files = image_files.ImageFiles(paths, labels, root=str(folder), name=title)
    return image_files.Split(title, files, names, skipped)


def _annotated(
    title: str, folder: pathlib.Path, names: Sequence[str]
) -> image_files.Split:
    """The validation images of TinyImageNet."""
    file = folder / _ANNOTATIONS
    numbers = {listing.spelt(name): number for number, name in enumerate(names)}
    lines: dict[str, int] = {}
    labels = []
    # A byte that is not UTF-8 becomes what Python makes of it in the name of a file.
    text = file.read_text("utf-8-sig", errors="surrogateescape")
    for line_number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"line {line_number} of {file}"
        image, *rest = (field.strip() for field in line.split("\t"))
        if not image or not rest:
            raise errors.RunError(
                f"{where} must be the name of a file, a tab and a class: {line!r}."
            )
        if listing.spelt(rest[0]) not in numbers:
            raise errors.RunError(
                f"{where} has a class that is not in train: {rest[0]}."
            )
        path = os.path.join(folder, "images", image)
        if path in lines:
            raise errors.RunError(
                f"{where} repeats {image} of line {lines[path]}: delete one."
            )
        if "\0" in path or not os.path.isfile(path):
            raise errors.RunError(
                f"{where} names {image}, but there is no file {path}."
            )
        lines[path] = line_number
        labels.append(numbers[listing.spelt(rest[0])])
    if not labels:
        raise errors.RunError(f"{file} names no images.")
    found = listing.images(folder / "images")
    unnamed = len(set(found.paths) - set(lines))
    if unnamed:
        found.skipped[f"images that are not in {_ANNOTATIONS}"] += unnamed
    files = image_files.ImageFiles(list(lines), labels, root=str(folder), name=title)
    return image_files.Split(title, files, names, {"": found.skipped})
