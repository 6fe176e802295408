"""Transforms examples on the host: crops, resizes, and puts them into batches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from experiments import errors
from experiments.data import sources

_AREA = (0.08, 1.0)
_ASPECT = (3 / 4, 4 / 3)
_MARGIN = 0.875
"""Share of the shorter side that remains after the centre crop of evaluation."""

Batch = dict[str, np.ndarray]


def check_size(image_size: int | None) -> None:
    """Checks the side of the images, before they are read.

    Raises:
        RunError: If it is below 1.
    """
    if image_size is not None and image_size < 1:
        raise errors.RunError(
            f"image_size must be at least 1, or None for images as they are; got "
            f"{image_size}."
        )


def training_example(
    example: sources.Example, rng: np.random.Generator, *, image_size: int | None
) -> dict[str, Any]:
    """The example, with a random part of its image resized to `image_size`."""
    image = example["image"]
    if image_size is not None:
        box = random_box(rng, height=image.shape[0], width=image.shape[1])
        image = resize(image, box, (image_size, image_size))
    return {"image": image, "label": example["label"]}


def evaluation_example(
    index: int, *, source: sources.Source, image_size: int | None
) -> dict[str, Any]:
    """Example `index`; beyond the last, the last example with a false mask."""
    last = len(source) - 1
    example = source[min(index, last)]
    image = example["image"]
    if image_size is not None and image.shape[:2] != (image_size, image_size):
        height, width = image.shape[:2]
        side = _MARGIN * min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        image = resize(image, box, (image_size, image_size))
    return {"image": image, "label": example["label"], "mask": index <= last}


def random_box(
    rng: np.random.Generator, *, height: int, width: int
) -> tuple[float, float, float, float]:
    """A random part of an image: left, top, right, bottom.

    It tries ten times to find an area and an aspect ratio that fit. Then it takes the
    largest central part with an allowed aspect ratio.
    """
    for _ in range(10):
        area = rng.uniform(*_AREA) * height * width
        aspect = np.exp(rng.uniform(*np.log(_ASPECT)))
        box_width, box_height = np.sqrt(area * aspect), np.sqrt(area / aspect)
        if box_width <= width and box_height <= height:
            left = rng.uniform(0, width - box_width)
            top = rng.uniform(0, height - box_height)
            return left, top, left + box_width, top + box_height
    box_width = min(width, height * _ASPECT[1])
    box_height = min(height, width / _ASPECT[0])
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height


def resize(
    image: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]
) -> np.ndarray:
    """Resizes a part of an image, channel by channel unless it is RGB."""
    if image.shape[-1] != 3:
        planes = np.moveaxis(image, -1, 0)
        return np.stack([_resized(plane, box, size) for plane in planes], axis=-1)
    return _resized(image, box, size)


def _resized(
    plane: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]
) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(plane))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box))


def stack(examples: Sequence[dict[str, Any]], *, batch_size: int) -> Batch:
    """Makes one batch; if examples run out, the last one fills it up.

    Raises:
        RunError: If images differ in size.
    """
    shapes = {example["image"].shape for example in examples}
    if len(shapes) > 1:
        listing = " and ".join(map(str, sorted(shapes)[:2]))
        raise errors.RunError(
            f"the images differ in size ({listing}): give an image size to resize them "
            "to."
        )
    missing = batch_size - len(examples)
    filled = [*examples, *[examples[-1]] * missing]
    batch = {
        "image": np.stack([example["image"] for example in filled]),
        "label": np.array([example["label"] for example in filled], np.int32),
    }
    if "mask" in examples[0]:
        batch["mask"] = np.array(
            [example["mask"] for example in examples] + [False] * missing
        )
    return batch
