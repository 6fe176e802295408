"""A file system that is soon full."""

import contextlib
import shutil
import subprocess

import pytest


@contextlib.contextmanager
def small(path, size):
    """Mounts a file system of that size; skips the test where that is not allowed."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if (
        not shutil.which("mount")
        or subprocess.run(command, capture_output=True).returncode
    ):
        pytest.skip("mounting is not allowed here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def enlarge(path, size):
    """Gives it more space, as freeing some would."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(path)], check=True)
