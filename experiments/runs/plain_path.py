"""A path to a folder that every library takes.

Orbax looks for its files by patterns, in which `[lr]` is a choice of letters: what it
saves below such a folder cannot be read again. TensorStore takes no names that are not
UTF-8. Such a folder gets a link with a plain name, for as long as it is used.
"""

import glob
import pathlib
import tempfile
from collections.abc import Callable


def of(folder: pathlib.Path) -> tuple[pathlib.Path, Callable[[], None]]:
    """A path without special letters, and what removes it again.

    Args:
        folder: Need not exist.

    Returns:
        The folder itself where its path is plain; else a link to it in a temporary
        folder.

    Raises:
        OSError: If the link cannot be made.
    """
    if _is_plain(folder):
        return folder, lambda: None
    place = tempfile.TemporaryDirectory(
        prefix="plain-path-", ignore_cleanup_errors=True
    )
    link = pathlib.Path(place.name) / "folder"
    link.symlink_to(folder.absolute(), target_is_directory=True)
    return link, place.cleanup


def _is_plain(path: pathlib.Path) -> bool:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return not glob.has_magic(str(path))
