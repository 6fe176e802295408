"""Images in folders, one folder for each class, read as they are used.

    NAME/train/CLASS/*.jpg
    NAME/test/CLASS/*.jpg          or val, or validation

or as TinyImageNet comes (http://cs231n.stanford.edu/tiny-imagenet-200.zip):

    NAME/train/CLASS/images/*.JPEG
    NAME/val/images/*.JPEG
    NAME/val/val_annotations.txt   a line each: file, class, and the box, by tabs

What counts as a class and as an image is said in `listing`, and what becomes of its
pixels in `images`. What stays in memory is the path and the label of every image, some
150 bytes; an image is read and decoded each time it is asked for, in every epoch anew.
"""

import collections
import dataclasses
import os
import pathlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import errors
from experiments.data import fingerprint, images, listing

PREFIX = "folder/"
"""Of the names of these data sets; what follows is a folder of the data folder."""

_TEST_FOLDERS = ("test", "val", "validation")
_ANNOTATIONS = "val_annotations.txt"


class ImageFiles:
    """Examples by number: a PIL image in RGB, and its class.

    Attributes:
        labels: int32 [n].
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: Sequence[int] | np.ndarray,
        *,
        root: str = "",
        name: str = "files",
    ):
        """Reads nothing yet.

        Args:
            paths: Files of images.
            labels: Their classes.
            root: Folder of the data set. Only what follows it in a path counts for
                the identity.
            name: Of the data set and the split.
        """
        self._paths = list(paths)
        self.labels = np.asarray(labels, np.int32)
        self._root, self._name = root, name

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Any:
        return {"image": images.read(self._paths[index]), "label": self.labels[index]}

    def take(self, chosen: np.ndarray) -> "ImageFiles":
        """Some of them, by their numbers."""
        paths = [self._paths[i] for i in chosen]
        return ImageFiles(paths, self.labels[chosen], root=self._root, name=self._name)

    def identity(self) -> dict[str, Any]:
        """What tells these files from others; see `data_identity.of_files`."""
        return fingerprint.of_files(
            self._paths, self.labels, root=self._root, source=self._name
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """What was found in a split of a folder.

    Attributes:
        name: `folder/NAME` and the folder that was read.
        files: The images.
        classes: Names of the classes.
        skipped: What was passed over: by class, how many by reason. What lies in none
            of the classes is under "".
    """

    name: str
    files: ImageFiles
    classes: Sequence[str]
    skipped: Mapping[str, collections.Counter[str]]

    @property
    def counts(self) -> dict[str, int]:
        """Images of each class."""
        numbers = np.bincount(self.files.labels, minlength=len(self.classes))
        return dict(zip(self.classes, numbers.tolist(), strict=True))

    def __str__(self) -> str:
        """One line on what was read and what was passed over."""
        counts = self.counts
        least, most = min(counts.values()), max(counts.values())
        each = f"{most}" if least == most else f"{least} to {most}"
        text = f"{self.name}: {len(self.files)} images, {each} of each class"
        empty = [name for name, number in counts.items() if not number]
        if empty:
            text += f"; none of {_some(empty)}"
        reasons = sum(self.skipped.values(), start=collections.Counter[str]())
        if reasons:
            parts = (f"{number} {reason}" for reason, number in sorted(reasons.items()))
            text += f"; passed over: {', '.join(parts)}"
        return text


def classes(name: str, data_dir: str | None = None) -> list[str]:
    """Names of the classes: the folders in `train`, sorted.

    Args:
        name: `"folder/NAME"`.
        data_dir: Where the folder NAME lies. Default: $TFDS_DATA_DIR.

    Raises:
        RunError: If there is no such folder, or it has no classes, or two with names
            that look alike.
    """
    train = _root(name, data_dir) / "train"
    if not train.is_dir():
        raise errors.RunError(
            f"there is no folder {train}. The data set {name!r} is read from the "
            "folder of that name in config.data_dir (or $TFDS_DATA_DIR), with "
            "train/CLASS/ and test/CLASS/ in it, or as TinyImageNet is unpacked."
        )
    names = listing.folders(train)
    if not names:
        raise errors.RunError(f"{train} has no folders, which would be the classes.")
    spellings = collections.Counter(map(_spelt, names))
    twice = [name for name in names if spellings[_spelt(name)] > 1]
    if twice:
        raise errors.RunError(
            f"{train} has two folders whose names look alike, {twice[0]!a} and "
            f"{twice[1]!a}: move their images into one."
        )
    return names


def files(name: str, split: str, data_dir: str | None = None) -> ImageFiles:
    """The images of a split, in the order of their paths (TinyImageNet's: of its list).

    Args:
        name: As in `classes`.
        split: `"train"` or `"test"`: the folder of that name, else `val` or
            `validation`.
        data_dir: As in `classes`.

    Raises:
        RunError: If the split is not there, or has no images or unknown classes, or if
            a class of `train` has no images.
    """
    return find(name, split, data_dir).files


def find(name: str, split: str, data_dir: str | None = None) -> Split:
    """The images of a split, and what was passed over; arguments as in `files`."""
    names = classes(name, data_dir)
    root = _root(name, data_dir)
    candidates = [root / part for part in _TEST_FOLDERS if split == "test"]
    candidates += [root / split]
    # The test images of TinyImageNet have no labels: its folder `test` has no classes.
    for folder in candidates:
        if not folder.is_dir():
            continue
        title = f"{name}/{folder.name}"
        if (folder / _ANNOTATIONS).is_file():
            return _annotated(title, folder, names)
        known = set(map(_spelt, names))
        if known.intersection(map(_spelt, listing.folders(folder))):
            return _in_classes(title, folder, names, strict=split == "train")
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
    below = pathlib.PurePath(name.removeprefix(PREFIX))
    if below.is_absolute() or ".." in below.parts or not below.parts:
        raise errors.RunError(
            f"{name!r} must name a folder within the data folder {folder}: give "
            f'"{PREFIX}NAME", and the folder that holds NAME as config.data_dir.'
        )
    return pathlib.Path(os.path.expanduser(folder)) / below


def _spelt(name: str) -> str:
    """One spelling of a name: systems write the same letters in several ways."""
    return unicodedata.normalize("NFC", name)


def _some(names: Sequence[str]) -> str:
    """At most five of them."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _in_classes(
    title: str, folder: pathlib.Path, names: Sequence[str], *, strict: bool
) -> Split:
    """A folder for each class, however deep the images lie in it.

    Args:
        title: Name of the data set and the split.
        folder: The split.
        names: Classes of `train`.
        strict: Whether each of them must be there. A folder without images is an
            error in any case.
    """
    numbers = {_spelt(name): number for number, name in enumerate(names)}
    places: dict[int, list[str]] = {number: [] for number in numbers.values()}
    unknown = []
    for place in listing.folders(folder):
        if _spelt(place) in numbers:
            places[numbers[_spelt(place)]].append(place)
        else:
            unknown.append(place)
    if unknown:
        raise errors.RunError(
            f"{folder} has classes that train has not: {_some(unknown)}."
        )
    paths: list[str] = []
    labels: list[int] = []
    skipped = {"": collections.Counter[str]()}
    beside = listing.images(folder, deep=False)
    skipped[""] = beside.skipped
    if beside.paths:
        skipped[""]["images in no class"] += len(beside.paths)
    for number, name in enumerate(names):
        skipped[name] = collections.Counter()
        for place in places[number]:
            found = listing.images(folder / place)
            paths += found.paths
            labels += [number] * len(found.paths)
            skipped[name] += found.skipped
    if not paths:
        raise errors.RunError(
            f"{folder} holds no images ({', '.join(listing.SUFFIXES)}) in its classes."
        )
    empty = [
        number
        for number in sorted(set(range(len(names))) - set(labels))
        if strict or places[number]
    ]
    if empty:
        first = names[empty[0]]
        instead = ", ".join(
            f"{number} {reason}" for reason, number in sorted(skipped[first].items())
        )
        raise errors.RunError(
            f"{folder} has classes without images: "
            f"{_some([names[number] for number in empty])}. In {first} there are "
            f"{instead or 'no files'}. Add images ({', '.join(listing.SUFFIXES)}), or "
            "delete the folders."
        )
    images_of = ImageFiles(paths, labels, root=str(folder), name=title)
    return Split(title, images_of, names, skipped)


