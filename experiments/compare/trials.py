"""Trains networks with several seeds and learning rates at once.

It is the training of `training/loop.py` without checkpoints and curves, and with one
compiled program for all seeds and learning rates of a method.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from adaste_jax import train
from experiments import errors
from experiments.data import datasets
from experiments.training.problem import Problem, keys_of
from experiments.training.run import Run


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training."""

    seed: int
    learning_rate: float


def choose_together(wanted: int) -> int | None:
    """Number of trials in one compiled program; None is all of them.

    On an accelerator all trials run together, since small networks leave it idle. On
    the CPU they run one after the other, since `jax.vmap` makes convolutions grouped,
    which are slow there.
    Two shared cores, jax 0.10.2, seconds for an epoch of one trial, alone and under
    `jax.vmap`: perceptron 64-128-128-10 on digits 0.0037 and 0.0028 (four trials),
    784-512-512-10 on 11,500 images 0.79 and 0.88 (four), VGG of width 16 on 1,280
    images 1.5 and 10.2 (two).
    """
    if wanted:
        return wanted
    return 1 if jax.default_backend() == "cpu" else None


class Trainer:
    """Trains one method of a config.

    Attributes:
        run: Network, data and evaluation.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        method: str,
        *,
        problem_of: Callable[[ml_collections.ConfigDict], Problem] | None = None,
        together: int = 0,
    ):
        """Builds everything; compiles nothing yet.

        Args:
            config: A config with the fields of `configs/base.py`. Its `method` and
                `seed` are ignored.
            method: One of `methods.METHODS`.
            problem_of: Makes the problem of a config. Default: that of the config.
            together: Trials in one compiled program; 0 chooses automatically.

        Raises:
            RunError: If the config is out of range, or the data are streamed.
        """
        config = config.copy_and_resolve_references()
        config.method = method
        if not config.resident:
            raise errors.RunError("a comparison needs config.resident to be True.")
        self.run = Run(config, problem=problem_of(config) if problem_of else None)
        self._together = choose_together(together)
        self._compiled: dict[int, Any] = {}

    def train(
        self, trials: Sequence[Trial], *, split: str, advance: Callable[[int], None]
    ) -> Iterator[tuple[Trial, dict[str, Any]]]:
        """Trains, and evaluates the deployed network of the last epoch.

        Args:
            trials: Seeds and learning rates to train.
            split: The split to evaluate on: "validation" or "test".
            advance: Called with the number of finished epochs.

        Yields:
            A trial and its outcome as JSON: `accuracy`, `loss`, `flips_per_epoch` and
            `seconds_per_epoch` (of the fastest epoch, since other programs may slow
            down the rest), or `failure`.
        """
        size = self._together or len(trials)
        for begin in range(0, len(trials), size):
            group = trials[begin : begin + size]
            yield from zip(group, self._train(group, split, advance), strict=True)

    def bytes_per_weight(self) -> float:
        """Bytes that training keeps for a weight: latents and optimiser state."""
        state = jax.eval_shape(self.run.init)
        kept = jax.tree.leaves((state.params, state.opt_state))
        weights = jax.tree.leaves(jax.eval_shape(self.run.method.deploy, state.params))
        total = sum(leaf.size * leaf.dtype.itemsize for leaf in kept)
        return total / sum(leaf.size for leaf in weights)

    def _train(
        self, group: Sequence[Trial], split: str, advance: Callable[[int], None]
    ) -> Iterator[dict[str, Any]]:
        """Trains a group as one program; states have a leading axis, the trials."""
        run, width, epochs = self.run, len(group), self.run.config.num_epochs
        state = _on_one_device(_stack([self._start(trial) for trial in group]))
        resident = _on_one_device(run.resident)
        rates = jnp.asarray([trial.learning_rate for trial in group], jnp.float32)
        levels = self._levels(state.params)
        flips: list[np.ndarray] = []
        seconds: list[float] = []
        first_bad = np.full(width, -1)
        for epoch in range(epochs):
            order = np.stack([self._order(trial.seed, epoch) for trial in group])
            calls = [order] if self._scans else list(np.moveaxis(order, 1, 0))
            program = self._program(width, (state, calls[0], resident, rates))
            begin = time.perf_counter()
            losses = []
            for call in calls:
                state, loss = program(state, call, resident, rates)
                losses.append(loss)
            finite = np.isfinite(np.concatenate(jax.device_get(losses), axis=1))
            seconds.append((time.perf_counter() - begin) / width)
            advance(width)
            step = epoch * finite.shape[1] + np.argmin(finite, axis=1)
            first_bad = np.where((first_bad < 0) & ~finite.all(axis=1), step, first_bad)
            if (first_bad >= 0).all():
                advance(width * (epochs - epoch - 1))
                break
            before, levels = levels, self._levels(state.params)
            flips.append(np.asarray(_changed(before, levels)))
        for i, bad in enumerate(first_bad.tolist()):
            if bad >= 0:
                yield {"failure": f"the loss is not finite at step {bad}"}
                continue
            one = jax.tree.map(lambda leaf, i=i: leaf[i], state)
            try:
                found: dict[str, Any] = run.evaluate(train.replicate(one), split)
            except errors.RunError as error:
                yield {"failure": str(error)}
                continue
            if run.where is not None:
                found["flips_per_epoch"] = [float(share[i]) for share in flips]
            yield {**found, "seconds_per_epoch": min(seconds)}

    def _start(self, trial: Trial) -> Any:
        return self.run.warm_started(self.run.init(trial.seed), trial.seed)

    @functools.cached_property
    def _scans(self) -> bool:
        """Whether an epoch is one call; see `feeds.steps_per_call`."""
        kernels = jax.tree.leaves(jax.eval_shape(self.run.init).params)
        dense = all(kernel.ndim == 2 for kernel in kernels)
        return dense or jax.default_backend() != "cpu"

    def _program(self, width: int, arguments: Any) -> Callable[..., Any]:
        """An epoch, or a step, of `width` trials, compiled once."""
        if width not in self._compiled:
            function = self._epoch if self._scans else self._step
            mapped = _mapped(function, width)
            lowered = jax.jit(mapped, donate_argnums=0).lower(*arguments)
            self._compiled[width] = lowered.compile()
        return self._compiled[width]

    def _epoch(self, state, order, resident, rate):
        step = self.run.pure_step(rate)

        def one(state, index):
            state, report = step(state, {"index": index}, resident)
            return state, report["loss"]

        return jax.lax.scan(one, state, order)

    def _step(self, state, index, resident, rate):
        state, report = self.run.pure_step(rate)(state, {"index": index}, resident)
        return state, report["loss"][None]

    def _order(self, seed: int, epoch: int) -> np.ndarray:
        size, batch = len(self.run.splits.train), self.run.config.batch_size
        return np.asarray(datasets.epoch_order(keys_of(seed).order, epoch, size, batch))

    @functools.cached_property
    def _levels(self) -> Callable[[Any], jax.Array]:
        """The level of each deployed weight: [trials, weights], int8."""

        def levels(params):
            weights = jax.tree.leaves(self.run.method.deploy(params))
            signs = [jnp.sign(leaf).astype(jnp.int8).ravel() for leaf in weights]
            return jnp.concatenate(signs)

        return jax.jit(jax.vmap(levels))


def _mapped(function: Callable[..., Any], width: int) -> Callable[..., Any]:
    """Maps the function over a leading axis of all arguments but `resident`."""
    if width > 1:
        return jax.vmap(function, in_axes=(0, 0, None, 0))

    def alone(state, index, resident, rate):
        state, index, rate = jax.tree.map(lambda leaf: leaf[0], (state, index, rate))
        found = function(state, index, resident, rate)
        return jax.tree.map(lambda leaf: leaf[None], found)

    return alone


@jax.jit
def _changed(before, after):
    return jnp.mean(before != after, axis=-1)


def _stack(states: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def _on_one_device(tree: Any) -> Any:
    return jax.device_put(tree, jax.devices()[0])
