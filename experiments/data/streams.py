"""Batches of data sets too large for the device, read and decoded as they are used.

A Grain pipeline over any random-access source of examples: `datasets.Arrays`, a data
set of `sources.source`, or anything else with `__len__` and `__getitem__`. Batches are
a function of the source, the arguments and the number of the batch, so a checkpoint
keeps that number as its position.
"""

import functools
import os
from collections.abc import Callable, Sequence

import grain
import jax
from absl import flags

from experiments import errors
from experiments.data import (
    datasets,
    image_folder,
    images,
    places,
    selection,
    sources,
    text,
    text_files,
    tfds,
    tokens,
    transforms,
)
from experiments.runs import processes

Divide = Callable[[int], tuple[int, int]]
"""From the number of examples to the numbers of validation and training examples."""


def open_splits(
    name: str,
    *,
    data_dir: str | None = None,
    num_train: int | None = None,
    num_test: int | None = None,
    validation: float = 0.1,
    image_size: int | None = None,
    length: int = text.LENGTH,
    cache_dir: str | None = None,
    vocabulary: tokens.Vocabulary = tokens.BYTES,
) -> datasets.Splits[sources.Source]:
    """Opens a data set that is too large to load.

    Args:
        name: Name of TensorFlow Datasets, `"folder/NAME"`, see `image_folder`, or
            `"text/NAME"`, see `text_files`.
        data_dir: Folder of the data sets. Default: $TFDS_DATA_DIR.
        num_train: Number of training examples, from those left after validation.
            Default: all.
        num_test: Number of test examples. Default: all.
        validation: Part of the training split that is kept for validation: a share
            below 1, or a number of examples. For TFDS, which shuffles when it prepares
            a data set, these are the first examples; of a text, the last ones.
        image_size: Side of the images; None keeps their size.
        length: Tokens in an example of text.
        cache_dir: Folder for packed text; see `text_files.find`.
        vocabulary: The tokens of text.

    Returns:
        The splits, as sources of examples. Mean and standard deviation are those of a
        thousand training images; of text, None.

    Raises:
        RunError: If the data set cannot be found or read, or has too few examples.
    """
    selection.check_counts(num_train, num_test, validation)
    transforms.check_size(image_size)
    divide = functools.partial(
        selection.division, validation=validation, num_train=num_train
    )
    if name.startswith(places.TEXT):
        find = functools.partial(
            text_files.find,
            name,
            data_dir=data_dir,
            length=length,
            cache_dir=cache_dir,
            vocabulary=vocabulary,
        )
        return _splits_of_text(find, divide, num_test, vocabulary.size)
    is_folder = name.startswith(places.IMAGES)
    open_parts = _parts_of_folder if is_folder else _parts_of_tfds
    train, kept, test, names = open_parts(name, data_dir, divide, num_test)
    sample = stream(
        train,
        batch_size=min(1000, len(train)),
        train=True,
        image_size=image_size,
        process_index=0,  # the same images in every process
        process_count=1,
    )
    mean, std = selection.moments(next(iter(sample))["image"], 255)
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


def _splits_of_text(
    find: Callable[..., text_files.Pieces],
    divide: Divide,
    num_test: int | None,
    num_classes: int,
) -> datasets.Splits[sources.Source]:
    whole, test = find(split="train"), find(split="test")
    kept, taken = divide(len(whole))
    return datasets.Splits(
        train=whole.part(0, taken),
        validation=whole.part(len(whole) - kept, len(whole)),
        test=test.part(0, num_test or len(test)),
        num_classes=num_classes,
        mean=None,
        std=None,
        max_value=None,
    )


Parts = tuple[sources.Source, sources.Source, sources.Source, Sequence[str]]
"""Training, validation and test examples, and the names of the classes."""


