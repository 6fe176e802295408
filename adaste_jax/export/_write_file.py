"""Files that are there and whole, or not there."""

import os
import pathlib
import secrets
import stat


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file that is either there and complete, or as it was before.

    The data go to another name in the same folder, reach the disk, and are renamed. A
    new file has the mode that the umask gives; an existing one keeps its mode. Where
    `path` is a link, the link stays and the file it leads to is replaced.

    Args:
        path: The file.
        data: What it is to hold.

    Raises:
        OSError: If the file cannot be written. Nothing half-written stays.
    """
    target = pathlib.Path(os.path.realpath(path))
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    token = secrets.token_hex(4)
    # A name may have 255 bytes, so a long one cannot get anything added.
    name = target.name if len(os.fsencode(target.name)) <= 200 else "long-name"
    partial = target.with_name(f".{name}.{token}.partial")
    try:
        with open(partial, "xb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # else the new name may be lost with the power
    finally:
        os.close(folder)
