"""Evaluates the network that a method would ship."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from adaste_jax import methods, train
from experiments import errors
from experiments.data import feeds, tokens
from experiments.training.answers import Answers
from experiments.training.problem import Problem

LN_2 = math.log(2)


class Evaluation:
    """Evaluates the network that is shipped; compiled once."""

    def __init__(self, problem: Problem, method: methods.Method):
        """Compiles nothing yet.

        Args:
            problem: The problem.
            method: The training method of its network.
        """
        self._problem, self._method = problem, method
        prepare = functools.partial(problem.prepare, kind="none")
        self._prepare = prepare
        self._step = train.make_eval_step(problem.forward, method, prepare=prepare)
        varied = functools.partial(problem.prepare, kind=problem.config.augment)
        self._update = train.make_statistics_step(
            problem.forward, method, prepare=varied
        )

    def __call__(
        self, state: train.TrainState, split: str, answers: Answers | None = None
    ) -> dict[str, float]:
        """Mean loss and metrics of the deployed network.

        Args:
            state: Latents and batch-norm statistics.
            split: `"train"`, `"validation"` or `"test"`.
            answers: Also collects the answers to every example.

        Returns:
            `loss`, in nats, and `accuracy`; for text also `bits_per_byte`, of bytes
            and not of tokens. Examples with a label that is not one of the classes (-1:
            unknown) are left out.

        Raises:
            RunError: If no example has a label, or the loss is not finite.
        """
        config, splits = self._problem.config, self._problem.splits
        examples = getattr(splits, split)
        batches, resident = feeds.evaluation(
            examples,
            batch_size=config.eval_batch_size,
            image_size=config.image_size or None,
        )
        model_state = self.statistics(state)
        sums = []
        for batch in batches:
            given = state.params, model_state, batch, resident
            sums.append(self._step(*given))
            if answers is not None:
                answers.add(batch, *self._answer(*given))
        total = {name: sum(float(part[name]) for part in sums) for name in sums[0]}
        count = total.pop("count")
        if not count:
            raise errors.RunError(
                f"no example of the {split} split of {config.dataset} has a label "
                f"from 0 to {splits.num_classes - 1}, so there is nothing to "
                "evaluate: use a data set whose labels are known."
            )
        found = {name: value / count for name, value in total.items()}
        if "correct" in found:
            found["accuracy"] = found.pop("correct")
        if not math.isfinite(found["loss"]):
            raise errors.RunError(
                f"the loss on the {split} split is {found['loss']} at step "
                f"{int(state.step)}: the network gives numbers that are not finite. "
                "Lower the learning rate or change the method, in a new --workdir."
            )
        if self._problem.is_text:
            found["bits_per_byte"] = (
                found["loss"] / LN_2 / tokens.bytes_per_token(examples)
            )
        return found

    @functools.cached_property
    def _answer(self) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
        """Labels, chosen classes and their softmax, [n]; whole in every process."""

        def answer(params, model_state, batch, resident):
            inputs, labels = self._prepare(None, batch, resident)
            weights = self._method.deploy(params)
            logits, _ = self._problem.forward(
                weights, model_state, inputs, train=False, key=None
            )
            shares = jax.nn.softmax(logits.astype(jnp.float32))
            return labels, jnp.argmax(logits, axis=-1), jnp.max(shares, axis=-1)

        whole = NamedSharding(train.data_mesh(), PartitionSpec())
        return jax.jit(answer, out_shardings=whole)

    def statistics(self, state: train.TrainState) -> Any:
        """Batch-norm statistics for the deployed weights.

        They are those of the state, unless the training weights are still soft. Then
        they are re-estimated on batches of training examples, always the same ones.
        """
        model_state = state.model_state
        if int(state.step) >= self._method.statistics_from:
            return model_state
        if not jax.tree.leaves(model_state):
            return model_state  # no batch norm, no statistics
        feed = self._problem.feed
        count = self._problem.config.reestimate_batches
        for number, batch in enumerate(feed.sample(count)):
            key = jax.random.fold_in(state.key, number)
            model_state = self._update(
                state.params, model_state, batch, key, feed.resident
            )
        return model_state
