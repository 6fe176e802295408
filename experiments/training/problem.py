"""What a run learns: data, network and loss. The method says how."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import ml_collections

from adaste_jax import train
from experiments import errors, models
from experiments.data import datasets, feeds, sources, streams, tokens
from experiments.deployment import deployed
from experiments.runs import processes
from experiments.training import features, losses


class Keys(NamedTuple):
    """The four PRNG keys made from the seed of a run."""

    network: jax.Array
    train: jax.Array
    order: jax.Array
    latents: jax.Array


def keys_of(seed: int) -> Keys:
    """The keys of a run."""
    return Keys(*jax.random.split(jax.random.key(seed), 4))


class Problem:
    """The data, the network and the loss of a config.

    Attributes:
        config: The config.
        described: The network and its input, as JSON; see `deployed.describe`.
        num_train: Number of training examples.
        forward: The network as a function; see `adaste_jax.train`.
        draw: Function from a key to parameters and state of the network.
        steps_per_epoch: Number of whole batches in the training examples.
        num_steps: Optimiser steps in the whole run.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        *,
        splits: datasets.Splits[Any] | None = None,
        record: Mapping[str, Any] | None = None,
        functions: tuple[train.Forward, Callable[[jax.Array], Any]] | None = None,
    ):
        """Builds the network. Reads the data only if there is no `record`.

        Args:
            config: A config with the fields of `configs/base.py`, checked.
            splits: The data, if they are already loaded. Default: they are loaded when
                they are needed.
            record: The result of `record` for this config, from the workdir of its run.
            functions: A network that replaces that of the config: `forward`, and
                `draw`, from a key to parameters and model state.

        Raises:
            RunError: If the data cannot be read, or do not fit the config.
        """
        self.config = config
        if splits is not None:
            self.splits = splits
        if record is None:
            splits = self.splits
            record = {
                "network": deployed.describe(config, splits, folded=False),
                "num_train": len(splits.train),
            }
        self.described = record["network"]
        self.num_train = record["num_train"]
        self._check()
        if functions is not None:
            self.forward, self.draw = functions
        else:
            self.forward, self.draw = self._of_config()
        self.steps_per_epoch = self.num_train // config.batch_size
        self.num_steps = config.num_epochs * self.steps_per_epoch

    def record(self) -> dict[str, Any]:
        """The facts about the data that the network is built from, as JSON."""
        return {"network": self.described, "num_train": self.num_train}

    @functools.cached_property
    def splits(self) -> datasets.Splits[Any]:
        """The data, loaded when they are first needed.

        Raises:
            RunError: If the data cannot be found, downloaded or read.
        """
        return processes.primary_first(functools.partial(load, self.config))

    @functools.cached_property
    def feed(self) -> feeds.ResidentFeed | feeds.StreamFeed:
        """The source of training batches."""
        order = keys_of(self.config.seed).order
        return feeds.create(self.config, self.splits.train, key=order)

    @property
    def num_classes(self) -> int:
        """Number of classes: labels lie in 0 ... num_classes - 1."""
        return self.described["architecture"]["num_classes"]

    def _check(self) -> None:
        if self.num_classes < 2:
            raise errors.RunError(
                f"{self.config.dataset} has {self.num_classes} class, and there is "
                "nothing to learn: give a data set of two classes or more."
            )
        if self.num_train < self.config.batch_size:
            raise errors.RunError(
                f"batch_size is {self.config.batch_size}, but there are only "
                f"{self.num_train} training examples."
            )

    @functools.cached_property
    def vocabulary(self) -> tokens.Vocabulary:
        """The tokens of the text.

        Raises:
            RunError: If they cannot be read, or the network has learned from others.
        """
        found = tokens.of(self.config)
        if found.digest != self.described["input"].get("tokenizer"):
            raise errors.RunError(
                f"{self.config.tokenizer} is not the tokenizer that the network has "
                "learned with: restore it from a copy."
            )
        return found

    @property
    def is_text(self) -> bool:
        """Whether the inputs are tokens of a text."""
        found = self.described["input"]
        return found["mean"] is None and "dtype" not in found

    @property
    def inputs(self) -> jax.ShapeDtypeStruct:
        """One input of the network: shape and dtype."""
        inputs = deployed.network_input(self.described)
        if "dtype" in self.described["input"]:
            inputs = inputs.astype(self.described["input"]["dtype"])
        return jax.ShapeDtypeStruct(inputs.shape, inputs.dtype)

    def _of_config(self) -> tuple[train.Forward, Callable[[jax.Array], Any]]:
        """The network that the config names, and the function that draws parameters."""
        network = models.create(
            self.config.model,
            num_classes=self.num_classes,
            **models.options_of(self.config),
        )

        def draw(key: jax.Array) -> tuple[Any, dict[str, Any]]:
            # Without the outputs, which would be computed one operation at a time.
            variables = dict(network.lazy_init(key, self.inputs, train=False))
            return variables.pop("params"), variables

        api = self.config.flax_api
        return models.functional(network, self.inputs, flax_api=api), draw

    def loss(self, teacher: losses.Teacher | None = None) -> train.Loss:
        """The loss of the config, including that of a teacher."""
        config = self.config
        hard = losses.cross_entropy(config.label_smoothing)
        if teacher is None:
            return hard
        found = losses.distillation(
            hard,
            weight=config.distill_weight,
            temperature=config.distill_temperature,
        )
        if not config.distill_features:
            return found
        pairs = features.pairs(config.distill_features)
        return features.loss(found, pairs, weight=config.distill_feature_weight)

    def prepare(
        self, key: Any, batch: Any, resident: Any, *, kind: str
    ) -> tuple[jax.Array, jax.Array]:
        """Inputs and labels of a batch; see `adaste_jax.train.Prepare`.

        Args:
            key: PRNG key of the augmentation.
            batch: A batch of `feed`.
            resident: The resident data, the same for every step.
            kind: Kind of augmentation.
        """
        images, labels = feeds.images_and_labels(batch, resident)
        found = self.described["input"]
        moments = {name: found[name] for name in ("mean", "std", "max_value")}
        return datasets.augment(key, images, kind=kind, **moments), labels


def load(config: ml_collections.ConfigDict) -> datasets.Splits[sources.Source]:
    """Loads the data of a config.

    Raises:
        RunError: If the data cannot be found, downloaded or read.
    """
    common: dict[str, Any] = {
        "data_dir": config.data_dir or None,
        "cache_dir": config.cache_dir or None,
        "num_train": config.num_train or None,
        "num_test": config.num_test or None,
        "validation": config.validation,
    }
    if config.resident or config.dataset in sources.PACKAGED:
        return datasets.load(config.dataset, **common)
    image_size, length = config.image_size or None, config.text_length
    return streams.open_splits(
        config.dataset,
        image_size=image_size,
        length=length,
        vocabulary=tokens.of(config),
        **common,
    )
