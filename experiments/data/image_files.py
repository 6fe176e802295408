"""Examples from image files, and what was found in the folder of a split."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.data import fingerprint, images


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
            paths: Image files.
            labels: Class of each file.
            root: Folder of the data set. Only the part of a path below it counts for
                the identity.
            name: Name of the data set and the split.
        """
        self._paths = list(paths)
        self.labels = np.asarray(labels, np.int32)
        self._root, self._name = root, name

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Any:
        return {"image": images.read(self._paths[index]), "label": self.labels[index]}

    def take(self, chosen: np.ndarray) -> "ImageFiles":
        """The examples with these numbers."""
        paths = [self._paths[i] for i in chosen]
        return ImageFiles(paths, self.labels[chosen], root=self._root, name=self._name)

    def sizes(self, *, at_most: int | None = None) -> list[tuple[int, int]]:
        """Width and height of the images, without decoding them.

        Args:
            at_most: Number of images to look at, spread evenly. Default: all.

        Raises:
            RunError: If an image cannot be read.
        """
        count = min(at_most or len(self), len(self))
        chosen = np.linspace(0, len(self) - 1, count).astype(int).tolist()
        return [images.size(self._paths[index]) for index in chosen]

    def identity(self) -> dict[str, Any]:
        """Identity of these files; see `fingerprint.of_files`."""
        return fingerprint.of_files(
            self._paths, self.labels, root=self._root, source=self._name
        )


LISTED = 20
"""Number of classes that are listed one by one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The contents of a split of a folder.

    Attributes:
        name: `folder/NAME` and the folder that was read.
        files: The images.
        classes: Names of the classes.
        skipped: For each class, the number of skipped files by reason. Files outside of
            all classes are under "".
    """

    name: str
    files: ImageFiles
    classes: Sequence[str]
    skipped: Mapping[str, collections.Counter[str]]

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of each class."""
        numbers = np.bincount(self.files.labels, minlength=len(self.classes))
        return dict(zip(self.classes, numbers.tolist(), strict=True))

    def __str__(self) -> str:
        """What was read and what was skipped: one line, and one for each class.

        Of more than `LISTED` classes only those are listed of which something was
        skipped, or which have no images.
        """
        counts = self.counts
        least, most = min(counts.values()), max(counts.values())
        each = f"{most}" if least == most else f"{least} to {most}"
        text = f"{self.name}: {len(self.files)} images, {each} of each class"
        text += _and_skipped(sum(self.skipped.values(), start=collections.Counter()))
        few = len(counts) <= LISTED
        told = [
            f"\n  {name}: {number or 'none'}" + _and_skipped(self.skipped.get(name))
            for name, number in counts.items()
            if few or not number or self.skipped.get(name)
        ]
        text += "".join(told[:LISTED])
        more = len(told) - LISTED
        return text + (f"\n  and {more} classes more" if more > 0 else "")


def _and_skipped(reasons: collections.Counter[str] | None) -> str:
    """The end of a line: the number of skipped files by reason."""
    parts = (f"{number} {reason}" for reason, number in sorted((reasons or {}).items()))
    return f"; skipped: {', '.join(parts)}" if reasons else ""
