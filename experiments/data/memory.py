"""Streamed data sets, decoded once and kept in memory."""

from typing import Any

import numpy as np

from experiments import errors
from experiments.data import (
    datasets,
    images,
    selection,
    sources,
    streams,
    tokens,
    transforms,
)

MOST_BYTES = 4 * 2**30
"""Bytes of images or text that `decoded` reads, at most."""

_AT_ONCE = 256


def decoded(
    splits: datasets.Splits[sources.Source], *, image_size: int | None
) -> datasets.Splits[datasets.Arrays]:
    """Decodes all examples once, as `streams.stream` gives them in evaluation.

    Args:
        splits: The result of `streams.open_splits`.
        image_size: Side of the images; None keeps their size.

    Returns:
        The same splits as arrays; of images, with the moments of all for training.

    Raises:
        RunError: If they take more than `MOST_BYTES`, or an image cannot be read.
    """
    parts = splits.train, splits.validation, splits.test
    total = sum(map(len, parts))
    like = _example(splits.train, image_size)
    size, shape = total * like.nbytes, like.shape
    if size > MOST_BYTES:
        raise errors.RunError(
            f"{total:,} examples of {' x '.join(map(str, shape))} take "
            f"{size / 2**30:.1f} GiB, and at most {MOST_BYTES / 2**30:.0f} GiB are "
            "kept in memory: make config.num_train, config.num_test or "
            "the size of an example smaller."
        )
    train, validation, test = (_arrays(part, image_size, like) for part in parts)
    found: dict[str, Any] = {"train": train, "validation": validation, "test": test}
    if splits.max_value is not None:
        mean, std = selection.moments(train.images, splits.max_value)
        found |= {"mean": mean, "std": std}
    return datasets.Splits(**vars(splits) | found)


def _example(source: sources.Source, image_size: int | None) -> np.ndarray:
    example = transforms.evaluation_example(
        0, source=images.Decoded(source), image_size=image_size
    )
    found: np.ndarray = example["image"]
    return found


def _arrays(
    source: sources.Source, image_size: int | None, like: np.ndarray
) -> datasets.Arrays:
    shape = like.shape
    pixels = np.empty((len(source), *shape), like.dtype)
    # Of text, each token has a label.
    labels = np.empty((len(source), *(shape if len(shape) == 1 else ())), np.int32)
    done = 0
    if len(source):
        batches = streams.stream(
            source,
            batch_size=min(_AT_ONCE, len(source)),
            train=False,
            image_size=image_size,
            process_index=0,  # all examples in every process
            process_count=1,
        )
        for batch in batches:
            kept = batch["mask"]
            end = done + int(kept.sum())
            pixels[done:end] = batch["image"][kept]
            labels[done:end] = batch["label"][kept]
            done = end
    return datasets.Arrays(pixels, labels, tokens.bytes_per_token(source))
