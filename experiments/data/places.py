"""Data of one's own: where the names `folder/NAME` and `text/NAME` lie on the disk."""

import os
import pathlib

from experiments import errors, fields

IMAGES = "folder/"
"""Prefix of a folder of images; see `image_folder`."""

TEXT = "text/"
"""Prefix of a folder or a file of text; see `text_files`."""


def is_own(name: str) -> bool:
    """Whether a data set has one of these prefixes."""
    return name.startswith((IMAGES, TEXT))


def data_folder(data_dir: str | None = None) -> pathlib.Path | None:
    """The folder of data sets; None if neither argument nor environment give it."""
    folder = data_dir or os.environ.get("TFDS_DATA_DIR")
    return pathlib.Path(folder).expanduser() if folder else None


def find(name: str, data_dir: str | None = None) -> pathlib.Path:
    """The path of a data set, which need not exist.

    Args:
        name: A prefix, and a path below the data folder.
        data_dir: The data folder. Default: $TFDS_DATA_DIR.

    Raises:
        RunError: If there is no data folder, or the path leads out of it.
    """
    below, folder = _below(name), data_folder(data_dir)
    if folder is None:
        raise errors.RunError(
            f"the data set {name!r} is a folder: say where it lies with "
            "config.data_dir or $TFDS_DATA_DIR."
        )
    return folder / below


def check(name: str, data_dir: str | None = None) -> None:
    """Checks the name of a data set, and whether it is there, if that is known.

    Args:
        name: A prefix, and a path below the data folder.
        data_dir: The data folder. Default: $TFDS_DATA_DIR.

    Raises:
        RunError: If the path leads out of the data folder, or something of almost this
            name is there instead.
    """
    below, folder = _below(name), data_folder(data_dir)
    if folder and folder.is_dir() and not (folder / below).exists():
        with os.scandir(folder) as entries:
            there = [
                entry.name
                for entry in entries
                if entry.is_dir() or name.startswith(TEXT)
            ]
        if meant := fields.guess(str(below), there):
            raise errors.RunError(f"there is no folder {folder / below}{meant}.")


def _below(name: str) -> pathlib.PurePath:
    """The path of a data set below the data folder."""
    prefix = TEXT if name.startswith(TEXT) else IMAGES
    below = pathlib.PurePath(name.removeprefix(prefix))
    bad = below.is_absolute() or ".." in below.parts or not below.parts
    if bad or "\0" in name:
        raise errors.RunError(
            f"config.dataset {name!r} must name a folder within the data folder: give "
            f'"{prefix}NAME", and the folder that holds NAME as config.data_dir.'
        )
    return below
