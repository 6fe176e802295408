"""C sources of a network, compiled and run as any other path from images to logits."""

import functools
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable

import jax
import numpy as np

from experiments import errors

COMPILERS = ("cc", "gcc", "clang")
"""Looked for in this order, where the environment has no `CC`."""


def compiler() -> list[str] | None:
    """The command of the C compiler of this machine; None if there is none."""
    commands = map(shlex.split, filter(None, [os.environ.get("CC"), *COMPILERS]))
    return next((found for found in commands if shutil.which(found[0])), None)


def flash(header: str) -> int:
    """How many bytes the weights and norms of a network take."""
    (found,) = re.findall(r"^#define NETWORK_CONSTANTS (\d+)$", header, re.MULTILINE)
    return int(found)


def network(
    folder: str | os.PathLike[str], command: list[str]
) -> Callable[[jax.Array], np.ndarray]:
    """Compiles the sources in a folder.

    Args:
        folder: Where `export.to_c` wrote them.
        command: The compiler.

    Returns:
        From raw images or text to logits.

    Raises:
        RunError: If they do not compile; later, if the program fails.
    """
    place = tempfile.TemporaryDirectory(prefix="adaste_jax-")
    program = os.path.join(place.name, "network")
    source = os.fspath(pathlib.Path(folder).resolve() / "main.c")
    _output([*command, "-std=c11", "-O2", source, "-o", program], b"")
    return functools.partial(_logits, place, program)


def _logits(
    place: tempfile.TemporaryDirectory[str], program: str, images: jax.Array
) -> np.ndarray:
    """Runs a program on a batch; `place` keeps its folder for as long."""
    batch = np.asarray(images)
    lines = _output([program], batch.tobytes()).splitlines()
    rows = np.array([line.split()[1:] for line in lines]).astype(np.float32)
    return rows.reshape(len(batch), *[-1] * (len(rows) > len(batch)), rows.shape[-1])


def _output(command: list[str], given: bytes) -> str:
    """What a command prints."""
    try:
        found = subprocess.run(command, input=given, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or b""
        reason = "\n".join([str(error), said.decode(errors="replace")[:2000]])
        raise errors.RunError(f"the C sources do not run here: {reason}") from error
    return found.stdout.decode()
