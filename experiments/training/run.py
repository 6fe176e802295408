"""A config made into functions: data, network, method, compiled steps."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

import adaste_jax
from adaste_jax import optim, train
from adaste_jax.nn import linen
from experiments import errors, methods, models
from experiments.data import datasets, feeds, sources, streams
from experiments.runs import processes
from experiments.training import checks, losses, restore, seeds, tally

LN_2 = math.log(2)


class Run:
    """Everything a config says, built; nothing is compiled before it is used.

    Attributes:
        config: The config.
        splits: The data.
        feed: Source of training batches.
        num_steps: Optimiser steps in the whole run.
        method: Estimator, schedules and transformation.
        where: Which parameters are binary; None in full precision.
        forward: The network as a function; see `adaste_jax.train`.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        *,
        splits: datasets.Splits[Any] | None = None,
        initial_step: int | None = None,
    ):
        """Loads the data and builds everything.

        Args:
            config: As `configs/base.py`.
            splits: The data of this config, if loaded already.
            initial_step: Step of the checkpoint of `config.init_from` to start from,
                where that names a workdir; None is the latest.

        Raises:
            RunError: If a field of the config is out of range or names nothing.
        """
        checks.check(config)
        self.config = config
        self._initial_step = initial_step
        if splits is None:
            splits = processes.primary_first(functools.partial(load, config))
        self.splits = splits
        if splits.num_classes < 2:
            raise errors.RunError(
                f"{config.dataset} has {splits.num_classes} class, and there is "
                "nothing to tell apart: give a data set of two classes or more."
            )
        num_examples = len(self.splits.train)
        if num_examples < config.batch_size:
            raise errors.RunError(
                f"batch_size is {config.batch_size}, but there are only "
                f"{num_examples} training examples."
            )
        self.feed = feeds.create(
            config, self.splits.train, key=seeds.keys_of(config.seed).order
        )
        self.num_steps = config.num_epochs * self.feed.steps_per_epoch
        self._length = methods.Length(
            num_epochs=config.num_epochs,
            steps_per_epoch=self.feed.steps_per_epoch,
            num_examples=num_examples,
            warmup_steps=round(config.warmup_epochs * self.feed.steps_per_epoch),
        )
        self.method = methods.create(config.method, config.methods, self._length)
        self.where = None
        if self.method.estimator is not None:
            self.where = adaste_jax.kernels(exclude=tuple(config.binary_exclude))
        self._network = models.create(
            config.model,
            num_classes=self.splits.num_classes,
            **models.options_of(config),
        )
        self.forward = linen.functional(self._network)

    def init(self, seed: int | None = None) -> train.TrainState:
        """The state before the first step, of a run that starts from nothing.

        Args:
            seed: Default: that of the config.

        Raises:
            RunError: If `binary_exclude` does not fit the network.
        """
        keys = self._keys(seed)
        params, model_state = self._draw(keys.network)
        return self._state(keys, params, model_state, self.method.initial_latents)

    def warm_started(
        self, state: train.TrainState, seed: int | None = None
    ) -> train.TrainState:
        """The state before the first step, with what `config.init_from` says.

        Args:
            state: From `init`.
            seed: As there.

        Returns:
            The state with the parameters and batch-norm statistics of another run:
            its latents, where the method is the same; `state`, where none is named.

        Raises:
            RunError: If that run cannot be read, or its network has other shapes.
        """
        found = self.initial
        if found is None:
            return state
        latents = None if found.same_method else self.method.loaded_latents
        return self._state(self._keys(seed), found.params, found.model_state, latents)

    @functools.cached_property
    def initial(self) -> restore.Start | None:
        """What `config.init_from` names; None where it names nothing.

        Raises:
            RunError: If that run cannot be read, or its network has other shapes.
        """
        if not self.config.init_from:
            return None
        state = jax.eval_shape(self.init)
        drawn = jax.eval_shape(self._draw, self._keys(None).network)
        return restore.start(self, state, drawn, step=self._initial_step)

    def _keys(self, seed: int | None) -> seeds.Keys:
        return seeds.keys_of(self.config.seed if seed is None else seed)

    def _draw(self, key: jax.Array) -> tuple[Any, dict[str, Any]]:
        """Parameters and state of the network, as its layers draw them."""
        sample = self._abstract_inputs()
        inputs = jnp.zeros(sample.shape, sample.dtype)
        variables = dict(self._network.init(key, inputs, train=False))
        return variables.pop("params"), variables

    def _state(
        self,
        keys: seeds.Keys,
        params: Any,
        model_state: Any,
        latents: methods.InitialLatents | None,
    ) -> train.TrainState:
        try:
            labels = optim.labels(params, {"latent": self.where} if self.where else {})
        except ValueError as error:
            raise errors.RunError(f"config.binary_exclude: {error}") from error
        if latents is not None:
            params = seeds.replaced(keys.latents, params, labels, latents)
        state = train.TrainState.create(
            params, self.tx(self.method), key=keys.train, model_state=model_state
        )
        return train.replicate(state)

    @functools.cached_property
    def teacher(self) -> losses.Teacher | None:
        """The deployed network of `config.teacher`; None where none is named.

        Raises:
            RunError: If it cannot be read, is not finished, or knows other data.
        """
        return restore.teacher(self) if self.config.teacher else None

    @functools.cached_property
    def resident(self) -> Any:
        """What every step gets besides its batch: images, and the teacher."""
        if self.teacher is None:
            return self.feed.resident
        return {**(self.feed.resident or {}), "teacher": self.teacher.variables}

    def tx(self, method: methods.Method) -> optax.GradientTransformation:
        """The transformation of all parameters: the method's, and one for the rest."""
        tx = self._plain_tx(method)
        if self.config.skip_nonfinite:
            tx = optax.apply_if_finite(tx, self.config.skip_nonfinite)
        return tx

    def _plain_tx(self, method: methods.Method) -> optax.GradientTransformation:
        if self.where is None:
            return method.tx
        rate = methods.warmed_up(
            optax.cosine_decay_schedule(self.config.real_learning_rate, self.num_steps),
            self._length,
        )
        return optax.partition(
            {"latent": method.tx, "real": optax.adam(rate)},
            functools.partial(optim.labels, rules={"latent": self.where}),
            mask_compatible_extra_args=True,
        )

    def method_at(self, learning_rate: jax.Array) -> methods.Method:
        """The method with another learning rate, which may be traced."""
        config = self.config
        return methods.create(
            config.method, config.methods, self._length, learning_rate=learning_rate
        )

    @functools.cached_property
    def train_step(self) -> Callable[..., Any]:
        """The compiled step, or scan of steps."""
        return train.make_train_step(
            _keep_finite(self.forward) if self.config.skip_nonfinite else self.forward,
            **self.step_arguments(self.method),
            many=feeds.steps_per_call(self.config.steps_per_call) > 1,
        )

    def step_arguments(self, method: methods.Method) -> dict[str, Any]:
        """What `train.train_step` gets besides the network."""
        return {
            "tx": self.tx(method),
            "estimator": method.estimator,
            "hyperparameters": method.hyperparameters,
            "where": self.where,
            "loss": self._loss(),
            "prepare": self._prepare_to_train,
            "deployed_pass": method.deployed_pass,
            "deploy": method.deploy,
            "random_weights": method.random_weights,
        }

    def _loss(self) -> train.Loss:
        config = self.config
        hard = losses.cross_entropy(config.label_smoothing)
        if self.teacher is None:
            return hard
        return losses.distillation(
            hard, weight=config.distill_weight, temperature=config.distill_temperature
        )

    def skipped(self, state: train.TrainState) -> tuple[int, int]:
        """Updates that were not finite and were skipped: the last in a row, and all."""
        if not self.config.skip_nonfinite:
            return 0, 0
        counts = state.opt_state
        return int(counts.notfinite_count), int(counts.total_notfinite)

    def start_tally(self, state: train.TrainState) -> tally.Tally:
        """An empty tally of the metrics that the train step reports."""
        names = ["loss", "accuracy", *self.method.hyperparameters]
        if self.where is not None:
            names += ["flip_rate", "saturated", "zero_gradient"]
        return train.replicate(tally.Tally.start(state.params, self.where, names))

    def evaluate(self, state: train.TrainState, split: str) -> dict[str, float]:
        """Mean loss and metrics of the deployed network.

        Args:
            state: Latents and batch-norm statistics.
            split: "train", "validation" or "test".

        Returns:
            `loss`, in nats, and `accuracy`; of text also `bits_per_byte`. Examples with
            a label that is none of the classes (-1: unknown) are left out.

        Raises:
            RunError: If no example has a label, or the loss is not finite.
        """
        batches, resident = feeds.evaluation(
            getattr(self.splits, split),
            batch_size=self.config.eval_batch_size,
            image_size=self.config.image_size or None,
        )
        model_state = self.deployed_statistics(state)
        sums = [
            self._eval_step(state.params, model_state, batch, resident)
            for batch in batches
        ]
        total = {name: sum(float(part[name]) for part in sums) for name in sums[0]}
        count = total.pop("count")
        if not count:
            raise errors.RunError(
                f"no example of the {split} split of {self.config.dataset} has a label "
                f"from 0 to {self.splits.num_classes - 1}, so there is nothing to "
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
        if self.splits.is_text:
            found["bits_per_byte"] = found["loss"] / LN_2
        return found

    def deployed_statistics(self, state: train.TrainState) -> Any:
        """Batch-norm statistics for the deployed weights.

        Those of the state, unless the training weights are still soft: then they are
        taken anew over batches of training images, always the same ones.
        """
        model_state = state.model_state
        if self.where is None or int(state.step) >= self.method.soft_steps:
            return model_state
        if not jax.tree.leaves(model_state):
            return model_state  # no batch norm, no statistics
        for number, batch in enumerate(
            self.feed.sample(self.config.reestimate_batches)
        ):
            key = jax.random.fold_in(state.key, number)
            model_state = self._statistics_step(
                state.params, model_state, batch, key, self.feed.resident
            )
        return model_state

    @functools.cached_property
    def _eval_step(self) -> Callable[..., Any]:
        return train.make_eval_step(
            self.forward,
            where=self.where,
            deployed=self.where is not None,
            deploy=self.method.deploy,
            prepare=functools.partial(self._prepare, kind="none"),
        )

    @functools.cached_property
    def _statistics_step(self) -> Callable[..., Any]:
        return train.make_statistics_step(
            self.forward,
            where=self.where,
            deploy=self.method.deploy,
            prepare=functools.partial(self._prepare, kind=self.config.augment),
        )

    def _prepare(
        self, key: Any, batch: Any, resident: Any, *, kind: str
    ) -> tuple[jax.Array, jax.Array]:
        images, labels = feeds.images_and_labels(batch, resident)
        inputs = datasets.augment(
            key,
            images,
            kind=kind,
            mean=self.splits.mean,
            std=self.splits.std,
            max_value=self.splits.max_value,
        )
        return inputs, labels

    def _prepare_to_train(
        self, key: Any, batch: Any, resident: Any
    ) -> tuple[jax.Array, Any]:
        """Inputs and labels; with a teacher the logits that it has for them too."""
        inputs, labels = self._prepare(key, batch, resident, kind=self.config.augment)
        if self.teacher is None:
            return inputs, labels
        logits = self.teacher.logits(resident["teacher"], inputs)
        return inputs, {"label": labels, "teacher": logits}

    def _abstract_inputs(self) -> jax.ShapeDtypeStruct:
        """A batch of one input, without numbers."""
        if self.splits.mean is None:
            example = self.splits.train[0]["image"]
            return jax.ShapeDtypeStruct((1, *example.shape), example.dtype)
        if self.config.resident or not self.config.image_size:
            shape = self.splits.train[0]["image"].shape
        else:
            channels = len(self.splits.mean)
            shape = (self.config.image_size, self.config.image_size, channels)
        return jax.ShapeDtypeStruct((1, *shape), jnp.float32)

    def summary(self, state: train.TrainState) -> Any:
        """Parameters, bytes and multiply-adds; see `adaste_jax.summary`."""

        def logits(params, inputs):
            return self.forward(
                params, state.model_state, inputs, train=False, key=None
            )[0]

        where = False if self.where is None else self.where
        return adaste_jax.summary(
            logits, self.deployed(state.params), self._abstract_inputs(), where=where
        )

    def deployed(self, params: Any) -> Any:
        """The weights that are shipped; in full precision the parameters."""
        if self.where is None:
            return params
        if self.method.deploy is None:
            return adaste_jax.deploy(params, where=self.where)
        return adaste_jax.binarize(params, self.method.deploy, where=self.where)

    def weights(self, state: train.TrainState) -> Any:
        """The weights that the next step trains with: soft while they are annealed.

        Random ones are a draw; in full precision they are the parameters.
        """
        if self.method.estimator is None:
            return state.params
        values = {
            name: f(state.step) for name, f in self.method.hyperparameters.items()
        }
        if self.method.random_weights:
            values["key"] = state.key
        estimator = functools.partial(self.method.estimator, **values)
        return adaste_jax.binarize(state.params, estimator, where=self.where)

    def latents(self, state: train.TrainState) -> dict[str, np.ndarray]:
        """Binary kernels by path; empty in full precision."""
        if self.where is None:
            return {}
        flat = jax.tree_util.tree_leaves_with_path(state.params)
        chosen = jax.tree.leaves(self.where(state.params))
        return {
            jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
            for (path, leaf), is_latent in zip(flat, chosen, strict=True)
            if is_latent
        }


def _keep_finite(forward: train.Forward) -> train.Forward:
    """Drops new batch-norm statistics that are not finite, as their update is."""

    def guarded(params, model_state, inputs, *, train, key):
        outputs, new = forward(params, model_state, inputs, train=train, key=key)
        finite = jnp.array(
            [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(new)]
        )
        choose = functools.partial(jnp.where, jnp.all(finite))
        return outputs, jax.tree.map(choose, new, model_state)

    return guarded


def load(
    config: ml_collections.ConfigDict,
) -> datasets.Splits[sources.Source]:
    """The data of a config.

    Raises:
        RunError: If it cannot be had.
    """
    if config.resident or config.dataset in sources.PACKAGED:
        return datasets.load(
            config.dataset,
            data_dir=config.data_dir or None,
            cache_dir=config.cache_dir or None,
            num_train=config.num_train or None,
            num_test=config.num_test or None,
            validation=config.validation,
        )
    return streams.open_splits(
        config.dataset,
        data_dir=config.data_dir or None,
        num_train=config.num_train or None,
        num_test=config.num_test or None,
        validation=config.validation,
        image_size=config.image_size or None,
    )
