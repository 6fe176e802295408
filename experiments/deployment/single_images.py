"""Images of one's own as inputs of a network that is described by a file."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import errors
from experiments.data import images, listing, transforms


def check(inputs: Mapping[str, Any]) -> None:
    """Refuses networks that do not take images of files.

    Args:
        inputs: Field `input` of a description, which `description.check` has passed.

    Raises:
        RunError: If the network takes text, or images of other channels or depth.
    """
    if inputs["mean"] is None:
        raise errors.RunError(
            "the network takes text, not images: leave out --images, and give "
            "--dataset."
        )
    channels, most = inputs["shape"][-1], inputs["max_value"]
    if channels not in images.MODES or most > 255:
        raise errors.RunError(
            f"the network takes images of {channels} channels with values up to "
            f"{most}; image files give {', '.join(map(str, images.MODES))} channels "
            "of 8 bits."
        )


def paths(file: str | os.PathLike[str]) -> Sequence[str]:
    """The file itself, or the images in a folder and in those within it.

    Raises:
        RunError: If a folder cannot be read, or holds no images.
    """
    if not os.path.isdir(file):
        return [os.fspath(file)]
    found = listing.images(file).paths
    if not found:
        suffixes = ", ".join(listing.SUFFIXES)
        raise errors.RunError(f"{os.fspath(file)} holds no images ({suffixes}).")
    return found


def read(path: str, inputs: Mapping[str, Any]) -> np.ndarray:
    """The image of a file as the network takes it.

    It is read by the reader of image folders, and cropped and resized as examples of
    evaluation. A network that was trained on images as they are, without a size, takes
    others in the same way, if its own are square. Where the data went to another value
    than 255, as digits go to 16, the image is scaled to it.

    Args:
        path: An image file.
        inputs: Field `input` of a description, which `check` has passed.

    Returns:
        uint8 of shape `inputs["shape"]`.

    Raises:
        RunError: If the file cannot be read, or is of another size than a network
            takes whose images are not square. It names the file.
    """
    height, width, channels = inputs["shape"]
    pixels = np.asarray(images.read(path, images.MODES[channels]))
    pixels = pixels.reshape(*pixels.shape[:2], channels)
    if height == width:
        example: Any = {"image": pixels, "label": 0}
        size = inputs["image_size"] or height
        with images.named(path):
            example = transforms.evaluation_example(
                0, source=[example], image_size=size
            )
        pixels = example["image"]
    if pixels.shape != (height, width, channels):
        raise errors.RunError(
            f"{path} is of {pixels.shape[1]} x {pixels.shape[0]} pixels, and the "
            f"network takes {width} x {height}: resize it."
        )
    scaled = pixels * (inputs["max_value"] / 255)
    return np.rint(scaled).astype(np.uint8)