def _annotated(title: str, folder: pathlib.Path, names: Sequence[str]) -> Split:
    """The validation images of TinyImageNet."""
    file = folder / _ANNOTATIONS
    numbers = {_spelt(name): number for number, name in enumerate(names)}
    lines: dict[str, int] = {}
    labels = []
    # A byte that is no UTF-8 becomes what it would be in the name of a file.
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
        if _spelt(rest[0]) not in numbers:
            raise errors.RunError(f"{where} has a class that train has not: {rest[0]}.")
        path = os.path.join(folder, "images", image)
        if path in lines:
            raise errors.RunError(
                f"{where} names {image} again, after line {lines[path]}: delete one."
            )
        if "\0" in path or not os.path.isfile(path):
            raise errors.RunError(
                f"{where} names {image}, but there is no file {path}."
            )
        lines[path] = line_number
        labels.append(numbers[_spelt(rest[0])])
    if not labels:
        raise errors.RunError(f"{file} names no images.")
    found = listing.images(folder / "images")
    unnamed = len(set(found.paths) - set(lines))
    if unnamed:
        found.skipped[f"images that are not in {_ANNOTATIONS}"] += unnamed
    images_of = ImageFiles(list(lines), labels, root=str(folder), name=title)
    return Split(title, images_of, names, {"": found.skipped})