def _parts_of_tfds(
    name: str, data_dir: str | None, divide: Divide, num_test: int | None
) -> Parts:
    opened = tfds.prepare(name, data_dir)
    total = opened.info.splits["train"].num_examples
    kept, taken = divide(total)
    test = tfds.test_split(opened)
    if num_test and num_test < opened.info.splits[test].num_examples:
        test = f"{test}[:{num_test}]"
    labelled = functools.partial(tfds.Records, opened, labelled=True)
    return (
        labelled(f"train[{kept}:{kept + taken}]"),
        labelled(f"train[:{kept}]") if kept else [],
        tfds.Records(opened, test),
        tfds.class_names(opened),
    )


def _parts_of_folder(
    name: str, data_dir: str | None, divide: Divide, num_test: int | None
) -> Parts:
    found = [image_folder.find(name, split, data_dir) for split in ("train", "test")]
    for split in found:
        processes.say(str(split))
    whole, test = (split.files for split in found)
    order = selection.stratified_order(whole.labels, seed=0)
    kept, taken = divide(len(whole))
    if num_test:  # files are sorted by class
        test = test.take(selection.stratified_order(test.labels, seed=0)[:num_test])
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

    In training the stream never ends. Every epoch has a new order, of which process p
    of P takes examples p, p + P, p + 2 P, ... So the batches of all processes together
    equal the batch of a single process. The incomplete last batch of an epoch is left
    out.

    In evaluation the stream ends after one pass in the order of the source. All
    processes get the same number of batches of the same size: the last are filled up
    with examples whose `mask` is false.

    Args:
        source: Examples by number. An array image keeps its channels; a PIL image or
            encoded bytes become RGB; text is an array with one axis.
        batch_size: Number of examples in a batch, over all processes.
        train: Whether to shuffle, repeat, and crop at random.
        seed: Seed of the order and of the crops, at least 0.
        image_size: Side of the square images in a batch. In training a random part of
            the image is stretched to it (8 to 100 % of the area, aspect 3/4 to 4/3);
            in evaluation the shorter side is resized to `image_size / 0.875` and the
            centre is cut out, unless the image already has this size. None keeps the
            size of the images; then all must have the same.
        num_workers: Number of extra processes that decode; 0 decodes in threads. Grain
            needs parsed flags for them; `absl.app.run` parses flags.
        process_index: Number of this process. Default: `jax.process_index()`.
        process_count: Number of processes. Default: `jax.process_count()`.

    Returns:
        An iterable of batches: `image`, uint8 [n, height, width, channels]; `label`,
        int32 [n] (of text, both are [n, length]); in evaluation `mask`, bool [n]; with
        n = batch_size / process_count.

        Its iterators have `get_state()`, which returns a small dict for a checkpoint,
        and `set_state(state)`, after which they continue from there. A state needs the
        same `num_workers`; the batches do not depend on `num_workers`.

    Raises:
        RunError: If the batch cannot be divided among processes or is larger than the
            data, if `image_size` is below 1, or if flags are not parsed. When examples
            are read: if images are not uint8, or differ in size and there is no
            `image_size`.

    Example:
        >>> batches = iter(stream(sources.source("digits", "train"),
        ...                       batch_size=32, train=True))
        >>> next(batches)["image"].shape
        (32, 8, 8, 1)
        >>> batches.get_state()
        {'next_index': 1}

    Reference:
        The random crop is that of Szegedy et al., "Going Deeper with Convolutions",
        CVPR 2015, https://arxiv.org/abs/1409.4842.
    """
    transforms.check_size(image_size)
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
            .random_map(
                functools.partial(transforms.training_example, image_size=image_size)
            )
        )
        examples = examples[index : size // count * count : count]
    else:
        examples = grain.MapDataset.range(index, -(-size // count) * count, count).map(
            functools.partial(
                transforms.evaluation_example, source=source, image_size=image_size
            )
        )
    batches = examples.batch(
        local,
        drop_remainder=train,
        batch_fn=functools.partial(transforms.stack, batch_size=local),
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
                "worker processes need parsed flags: start the program with "
                "`absl.app.run`, or "
                "call `absl.flags.FLAGS.mark_as_parsed()` before."
            )
        iterable = iterable.mp_prefetch(
            grain.multiprocessing.MultiprocessingOptions(num_workers=num_workers)
        )
    return iterable
