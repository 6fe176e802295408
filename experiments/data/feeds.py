"""Sources of batches: images kept on the device, or a stream.

A feed gives the training batches from any step on, the same ones however often a run is
interrupted. A batch is a dict, either of `index`, numbers of images in the resident
data, or of `image` and `label` themselves. For text, `image` holds the tokens; see
`datasets.Arrays`.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from adaste_jax import train
from experiments import errors
from experiments.data import datasets, sources, streams
from experiments.runs import processes

Batch = dict[str, Any]
"""Host arrays in one process; global ones, over all devices, in several."""


def images_and_labels(batch: Any, resident: Any) -> tuple[jax.Array, jax.Array]:
    """Images and labels of a batch, inside a compiled step."""
    if "index" in batch:
        return resident["image"][batch["index"]], resident["label"][batch["index"]]
    return batch["image"], batch["label"]


def steps_per_call(wanted: int) -> int:
    """Optimiser steps in one compiled call; 0 chooses by the backend.

    On an accelerator Python time matters, so a hundred steps are one call. On the CPU
    it does not, and a convolution inside `lax.scan` runs 30 to 40 times slower there
    (12.9 s a step against 0.3 to 0.4 s; three layers of 32-64-128, batch 128, jax
    0.10.2).
    """
    if wanted:
        return wanted
    return 1 if jax.default_backend() == "cpu" else 100


class ResidentFeed:
    """Images stay on the device as uint8.

    The order of an epoch is a function of the key and the epoch, so the step alone
    says where a run stands.

    Attributes:
        steps_per_epoch: Whole batches in the data.
        resident: Images and labels on the device.
    """

    def __init__(
        self,
        arrays: datasets.Arrays,
        *,
        key: jax.Array,
        batch_size: int,
        steps_per_call: int,
    ):
        """Puts the images on the device.

        Args:
            arrays: Images and labels.
            key: PRNG key of the order of the data.
            batch_size: Examples in a step.
            steps_per_call: Largest number of steps in a batch; from 2 on, batches
                have a leading axis of steps.
        """
        self._key = key
        self._size = len(arrays)
        self._batch_size = batch_size
        self._steps_per_call = steps_per_call
        self.steps_per_epoch = self._size // batch_size
        self.resident = _on_device(arrays)

    def batches(self, step: int) -> Iterator[tuple[Batch, int]]:
        """Batches from `step` to the end of its epoch, each with its steps."""
        epoch, done = divmod(step, self.steps_per_epoch)
        order = np.asarray(
            datasets.epoch_order(self._key, epoch, self._size, self._batch_size)
        )
        for begin, end in _calls(self.steps_per_epoch, self._steps_per_call, done):
            if self._steps_per_call == 1:
                yield _of_whole({"index": order[begin]}), 1
            else:
                yield _of_whole({"index": order[begin:end]}, axis=1), end - begin

    def sample(self, count: int) -> Iterator[Batch]:
        """`count` training batches at random, always the same ones."""
        rng = np.random.default_rng(0)
        for _ in range(count):
            index = rng.integers(self._size, size=self._batch_size, dtype=np.int32)
            yield _of_whole({"index": index})

    def position(self) -> dict[str, Any]:
        """The position for a checkpoint: empty, since the step determines it."""
        return {}

    def seek(self, position: dict[str, Any]) -> None:
        """Goes on from a position."""
        del position


class StreamFeed:
    """Images are read, decoded and cropped on the host while the device works.

    Attributes:
        steps_per_epoch: Whole batches in the data.
        resident: None; nothing stays on the device.
    """

    resident = None

    def __init__(
        self,
        source: sources.Source,
        *,
        seed: int,
        batch_size: int,
        steps_per_call: int,
        image_size: int | None,
    ):
        """Opens the stream.

        Args:
            source: Examples by number.
            seed: Seed of the order of the data and of the crops.
            batch_size: Examples in a step.
            steps_per_call: Largest number of steps in a batch; from 2 on, batches
                have a leading axis of steps.
            image_size: Side of the images; None keeps their size.
        """
        self._source = source
        self._seed = seed
        self._batch_size = batch_size
        self._steps_per_call = steps_per_call
        self._image_size = image_size
        self.steps_per_epoch = len(source) // batch_size
        self._iterator = iter(self._open(seed))

    def _open(self, seed: int) -> Any:
        return streams.stream(
            self._source,
            batch_size=self._batch_size,
            train=True,
            seed=seed,
            image_size=self._image_size,
        )

    def batches(self, step: int) -> Iterator[tuple[Batch, int]]:
        """Batches from `step`, the position of the stream, to the end of its epoch."""
        done = step % self.steps_per_epoch
        for begin, end in _calls(self.steps_per_epoch, self._steps_per_call, done):
            batches = [next(self._iterator) for _ in range(begin, end)]
            if self._steps_per_call == 1:
                yield _of_parts(batches[0]), 1
            else:
                stacked = jax.tree.map(lambda *x: np.stack(x), *batches)
                yield _of_parts(stacked, axis=1), end - begin

    def sample(self, count: int) -> Iterator[Batch]:
        """`count` training batches at random, always the same ones."""
        iterator = iter(self._open(self._seed + 1))
        for _ in range(count):
            yield _of_parts(next(iterator))

    def position(self) -> dict[str, Any]:
        """The position for a checkpoint."""
        return self._iterator.get_state()

    def seek(self, position: dict[str, Any]) -> None:
        """Goes on from a position."""
        self._iterator.set_state(position)


def create(
    config: ml_collections.ConfigDict, source: sources.Source, *, key: jax.Array
) -> ResidentFeed | StreamFeed:
    """Makes the feed of training batches for a config.

    Args:
        config: Config of the run.
        source: Examples to train on.
        key: PRNG key of the order of the data.

    Returns:
        The feed, at its first step.
    """
    calls = steps_per_call(config.steps_per_call)
    if config.resident:
        assert isinstance(source, datasets.Arrays)
        return ResidentFeed(
            source, key=key, batch_size=config.batch_size, steps_per_call=calls
        )
    return StreamFeed(
        source,
        seed=config.seed,
        batch_size=config.batch_size,
        steps_per_call=calls,
        image_size=config.image_size or None,
    )


def evaluation(
    source: sources.Source, *, batch_size: int, image_size: int | None
) -> tuple[Iterator[Batch], Any]:
    """One pass over a split in batches of one shape.

    Args:
        source: Arrays, which are put on the device, or another source of examples.
        batch_size: Number of examples in a batch, over all devices.
        image_size: Side of the images; None keeps their size.

    Returns:
        The batches, and the resident data. The last batch is filled up with examples
        whose `mask` is false.

    Raises:
        RunError: If there are no examples.
    """
    if not len(source):
        raise errors.RunError("there are no examples to evaluate on.")
    devices = jax.device_count()
    batch_size = -(-min(batch_size, len(source)) // devices) * devices
    if isinstance(source, datasets.Arrays):
        return _index_batches(len(source), batch_size), _on_device(source)
    stream = streams.stream(
        source, batch_size=batch_size, train=False, image_size=image_size
    )
    return map(_of_parts, stream), None


def _index_batches(size: int, batch_size: int) -> Iterator[Batch]:
    for begin in range(0, size, batch_size):
        index = np.arange(begin, begin + batch_size, dtype=np.int32)
        mask = index < size
        yield _of_whole({"index": np.where(mask, index, 0), "mask": mask})


def _of_whole(batch: Batch, axis: int = 0) -> Batch:
    """Makes a global batch that every process has; each puts its part on its devices.

    Args:
        batch: Host arrays.
        axis: Axis of the examples.
    """
    make = jax.make_array_from_callback
    return _global(batch, lambda to, a: make(a.shape, to, a.__getitem__), axis)


def _of_parts(batch: Batch, axis: int = 0) -> Batch:
    """Makes a global batch from the parts of all processes along the example axis."""
    return _global(batch, jax.make_array_from_process_local_data, axis)


def _global(batch: Batch, make: Callable[..., jax.Array], axis: int) -> Batch:
    if not processes.several():
        return batch  # jit puts it there, at less cost
    return {name: make(_split(axis), array) for name, array in batch.items()}


@functools.cache
def _split(axis: int) -> NamedSharding:
    """Divides that axis among all devices."""
    spec = PartitionSpec(*(None,) * axis, train.DATA_AXIS)
    return NamedSharding(train.data_mesh(), spec)


def _on_device(arrays: datasets.Arrays) -> dict[str, jax.Array]:
    return train.replicate({"image": np.asarray(arrays.images), "label": arrays.labels})


def _calls(steps: int, most: int, done: int) -> Iterator[tuple[int, int]]:
    """Divides the steps of an epoch into calls, without the finished ones.

    The boundaries do not depend on where a run was interrupted. There are at most two
    sizes of calls, since every size is compiled.
    """
    bounds = np.linspace(0, steps, -(-steps // most) + 1).round().astype(int).tolist()
    for begin, end in itertools.pairwise(bounds):
        if end > done:
            yield max(begin, done), end
