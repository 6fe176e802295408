"""Examples from image files, and what was found in the folder of a split."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.data import fingerprint, images, listing


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

    def identity(self) -> dict[str, Any]:
        """Identity of these files; see `fingerprint.of_files`."""
        return fingerprint.of_files(
            self._paths, self.labels, root=self._root, source=self._name
        )


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
        """One line about what was read and what was skipped."""
        counts = self.counts
        least, most = min(counts.values()), max(counts.values())
        each = f"{most}" if least == most else f"{least} to {most}"
        text = f"{self.name}: {len(self.files)} images, {each} of each class"
        empty = [name for name, number in counts.items() if not number]
        if empty:
            text += f"; none of {listing.some(empty)}"
        reasons = sum(self.skipped.values(), start=collections.Counter[str]())
        if reasons:
            parts = (f"{number} {reason}" for reason, number in sorted(reasons.items()))
            text += f"; skipped: {', '.join(parts)}"
        return text
