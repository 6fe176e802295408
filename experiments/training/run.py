"""Turns a config into functions: its problem, its method and the compiled steps."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import adaste_jax
from adaste_jax import metrics, train
from experiments.data import datasets, feeds
from experiments.training import (
    answers,
    checks,
    features,
    losses,
    pretrained,
    restore,
    states,
    tally,
)
from experiments.training.evaluation import Evaluation
from experiments.training.problem import Problem, keys_of


class Run:
    """Everything that a config describes; nothing is compiled before it is used.

    Attributes:
        config: The config.
        problem: Data, network and loss.
        method: The training method.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        *,
        splits: datasets.Splits[Any] | None = None,
        initial_step: int | None = None,
        problem: Problem | None = None,
    ):
        """Checks the config, then loads the data and builds everything.

        Args:
            config: A config with the fields of `configs/base.py`.
            splits: The data of this config, if they are already loaded.
            initial_step: Step of the checkpoint to start from, if `config.init_from`
                names a workdir. Default: the latest.
            problem: The problem of this config, if it is already built; then the
                config is not checked.

        Raises:
            RunError: If a field of the config is out of range or names nothing.
        """
        if problem is None:
            config = checks.settled(config)
            checks.check(config)
        self.config = config
        self._initial_step = initial_step
        self.problem = problem or Problem(config, splits=splits)
        self.method = states.method_of(self.problem)
        self._evaluation = Evaluation(self.problem, self.method)

    @property
    def splits(self) -> datasets.Splits[Any]:
        """The data."""
        return self.problem.splits

    @property
    def feed(self) -> feeds.ResidentFeed | feeds.StreamFeed:
        """The source of training batches."""
        return self.problem.feed

    @property
    def num_steps(self) -> int:
        """Optimiser steps in the whole run."""
        return self.problem.num_steps

    @functools.cached_property
    def where(self) -> Callable[[Any], Any] | None:
        """Which parameters are latents; None in full precision."""
        params = jax.eval_shape(self.init).params
        return self.method.where if states.is_binary(self.method, params) else None

    def init(self, seed: int | None = None) -> train.TrainState:
        """The state before the first step, without `config.init_from`.

        Args:
            seed: Seed that replaces that of the config.

        Raises:
            RunError: If `binary_exclude` does not fit the network.
        """
        return states.start(self.problem, self.method, self._seed(seed))

    def warm_started(
        self, state: train.TrainState, seed: int | None = None
    ) -> train.TrainState:
        """The state before the first step, with `config.init_from`.

        Args:
            state: The result of `init`.
            seed: Seed that replaces that of the config.

        Returns:
            The state with the parameters and batch-norm statistics of another run (its
            latents if the method is the same); `state` if no other run is named.

        Raises:
            RunError: If the other run cannot be read, or its network has other shapes.
        """
        found = self.initial
        if found is None:
            return state
        return states.start(
            self.problem,
            self.method,
            self._seed(seed),
            params=found.params,
            model_state=found.model_state,
            latents=found.same_method,
        )

    def _seed(self, seed: int | None) -> int:
        return self.config.seed if seed is None else seed

    @functools.cached_property
    def initial(self) -> restore.Start | None:
        """The start that `config.init_from` names; None if it is empty.

        Raises:
            RunError: If that run cannot be read, or its network has other shapes.
        """
        if not self.config.init_from:
            return None
        if pretrained.is_named(self.config.init_from):
            return pretrained.start(self.problem)
        state = jax.eval_shape(self.init)
        return restore.start(self.problem, state, step=self._initial_step)

    @functools.cached_property
    def teacher(self) -> losses.Teacher | None:
        """The deployed network of `config.teacher`; None if it is empty.

        Raises:
            RunError: If the run cannot be read, is not finished, or has other data; or
                a layer of `config.distill_features` is not there, or does not fit.
        """
        if not self.config.teacher:
            return None
        found = restore.teacher(self.problem)
        if chosen := features.pairs(self.config.distill_features):
            inputs = self.problem.inputs
            drawn = jax.eval_shape(self.problem.draw, keys_of(self.config.seed).network)
            run = functools.partial(self._forward, train=True, key=None)
            here = jax.eval_shape(run, *drawn, inputs)[0]
            there = jax.eval_shape(found.outputs, found.variables, inputs)
            features.check(here, there, chosen, 2 if self.problem.is_text else 1)
        return found

    @property
    def _forward(self) -> train.Forward:
        """The network in training, with the features that are distilled."""
        forward, chosen = self.problem.forward, self.config.distill_features
        if chosen:
            layers = [pair.student for pair in features.pairs(chosen)]
            forward = features.watched(forward, layers)
        return _keep_finite(forward) if self.config.skip_nonfinite else forward

    @property
    def _measured(self) -> dict[str, Any]:
        """The loss of the steps, and what they report."""
        found: dict[str, Any] = {"loss": self.problem.loss(self.teacher)}
        if self.config.distill_features:
            found["metrics"] = {"accuracy": features.accuracy}
        return found

    @functools.cached_property
    def resident(self) -> Any:
        """The resident data of every step: examples, and the teacher."""
        if self.teacher is None:
            return self.feed.resident
        return {**(self.feed.resident or {}), "teacher": self.teacher.variables}

    @functools.cached_property
    def train_step(self) -> Callable[..., Any]:
        """The compiled step, or scan of steps."""
        return train.make_train_step(
            self._forward,
            self.method,
            **self._measured,
            prepare=self._prepare,
            many=feeds.steps_per_call(self.config.steps_per_call) > 1,
            report=self.shares_every,
        )

    @property
    def shares_every(self) -> int:
        """Shares of the latents are measured in every so many steps."""
        return max(1, min(tally.EVERY, self.problem.steps_per_epoch // tally.LEAST))

    def pure_step(self, learning_rate: jax.Array) -> Callable[..., Any]:
        """The step as a pure function, with a learning rate that may be traced."""
        return train.train_step(
            self._forward,
            states.method_of(self.problem, learning_rate=learning_rate),
            **self._measured,
            prepare=self._prepare,
        )

    def _prepare(self, key: Any, batch: Any, resident: Any) -> tuple[jax.Array, Any]:
        """Inputs and labels; with a teacher also its logits, and features."""
        kind = self.config.augment
        inputs, labels = self.problem.prepare(key, batch, resident, kind=kind)
        if self.teacher is None:
            return inputs, labels
        outputs = self.teacher.outputs(resident["teacher"], inputs)
        if not isinstance(outputs, dict):
            outputs = {features.LOGITS: outputs}
        logits = outputs.pop(features.LOGITS)
        return inputs, {"label": labels, "teacher": logits, **outputs}

    def evaluate(
        self,
        state: train.TrainState,
        split: str,
        answers: answers.Answers | None = None,
    ) -> dict[str, float]:
        """Mean loss and metrics of the deployed network; see `Evaluation`."""
        return self._evaluation(state, split, answers)

    def skipped(self, state: train.TrainState) -> tuple[int, int]:
        """Numbers of skipped updates: the last consecutive ones, and all."""
        if not self.config.skip_nonfinite:
            return 0, 0
        counts = state.opt_state
        return int(counts.notfinite_count), int(counts.total_notfinite)

    def start_tally(self, state: train.TrainState) -> tally.Tally:
        """An empty tally of the metrics that the train step reports."""
        return states.start_tally(self.method, state)

    def summary(self, state: train.TrainState) -> Any:
        """Parameters, bytes and multiply-adds; see `adaste_jax.summary`."""

        def logits(params, inputs):
            return self.problem.forward(
                params, state.model_state, inputs, train=False, key=None
            )[0]

        shipped = self.method.deploy(state.params)
        inputs = self.problem.inputs
        return adaste_jax.summary(logits, shipped, inputs, method=self.method)

    def latents(self, state: train.TrainState) -> dict[str, np.ndarray]:
        """Binary kernels by path; empty in full precision."""
        if self.where is None:
            return {}
        itself = lambda leaf, where: leaf
        chosen = metrics.by_path(itself, state.params, where=self.where)
        return {path: np.asarray(leaf) for path, leaf in chosen.items()}


def _keep_finite(forward: train.Forward) -> train.Forward:
    """Keeps the old batch-norm statistics if the new ones are not finite."""

    def guarded(params, model_state, inputs, *, train, key):
        outputs, new = forward(params, model_state, inputs, train=train, key=key)
        finite = jnp.array(
            [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(new)]
        )
        choose = functools.partial(jnp.where, jnp.all(finite))
        return outputs, jax.tree.map(choose, new, model_state)

    return guarded
