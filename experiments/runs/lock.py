"""The lock of a workdir: one program trains in a folder at a time."""

import datetime
import errno
import fcntl
import os
import pathlib
import platform
import weakref

from experiments import errors

NAME = ".lock"


class Lock:
    """A lock of the operating system, which is released whenever the process ends."""

    def __init__(self, folder: pathlib.Path):
        """Takes the lock of a folder.

        Args:
            folder: Folder of the lock file.

        Raises:
            RunError: If another process has it.
        """
        self._file = folder / NAME
        self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o666)
        self.release = weakref.finalize(self, os.close, self._descriptor)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._descriptor, 1000).decode("utf-8", "replace").strip()
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                self.release()
                raise errors.RunError(
                    f"another program trains in {folder} "
                    f"({holder or 'it has just started'}). "
                    "Wait for it or stop it, or choose another --workdir."
                ) from error
            # Some network file systems have no locks: there the user has to take care.
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        holder = f"process {os.getpid()} on {platform.node()}, since {now}\n"
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, holder.encode(), 0)

    def is_in_place(self) -> bool:
        """Whether the file of that name is still the one that this process holds."""
        try:
            there = os.stat(self._file)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._descriptor))
