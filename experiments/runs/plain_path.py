"""A path to a folder that every library accepts.

Orbax finds its files by patterns, in which `[lr]` is a choice of letters, so it cannot
read again what it saves below such a folder. TensorStore accepts only UTF-8 names. Such
a folder gets a link with a plain name while it is used.
"""

import glob
import pathlib
import tempfile
from collections.abc import Callable


def of(folder: pathlib.Path) -> tuple[pathlib.Path, Callable[[], None]]:
    """A path without special letters, and a function that removes it again.

    Args:
        folder: The folder, which need not exist.

    Returns:
        The folder itself if its path is plain; otherwise a link to it in a temporary
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
