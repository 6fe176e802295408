"""Data sets of TensorFlow Datasets (TFDS), read without TensorFlow.

TFDS stores examples in array_record files, which any reader can access at random.
Decoding 60,000 small images takes 8 to 17 seconds, so it is done once: `decoded` keeps
the pixels in a `.npy` file that later runs map into memory.
"""

import errno
import os
import pathlib
import tempfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypedDict

import numpy as np

from adaste_jax import datasets
from experiments import console as consoles
from experiments import errors
from experiments.data import image_folder, text
from experiments.data.tfds_records import Records
from experiments.runs import processes


class Example(TypedDict):
    """One image and its class; or a piece of text and, byte by byte, what follows."""

    image: Any  # uint8 [height, width, channels], PIL image, encoded; or uint8 [length]
    label: Any  # integer; or uint8 [length]


class Source(Protocol):
    """Examples by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


class Prepared(Protocol):
    """What is used of a builder of TFDS, to which its stubs give no types."""

    info: Any
    as_data_source: Callable[..., Any]


class Packaged(NamedTuple):
    """A data set that needs no download.

    Attributes:
        read: Gives its splits, "train" and "test": inputs and labels.
        num_classes: Labels are in 0 ... num_classes - 1.
        max_value: The largest value of a pixel; None for text.
        class_names: Of the labels, in order; None for text.
    """

    read: Callable[[], dict[str, tuple[np.ndarray, np.ndarray]]]
    num_classes: int
    max_value: int | None
    class_names: tuple[str, ...] | None


PACKAGED = {
    "digits": Packaged(datasets.digits, 10, 16, tuple(map(str, range(10)))),
    "pydoc_topics": Packaged(text.pydoc_topics, text.VALUES, None, None),
}


def source(name: str, split: str, data_dir: str | None = None) -> Source:
    """Random access to a split of a data set that need not fit into memory.

    Args:
        name: As in `data.load`, or `"folder/NAME"`: see `image_folder`.
        split: `"train"`, `"test"`, or a slice as TFDS writes it: `"train[:200]"`
            (those that are packaged and folders have whole splits only).
        data_dir: As in `data.load`.

    Returns:
        A sequence of examples.

    Raises:
        RunError: If the data set or the split cannot be had.

    Example:
        >>> images = source("digits", "test")
        >>> len(images), images[0]["image"].shape
        (360, (8, 8, 1))
    """
    if name in PACKAGED:
        splits = PACKAGED[name].read()
        if split not in splits:
            raise errors.RunError(
                f"{name} has no split {split!r}; it has {', '.join(splits)}."
            )
        images, labels = splits[split]
        return [
            {"image": image, "label": label}
            for image, label in zip(images, labels, strict=True)
        ]
    if name.startswith(image_folder.PREFIX):
        found = image_folder.find(name, split, data_dir)
        say(str(found))
        return found.files
    opened = prepare(name, data_dir)
    try:
        return Records(opened, split)
    except ValueError as error:
        raise errors.RunError(
            f"{name} has no split {split!r}; it has {', '.join(opened.info.splits)}."
        ) from error


def prepare(
    name: str, data_dir: str | None = None, *, download: bool = True
) -> Prepared:
    """Opens an image classification data set; downloads it if it is not there.

    Args:
        name: As in `data.load`.
        data_dir: As in `data.load`.
        download: False makes it an error if it is not there.

    Returns:
        The builder of TFDS; its data are on the disk.

    Raises:
        RunError: If the data set is unknown, cannot be downloaded or read, or does not
            consist of images and classes.
    """
    # It takes two seconds to import, and `digits` does without.
    import tensorflow_datasets as tfds

    folder = data_dir or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR
    folder = os.path.expanduser(folder)
    try:
        builder = tfds.builder(name, data_dir=folder, file_format="array_record")
        if not builder.is_prepared():
            if not download:
                raise errors.RunError(
                    f"the data set {name!r} is not in {folder}, and it is not "
                    "downloaded because a file names it: give --data_dir or --dataset."
                )
            say(
                f"{name} is not in {folder}: downloading and preparing it. (Without a "
                "network it takes minutes to give up. `digits` needs no download.)"
            )
            builder.download_and_prepare()
    except errors.RunError:
        raise
    # Whatever goes wrong in there, the way out is the same.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")
        raise errors.RunError(
            f"cannot find or download the data set {name!r}. Looked for it, prepared "
            f"as array_record, in {folder}, then tried to download it there: "
            f"{type(error).__name__}: {reason}\n"
            "On a machine with a network it is prepared by\n"
            f'    python -c "import tensorflow_datasets as tfds; '
            f"tfds.builder('{name}', data_dir='{folder}', file_format='array_record')"
            '.download_and_prepare()"\n'
            "(into another folder, if this one holds it in another format). Then copy "
            "the folder and name it in $TFDS_DATA_DIR. Names are listed on "
            "https://www.tensorflow.org/datasets/catalog. The data set `digits` is "
            "packaged and needs no download."
        ) from error
    features = builder.info.features
    if not {"image", "label"} <= set(features) or not hasattr(
        features["label"], "num_classes"
    ):
        raise errors.RunError(
            f"{name} is not a data set of images and classes: it has the features "
            f"{', '.join(features)}, and `image` and `label` are needed."
        )
    dtype = features["image"].np_dtype  # `dtype` would import TensorFlow
    if dtype != np.uint8:
        raise errors.RunError(f"the pixels of {name} are {dtype}; only uint8 is read.")
    return builder


def num_classes(prepared: Prepared) -> int:
    """How many classes a data set has."""
    return prepared.info.features["label"].num_classes


def class_names(prepared: Prepared) -> tuple[str, ...]:
    """Names of the classes, in the order of the labels; numbers where it has none."""
    return tuple(prepared.info.features["label"].names)


def class_names_of(name: str, data_dir: str | None = None) -> tuple[str, ...] | None:
    """Names of the classes of a data set by its name; None for text.

    Args:
        name: As in `source`.
        data_dir: As in `data.load`.

    Raises:
        RunError: If the data set cannot be read.
    """
    if name in PACKAGED:
        return PACKAGED[name].class_names
    if name.startswith(image_folder.PREFIX):
        return tuple(image_folder.classes(name, data_dir))
    return class_names(prepare(name, data_dir))


def test_split(prepared: Prepared) -> str:
    """The split to test on: `test`, or `validation` where that has no labels.

    Raises:
        RunError: If there is neither, with labels.
    """
    found = [name for name in ("test", "validation") if name in prepared.info.splits]
    for split in found:
        if not Records(prepared, split).labels_outside():
            return split
    if found:
        raise errors.RunError(
            f"the examples of {prepared.info.name} in {' and '.join(found)} have no "
            "labels, so nothing can be tested on them: take another data set."
        )
    raise errors.RunError(
        f"{prepared.info.name} has neither a split `test` nor `validation`; it has "
        f"{', '.join(prepared.info.splits)}."
    )


test_split.__test__ = False  # type: ignore[attr-defined]


def decoded(
    prepared: Prepared, split: str, cache_dir: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of a split, decoded at most once.

    The cache is two files, put in place whole: pixels, and labels with a checksum of
    the pixels. Files that do not fit are written anew. Several processes may do so at
    once, since all write the same.

    Args:
        prepared: From `prepare`.
        split: Name of a whole split.
        cache_dir: As in `data.load`.

    Returns:
        Images, uint8 [n, height, width, channels], mapped from the file and read-only;
        labels, int32 [n].

    Raises:
        RunError: If images differ in size or cannot be decoded, or the cache cannot be
            written, or not be read again.
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
    folder = _cache_folder(cache_dir)
    files = folder / f"{key}-images.npy", folder / f"{key}-labels.npz"
    if all(file.exists() for file in files):
        try:
            return _read(*files, shape=(size, *shape))
        # Damage can show as almost any error of NumPy and zipfile; all mean the same.
        except Exception as error:
            say(f"{files[0]} is damaged ({error}): decoding again.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _decode(Records(prepared, split), *files, shape=(size, *shape))
    except OSError as error:
        raise errors.RunError(
            f"cannot write decoded images to {folder} ({error}): make room, or name "
            "another folder as cache_dir."
        ) from error
    try:
        return _read(*files, shape=(size, *shape))
    except Exception as error:
        raise errors.RunError(
            f"{files[0]} was written and cannot be read again: {error}. Name another "
            "folder as cache_dir."
        ) from error


def say(text: str) -> None:
    """Says something of the data on standard error, in the process that speaks."""
    if processes.is_primary():
        consoles.say(consoles.create(stderr=True), text)


def _cache_folder(cache_dir: str | None) -> pathlib.Path:
    if cache_dir:
        return pathlib.Path(os.path.expanduser(cache_dir))
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if base.startswith("~"):
        raise errors.RunError(
            "there is no home folder to keep decoded images in: name a folder as "
            "cache_dir."
        )
    return pathlib.Path(base) / "adaste_jax"


def _reserve(file: pathlib.Path) -> None:
    """Takes the room on the disk: writing to a map without it kills the process."""
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
                            f"{example['image'].shape}, not {shape[1:]} as all images "
                            "of this data set: stream them, and give an image size."
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
        ValueError: If it is not what was written. NumPy raises others of its own.
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
