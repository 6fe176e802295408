"""Batches of data sets too large for the device, read and decoded as they are used.

A Grain pipeline over any random-access source of examples: `data.Arrays`, a data set of
`data_source.source`, or anything else with `__len__` and `__getitem__`. Batches are a
function of the source, the arguments and the number of the batch, so the position that
a checkpoint keeps is that number.
"""

import functools
import os
from collections.abc import Sequence
from typing import Any

import grain
import jax
import numpy as np
from absl import flags
from PIL import Image

from experiments import errors
from experiments.data import datasets, image_folder, images, sources

_AREA = (0.08, 1.0)
_ASPECT = (3 / 4, 4 / 3)
_MARGIN = 0.875
"""Share of the shorter side that is left after the centre crop of evaluation."""

Batch = dict[str, np.ndarray]


def open_splits(
    name: str,
    *,
    data_dir: str | None = None,
    num_train: int | None = None,
    num_test: int | None = None,
    validation: float = 0.1,
    image_size: int | None = None,
) -> datasets.Splits[sources.Source]:
    """Opens a data set that is too large to load.

    Args:
        name: Of TensorFlow Datasets, as in `data.load`, or `"folder/NAME"`: see
            `image_folder`.
        data_dir: As in `data.load`.
        num_train: Trains on so many of the examples that are left after validation.
        num_test: As in `data.load`.
        validation: As in `data.load`; of TFDS the first examples of the training split,
            which has been shuffled when it was prepared.
        image_size: As in `stream`.

    Returns:
        As `data.load`, with sources in the place of arrays. Mean and standard
        deviation are those of a thousand training images.

    Raises:
        RunError: As `data.load`.
    """
    datasets.check_num_test(num_test)
    open_parts = (
        _parts_of_folder if name.startswith(image_folder.PREFIX) else _parts_of_tfds
    )
    train, kept, test, names = open_parts(
        name, data_dir, num_train, num_test, validation
    )
    sample = stream(
        train,
        batch_size=min(1000, len(train)),
        train=True,
        image_size=image_size,
        process_index=0,  # the same images in every process
        process_count=1,
    )
    mean, std = datasets.moments(next(iter(sample))["image"], 255)
    return datasets.Splits(
        train=train,
        validation=kept,
        test=test,
        num_classes=len(names),
        mean=mean,
        std=std,
        max_value=255,
        class_names=tuple(names),
    )


Parts = tuple[sources.Source, sources.Source, sources.Source, Sequence[str]]
"""Training, validation and test examples, and the names of the classes."""


def _parts_of_tfds(
    name: str,
    data_dir: str | None,
    num_train: int | None,
    num_test: int | None,
    validation: float,
) -> Parts:
    opened = sources.prepare(name, data_dir)
    total = opened.info.splits["train"].num_examples
    kept, taken = datasets.division(total, validation, num_train)
    test = sources.test_split(opened)
    if num_test and num_test < opened.info.splits[test].num_examples:
        test = f"{test}[:{num_test}]"
    labelled = functools.partial(sources.Records, opened, labelled=True)
    return (
        labelled(f"train[{kept}:{kept + taken}]"),
        labelled(f"train[:{kept}]") if kept else [],
        sources.Records(opened, test),
        sources.class_names(opened),
    )


def _parts_of_folder(
    name: str,
    data_dir: str | None,
    num_train: int | None,
    num_test: int | None,
    validation: float,
) -> Parts:
    found = [image_folder.find(name, split, data_dir) for split in ("train", "test")]
    for split in found:
        sources.say(str(split))
    whole, test = (split.files for split in found)
    order = datasets.stratified_order(whole.labels, seed=0)
    kept, taken = datasets.division(len(whole), validation, num_train)
    if num_test:  # files are sorted by class
        test = test.take(datasets.stratified_order(test.labels, seed=0)[:num_test])
    return (
        whole.take(order[kept : kept + taken]),
        whole.take(order[:kept]),
        test,
        found[0].classes,
    )


