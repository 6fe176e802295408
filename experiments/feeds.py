"""Where the batches of training come from: the device itself, or a stream.

A feed gives (batch, number of steps) pairs from a step on, the same ones however often
a run is interrupted, and the `prepare` that turns them into inputs and labels inside
the compiled step.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from adaste_jax import train
from experiments import data


def look_up(batch: Any, resident: Any) -> tuple[jax.Array, jax.Array]:
    """Images and labels of a batch, inside a compiled step."""
    return resident["image"][batch["index"]], resident["label"][batch["index"]]


class ResidentFeed:
    """Images stay on the device as uint8; a batch is a list of their numbers.

    The order of an epoch is a function of the key and the epoch, so the step alone
    says where a run stands.

    Attributes:
        steps_per_epoch: Whole batches in the data.
        resident: Images and labels on the device.
        prepare: For `make_train_step`.
    """

    def __init__(
        self,
        arrays: data.Arrays,
        *,
        key: jax.Array,
        batch_size: int,
        steps_per_call: int,
        augment: Callable[[jax.Array, jax.Array], jax.Array],
    ):
        """Puts the images on the device.

        Args:
            arrays: Images and labels.
            key: Of the order of the data.
            batch_size: Examples in a step.
            steps_per_call: How many steps one batch holds at most; from 2 on, batches
                have a leading axis of steps.
            augment: From a key and uint8 images to inputs.
        """
        self._key = key
        self._size = len(arrays.labels)
        self._batch_size = batch_size
        self._steps_per_call = steps_per_call
        self.steps_per_epoch = self._size // batch_size
        self.resident = train.replicate(
            {"image": np.asarray(arrays.images), "label": arrays.labels}
        )

        def prepare(key, batch, resident):
            images, labels = look_up(batch, resident)
            return augment(key, images), labels

        self.prepare = prepare

    def batches(self, step: int) -> Iterator[tuple[dict[str, np.ndarray], int]]:
        """Batches from `step` to the end of its epoch, each with its steps."""
        epoch, done = divmod(step, self.steps_per_epoch)
        order = np.asarray(
            data.epoch_order(self._key, epoch, self._size, self._batch_size)
        )
        if self._steps_per_call == 1:
            for index in order[done:]:
                yield {"index": index}, 1
            return
        # The same boundaries wherever a run was interrupted, of two sizes at most.
        calls = -(-self.steps_per_epoch // self._steps_per_call)
        for chunk in np.array_split(order, calls):
            rest = chunk[max(done, 0) :]
            done -= len(chunk)
            if len(rest):
                yield {"index": rest}, len(rest)

    def sample(self, count: int) -> Iterator[dict[str, np.ndarray]]:
        """`count` batches at random, always the same ones."""
        rng = np.random.default_rng(0)
        for _ in range(count):
            index = rng.integers(self._size, size=self._batch_size, dtype=np.int32)
            yield {"index": index}

    def position(self) -> dict[str, Any]:
        """What a checkpoint keeps: nothing, since the step says it all."""
        return {}

    def seek(self, position: dict[str, Any]) -> None:
        """Goes on from a position."""
        del position
