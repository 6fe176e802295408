"""Decodes files, bytes and PIL images to 8 bits a channel; all decoding is done here.

Every error of Pillow becomes a `RunError` that names the image. Images are rotated by
their EXIF orientation. Only the first frame of an animation is used. Transparency is
dropped: a pixel keeps the colour that the file gives it. Grey values of 16 bits are
divided by 257, so that 65,535 becomes 255; colours of 16 bits keep their upper 8 bits.
Integers of 32 bits and floats have no known range and are an error.
"""

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from experiments import errors

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode of an image, by its number of channels of 8 bits."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_THE_SIDE = (5, 6, 7, 8)
_DEEP_FORMATS = ("PNG", "PPM")
"""Formats whose images of Pillow's mode "I" have values in 0 ... 65535."""


def read(path: str, mode: str = "RGB") -> Image.Image:
    """Reads the image of a file.

    Args:
        path: Path of a regular file; a FIFO or a device is not opened.
        mode: Mode of the result: a value of `MODES`.

    Raises:
        RunError: If the image cannot be read, or cannot be converted to 8 bits. The
            message names the file.
    """
    with named(path):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("it is not a regular file")
        with Image.open(path) as image:
            return _eight_bits(image, mode)


def size(path: str) -> tuple[int, int]:
    """Width and height of the image of a file, upright; its pixels are not decoded.

    Raises:
        RunError: If the file is not an image. The message names it.
    """
    with named(path), Image.open(path) as image:
        width, height = image.size
        turned = _orientation(image) in _ON_THE_SIDE
        return (height, width) if turned else (width, height)


def decode(image: bytes | Image.Image, what: str, mode: str = "RGB") -> Image.Image:
    """Decodes an image from bytes, or converts a PIL image of any mode.

    Args:
        image: A whole file as bytes, or an image.
        what: Name of the image in errors, such as "example 7 of cifar10".
        mode: Mode of the result: a value of `MODES`.

    Raises:
        RunError: If the image cannot be read, or cannot be converted to 8 bits.
    """
    with named(what):
        if isinstance(image, Image.Image):
            return _eight_bits(image, mode)
        with Image.open(io.BytesIO(image)) as opened:
            return _eight_bits(opened, mode)


class Decoded:
    """A source of examples whose images are arrays: uint8 [height, width, channels].

    Text, uint8 or int32 [length], is unchanged. An error has the number of the example.
    """

    def __init__(self, source: Any):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Any:
        example = self._source[index]
        image = _pixels(example["image"], f"of example {index}")
        return {"image": image, "label": example["label"]}


def _pixels(image: Any, what: str) -> np.ndarray:
    """The array of an image given as an array, as a PIL image or as encoded bytes."""
    if isinstance(image, bytes | Image.Image):
        image = decode(image, what)
    image = np.asarray(image)
    kinds = {1: (np.uint8, np.int32), 3: (np.uint8,)}
    if image.dtype not in kinds.get(image.ndim, ()):
        raise errors.RunError(
            "images must be uint8 [height, width, channels], and text uint8 or int32 "
            f"[length]; got {image.dtype} {list(image.shape)}."
        )
    return image


@contextlib.contextmanager
def named(what: str) -> Iterator[None]:
    """Turns every error inside into a `RunError` that names the image.

    Damage can show as almost any error: OSError, SyntaxError, ValueError, struct.error,
    a decompression bomb, MemoryError.
    """
    try:
        yield
    except errors.RunError:
        raise
    except Exception as error:
        reason = str(error) or "no reason given"
        if not isinstance(error, OSError):
            reason = f"{type(error).__name__}: {reason}"
        raise errors.RunError(f"cannot read the image {what}: {reason}") from error


def _eight_bits(image: Image.Image, mode: str) -> Image.Image:
    """The image in its upright orientation, in a mode of 8 bits a channel."""
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and image.width * image.height > most:
        raise ValueError(
            f"it has {image.width} x {image.height} pixels, more than {most}; make it "
            "smaller"
        )
    image.load()
    turn = _TURNS.get(_orientation(image))
    deep = image.mode == "I" and image.format in _DEEP_FORMATS
    if deep or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(
            f"its pixels are {np.asarray(image).dtype}, which have no known range; "
            "save it with 8 or 16 bits a channel"
        )
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # straight to RGB, Pillow warns of transparency
    image = image.convert(mode)
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) if the file does not give one."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data are no reason to refuse the pixels
        return 1