def stream(
    source: sources.Source,
    *,
    batch_size: int,
    train: bool,
    seed: int = 0,
    image_size: int | None = None,
    num_workers: int = 0,
    process_index: int | None = None,
    process_count: int | None = None,
) -> grain.IterDataset:
    """Batches of one process, for training or for evaluation.

    In training it never ends: every epoch has another order, of which process p of P
    takes examples p, p + P, p + 2 P, ..., so the processes' batches together are the
    batch of one process alone. The incomplete last batch of an epoch is left out.

    In evaluation it ends after one pass in the order of the source, and all processes
    get equally many batches of equal size: the last are filled up, with `mask` false.

    Args:
        source: Examples by number. An array image keeps its channels; a PIL image or
            an encoded one (bytes) becomes RGB; text is an array with one axis.
        batch_size: Examples in a batch, over all processes.
        train: Whether to shuffle, repeat, and crop at random.
        seed: Of order and crops, at least 0.
        image_size: Side of the square images in a batch. In training a random part of
            the image is stretched to it (8 to 100 % of the area, aspect 3/4 to 4/3);
            in evaluation the shorter side is resized to `image_size / 0.875` and the
            centre cut out, unless the image has this size already. None leaves images
            as they are: all of one size.
        num_workers: Processes that decode, besides this one; 0 decodes in threads.
            Grain needs parsed flags for them, as `absl.app.run` leaves them.
        process_index: Of this process. Default: `jax.process_index()`.
        process_count: How many processes there are. Default: `jax.process_count()`.

    Returns:
        An iterable of batches: `image`, uint8 [n, height, width, channels]; `label`,
        int32 [n] (of text, both are [n, length]); in evaluation `mask`, bool [n]; with
        n = batch_size / process_count.
        Its iterators have `get_state()`, a small dict to keep in a checkpoint, and
        `set_state(state)`, after which they give the batches that would have come. A
        state is for the same `num_workers`; the batches do not depend on it.

    Raises:
        RunError: If the batch cannot be divided among processes or is larger than the
            data, or flags are not parsed; and, when examples are read, if images are
            not uint8, or differ in size without an `image_size`.

    Example:
        >>> batches = iter(stream(data_source.source("digits", "train"),
        ...                       batch_size=32, train=True))
        >>> next(batches)["image"].shape
        (32, 8, 8, 1)
        >>> batches.get_state()
        {'next_index': 1}

    Reference:
        The random crop is that of Szegedy et al., "Going Deeper with Convolutions",
        CVPR 2015, https://arxiv.org/abs/1409.4842.
    """
    index = jax.process_index() if process_index is None else process_index
    count = jax.process_count() if process_count is None else process_count
    if batch_size < 1 or batch_size % count:
        raise errors.RunError(
            f"the batch size {batch_size} must be a positive multiple of the {count} "
            "processes."
        )
    size = len(source)
    if not size or (train and size < batch_size):
        raise errors.RunError(
            f"there are {size} examples, too few for a batch of {batch_size}."
        )
    local = batch_size // count
    source = images.Decoded(source)
    if train:
        # Crops come before the division among processes: they belong to the example's
        # place in the epoch, not to the process.
        examples = (
            grain.MapDataset.source(source)
            .seed(seed)
            .shuffle()
            .random_map(functools.partial(_training_example, image_size=image_size))
        )
        examples = examples[index : size // count * count : count]
    else:
        examples = grain.MapDataset.range(index, -(-size // count) * count, count).map(
            functools.partial(_evaluation_example, source=source, image_size=image_size)
        )
    batches = examples.batch(
        local,
        drop_remainder=train,
        batch_fn=functools.partial(_stack, batch_size=local),
    )
    if train:
        batches = batches.repeat()  # after `batch`: no batch has parts of two epochs
    threads = min(16, os.cpu_count() or 1)
    iterable = batches.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    )
    if num_workers:
        if not flags.FLAGS.is_parsed():
            raise errors.RunError(
                "workers need parsed flags: start the program with `absl.app.run`, or "
                "call `absl.flags.FLAGS.mark_as_parsed()` before."
            )
        iterable = iterable.mp_prefetch(
            grain.multiprocessing.MultiprocessingOptions(num_workers=num_workers)
        )
    return iterable


def _training_example(
    example: sources.Example,
    rng: np.random.Generator,
    *,
    image_size: int | None,
) -> dict[str, Any]:
    image = example["image"]
    if image_size is not None:
        box = _random_box(rng, height=image.shape[0], width=image.shape[1])
        image = _resize(image, box, (image_size, image_size))
    return {"image": image, "label": example["label"]}


def _evaluation_example(
    index: int, *, source: sources.Source, image_size: int | None
) -> dict[str, Any]:
    """Example `index`, or the last one with a false mask where there is none."""
    last = len(source) - 1
    example = source[min(index, last)]
    image = example["image"]
    if image_size is not None and image.shape[:2] != (image_size, image_size):
        height, width = image.shape[:2]
        side = _MARGIN * min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        image = _resize(image, box, (image_size, image_size))
    return {"image": image, "label": example["label"], "mask": index <= last}


def _random_box(
    rng: np.random.Generator, *, height: int, width: int
) -> tuple[float, float, float, float]:
    """A random part of an image: left, top, right, bottom.

    Ten tries at an area and an aspect that fit; then the largest part in the middle
    that has an admissible aspect.
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


def _resize(
    image: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]
) -> np.ndarray:
    """Stretches a part of an image to a size, channel by channel unless it is RGB."""
    if image.shape[-1] == 3:
        planes = [image]
    else:
        planes = [image[..., channel] for channel in range(image.shape[-1])]
    resized = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(plane)).resize(
                size, Image.Resampling.BILINEAR, box=box
            )
        )
        for plane in planes
    ]
    return resized[0] if image.shape[-1] == 3 else np.stack(resized, axis=-1)


def _stack(examples: Sequence[dict[str, Any]], *, batch_size: int) -> Batch:
    """One batch, filled up by its last example where examples run out.

    Raises:
        RunError: If images differ in size.
    """
    shapes = {example["image"].shape for example in examples}
    if len(shapes) > 1:
        listing = " and ".join(map(str, sorted(shapes)[:2]))
        raise errors.RunError(
            f"the images differ in size ({listing}): give an image size to which they "
            "are resized."
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
