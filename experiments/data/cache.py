"""Caches decoded images on disk: decoding 60,000 small images takes 8 to 17 seconds.

They are decoded once. Later runs map the pixels from a `.npy` file into memory.
"""

import errno
import os
import pathlib
import tempfile
import zlib
from typing import Any

import numpy as np

from experiments import console as consoles
from experiments import errors
from experiments.data import tfds
from experiments.runs import processes


def decoded(
    prepared: tfds.Prepared, split: str, cache_dir: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of a split, decoded at most once.

    The cache is two files, each moved into place when complete: pixels, and labels with
    a checksum of the pixels. Files that do not match are written again. Several
    processes may do so at once, since all write the same.

    Args:
        prepared: Data set, from `tfds.prepare`.
        split: Name of a whole split.
        cache_dir: Folder for decoded images. Default: `adaste_jax` in $XDG_CACHE_HOME,
            else in `~/.cache`.

    Returns:
        Images, uint8 [n, height, width, channels], mapped from the file and read-only;
        labels, int32 [n].

    Raises:
        RunError: If images differ in size or cannot be decoded, or if the cache cannot
            be written or read again.
    """
    info = prepared.info
    shape = info.features["image"].shape
    if None in shape:
        raise errors.RunError(
            f"the images of {info.name} differ in size, so they cannot be loaded as "
            "one array: stream them, and give an image size."
        )
    size = info.splits[split].num_examples
    # The number of bytes tells apart copies that were encoded differently.
    key = f"{info.full_name.replace('/', '-')}-{split}-{info.splits[split].num_bytes:d}"
    place = folder(cache_dir)
    files = place / f"{key}-images.npy", place / f"{key}-labels.npz"
    if all(file.exists() for file in files):
        try:
            return _read(*files, shape=(size, *shape))
        # Damage can raise almost any error in NumPy and zipfile; all mean the same.
        except Exception as error:
            processes.say(
                f"{files[0]} is damaged ({error}); decoding the images again."
            )
    try:
        place.mkdir(parents=True, exist_ok=True)
        _decode(tfds.Records(prepared, split), *files, shape=(size, *shape))
    except OSError as error:
        raise errors.RunError(
            f"cannot write decoded images to {place} ({error}): make room, or give "
            "another folder as cache_dir."
        ) from error
    try:
        return _read(*files, shape=(size, *shape))
    except Exception as error:
        raise errors.RunError(
            f"{files[0]} was written but cannot be read: {error}. Name another "
            "folder as cache_dir."
        ) from error


def folder(cache_dir: str | None) -> pathlib.Path:
    """The folder of decoded and packed data, which need not exist; see `decoded`."""
    if cache_dir:
        return pathlib.Path(os.path.expanduser(cache_dir))
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if base.startswith("~"):
        raise errors.RunError(
            "there is no home folder for decoded data: give a folder as cache_dir."
        )
    return pathlib.Path(base) / "adaste_jax"


def _reserve(file: pathlib.Path) -> None:
    """Reserves disk space: without it, writing to a full disk kills the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    with file.open("r+b") as opened:
        try:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise  # other file systems cannot reserve


def _decode(
    examples: Any, images_file: pathlib.Path, labels_file: pathlib.Path, *, shape: Any
) -> None:
    """Decodes into a folder beside the files, and moves them into place at the end."""
    with tempfile.TemporaryDirectory(
        dir=images_file.parent, prefix="decoding-"
    ) as folder:
        images_part = pathlib.Path(folder) / images_file.name
        labels_part = pathlib.Path(folder) / labels_file.name
        images = np.lib.format.open_memmap(images_part, "w+", np.uint8, shape)
        _reserve(images_part)
        labels = np.empty(shape[0], np.int32)
        with consoles.bar(consoles.create(stderr=True)) as bar:
            task = bar.add_task(f"decoding {images_file.name}", total=shape[0])
            for start in range(0, shape[0], 500):
                stop = min(start + 500, shape[0])
                part = examples.__getitems__(list(range(start, stop)))
                for index, example in enumerate(part, start):
                    if example["image"].shape != shape[1:]:
                        raise errors.RunError(
                            f"example {index} of {images_file.name} has the shape "
                            f"{example['image'].shape}, not {shape[1:]} like the other "
                            "images: stream the data set, and give an image size."
                        )
                images[start:stop] = [example["image"] for example in part]
                labels[start:stop] = [example["label"] for example in part]
                bar.advance(task, stop - start)
        images.flush()
        np.savez(labels_part, labels=labels, checksum=zlib.crc32(images.data))
        os.replace(images_part, images_file)
        try:
            os.replace(labels_part, labels_file)
        except BaseException:
            images_file.unlink(missing_ok=True)
            raise


def _read(
    images_file: pathlib.Path, labels_file: pathlib.Path, *, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Maps a cache.

    Raises:
        ValueError: If the contents are not what was written. NumPy may raise other
            errors.
    """
    images = np.load(images_file, mmap_mode="r")
    # NumPy leaves a file open that it cannot read; this one is closed here.
    with labels_file.open("rb") as opened, np.load(opened) as stored:
        labels, checksum = stored["labels"], stored["checksum"]
    if images.shape != shape or images.dtype != np.uint8:
        raise ValueError(f"it holds {images.dtype} {images.shape}, not uint8 {shape}")
    if labels.shape != shape[:1] or zlib.crc32(images.data) != checksum:
        raise ValueError("its checksum is wrong")
    return images, labels
