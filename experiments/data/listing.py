"""Lists folders of data: what counts as a class, and what as an image or a text.

Hidden names and files that systems leave behind (`__MACOSX`) are skipped. Links are
followed, but no folder is entered twice. Only regular files count: a FIFO, a socket or
a device is never opened. Skipped entries are counted by reason.
"""

import collections
import os
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from experiments import errors

SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"),
    *(".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
"""Endings of image files, in lower case."""

_JUNK = {
    *("__macosx", "__pycache__", "@eadir", "$recycle.bin", "lost+found"),
    *("system volume information", "thumbs.db", "desktop.ini"),
}
HIDDEN = "hidden"
LEADS_BACK = "links to a folder that was read already"
NOT_REGULAR = "not regular files"


class Found(NamedTuple):
    """The contents of a folder.

    Attributes:
        paths: Paths of the files, sorted.
        skipped: Number of skipped entries by reason; a suffix is a reason.
    """

    paths: list[str]
    skipped: collections.Counter[str]


def spelt(name: str) -> str:
    """A normalised spelling, since systems encode the same letters in several ways."""
    return unicodedata.normalize("NFC", name)


def some(names: Sequence[str]) -> str:
    """At most five of the names, in one line."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is skipped."""
    return name.startswith(".") or name.lower() in _JUNK


def folders(path: str | os.PathLike[str]) -> list[str]:
    """Sorted names of the folders in a folder, including links to folders.

    Raises:
        RunError: If the folder cannot be read, or a link in it is broken.
    """
    return sorted(entry.name for entry in _entries(path) if _kind(entry) == "folder")


def images(path: str | os.PathLike[str], *, deep: bool = True) -> Found:
    """The images in a folder; see `files`."""
    return files(path, SUFFIXES, deep=deep)


def files(
    path: str | os.PathLike[str], suffixes: tuple[str, ...], *, deep: bool = True
) -> Found:
    """The files in a folder whose names have one of these endings.

    Args:
        path: The folder.
        suffixes: The endings, in lower case.
        deep: Whether to search the folders in it too, at any depth.

    Raises:
        RunError: If something cannot be read, or a link is broken.
    """
    found = Found([], collections.Counter())
    start = os.fspath(path)
    seen: set[str] = set()
    places, links = [start], list[str]()
    while places or links:
        # Links last: a folder is found under its own name where it has one.
        place = places.pop() if places else links.pop(0)
        real = os.path.realpath(place)
        if real in seen or _holds(real, start) or _holds(real, os.path.dirname(place)):
            found.skipped[LEADS_BACK] += 1
            continue
        seen.add(real)
        for entry in _entries(place, found.skipped):
            kind = _kind(entry)
            if kind == "folder":
                if deep:
                    (links if entry.is_symlink() else places).append(entry.path)
            elif kind == "other":
                found.skipped[NOT_REGULAR] += 1
            elif entry.name.lower().endswith(suffixes):
                found.paths.append(entry.path)
            else:
                suffix = os.path.splitext(entry.name)[1].lower()
                found.skipped[suffix or "without a suffix"] += 1
        links.sort()
    found.paths.sort()
    return found


def _holds(real: str, place: str) -> bool:
    """Whether a folder, by its real path, is one of those that `place` lies in."""
    return os.path.realpath(place).startswith(os.path.join(real, ""))


def _entries(
    path: str | os.PathLike[str], skipped: collections.Counter[str] | None = None
) -> list[os.DirEntry[str]]:
    """The entries of a folder that are not hidden."""
    try:
        with os.scandir(path) as entries:
            everything = list(entries)
    except OSError as error:
        raise errors.RunError(f"cannot read the folder {path}: {error}") from error
    shown = [entry for entry in everything if not hidden(entry.name)]
    if skipped is not None and len(shown) < len(everything):
        skipped[HIDDEN] += len(everything) - len(shown)
    return shown


def _kind(entry: os.DirEntry[str]) -> str:
    """One of "folder", "file", "other".

    Raises:
        RunError: If it is a broken link or a link to itself. Without the error its
            images would be missing silently.
    """
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        if entry.is_symlink():
            os.stat(entry.path)  # raises for a link that leads nowhere
        return "other"
    except OSError as error:
        raise errors.RunError(
            f"cannot follow {entry.path} ({error.strerror}): repair the link, or "
            "delete it."
        ) from error
