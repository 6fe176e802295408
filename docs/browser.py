"""The files of the demo that are not in the repository: its engine and test digits.

`make docs` adds them to the site. The engine, onnxruntime-web, has 14 MB: npm fetches
it once, at a pinned version, into the virtual environment.
"""

import base64
import hashlib
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

from adaste_jax import datasets

VERSION = "1.30.0"
INTEGRITY = (
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfK"
    "YQ=="
)
"""SHA-512 of the package, as npm lists it."""

FOLDER = pathlib.Path(sys.prefix) / f"onnxruntime-web-{VERSION}"
ENGINE = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)


def engine() -> dict[str, bytes]:
    """The files of onnxruntime-web by name; none if they were not fetched."""
    paths = [FOLDER / name for name in ENGINE]
    if not all(path.exists() for path in paths):
        return {}
    return {path.name: path.read_bytes() for path in paths}


def digits() -> bytes:
    """The test digits: 64 pixels each, 0 to 16, one after another, and their labels."""
    images, labels = datasets.digits()["test"]
    return images.astype("uint8").tobytes() + labels.astype("uint8").tobytes()


def files() -> dict[str, bytes]:
    """What is added to the folder of the demo, by path."""
    return {
        "digits.bin": digits(),
        **{f"ort/{name}": data for name, data in engine().items()},
    }


def fetch() -> str:
    """Fetches the engine if it is not there; what went wrong, or "".

    Raises:
        ValueError: If the package is not the one that is pinned.
    """
    if engine():
        return ""
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed"
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", f"onnxruntime-web@{VERSION}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        packages = list(pathlib.Path(folder).glob("*.tgz"))
        if done.returncode or not packages:
            return f"npm failed: {done.stderr.strip()[-300:]}"
        digest = hashlib.sha512(packages[0].read_bytes()).digest()
        if base64.b64encode(digest).decode() != INTEGRITY:
            raise ValueError(
                f"the package onnxruntime-web {VERSION} that npm gave is not the one "
                "whose SHA-512 stands in docs/browser.py."
            )
        with tarfile.open(packages[0]) as package:
            for name in ENGINE:
                source = package.extractfile(f"package/dist/{name}")
                target = pathlib.Path(folder) / name
                target.write_bytes(source.read())
        FOLDER.mkdir(exist_ok=True)
        for name in ENGINE:
            shutil.move(pathlib.Path(folder) / name, FOLDER / name)
    return ""
