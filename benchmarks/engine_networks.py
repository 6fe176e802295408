"""The networks that `benchmarks.engines` gives to engines, trained on real data."""

import importlib
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from adaste_jax import export
from experiments import export as command
from experiments.data import datasets, feeds, sources
from experiments.deployment import deployed
from experiments.models import mlp
from experiments.training import loop


class Case(NamedTuple):
    """A trained network with its weights as they are shipped, and test examples."""

    name: str
    trained: str
    module: Any
    weights: Any
    state: Any
    inputs: np.ndarray  # [n, ...], as the network takes them
    labels: np.ndarray | None  # [n], or [n, length]; None where there are no classes
    folder: pathlib.Path  # for what engines write
    models: dict[bool, bytes]  # the ONNX models, fast or not, that were written so far

    @property
    def count(self) -> int:
        """Parameters and statistics."""
        return sum(leaf.size for leaf in jax.tree.leaves((self.weights, self.state)))

    @property
    def exporting(self) -> dict[str, Any]:
        """Arguments that all exporters take."""
        return {"input_shape": self.inputs.shape[1:], "input_dtype": self.inputs.dtype}


def _short(epochs: int, images: int = 0, **options: Any) -> dict[str, Any]:
    return {"num_epochs": epochs, "num_train": images, "model_options": options}


LAYER = "a dense layer"
"""A product with random signs and nothing else, for its time."""

LAYER_SIZE = 4096

NETWORKS: dict[str, tuple[str, dict[str, Any], int]] = {
    "digits": ("quickstart", {}, 0),
    "MLP, 3 x 4096": (
        "fashion_mnist_mlp",
        _short(1, 3000, features=(4096, 4096, 4096)),
        0,
    ),
    "VGG-small": (
        "cifar10_vgg_small",
        _short(2, 2000, width=64, dense=512),
        0,
    ),
    "VGG-16": (
        "cifar10_vgg16:fast",
        _short(4, 2000, width=32),
        0,
    ),
    "ResNet-18": (
        "cifar10_resnet18:fast",
        _short(2, 1300, norm_momentum=0.8),
        0,
    ),
    "ViT": ("vit_fashion_mnist", _short(2, 10000), 0),
    "language model": ("language_model", _short(1), 0),
    LAYER: ("", {}, 256),
}
"""Config or CONFIG:VARIANT, changes in it, number of test examples; 0 is all."""


def train(name: str, folder: pathlib.Path) -> tuple[pathlib.Path, str]:
    """The one-bit file of a network, trained if it is not in the folder yet."""
    place, fields, _ = NETWORKS[name]
    module, *variant = place.split(":")
    made = importlib.import_module(f"experiments.configs.{module}")
    config = made.get_config(*variant)
    for key, value in fields.items():
        if key == "model_options":
            config.model_options.update(value)
        else:
            config[key] = value
    config.validation = config.warmup_epochs = 0.0
    config.augment = "none"
    config.dtype = "float32"  # as the other engines compute, whatever the config says
    config.tensorboard = False
    config.batch_size = min(config.batch_size, 64)
    config.reestimate_batches = 10
    config.num_test = 500  # in training; engines run more
    config.eval_every_epochs = max(1, config.num_epochs)
    workdir = folder / name.replace(" ", "_").replace(",", "")
    file = workdir / "network.safetensors"
    if not file.exists():
        loop.train_and_evaluate(config.lock(), workdir)
        command.export_run(workdir, file, data=False)
    images = f"{config.num_train:,}" if config.num_train else "all"
    epochs = "an epoch" if config.num_epochs == 1 else f"{config.num_epochs} epochs"
    return file, f"{config.dataset}, {epochs} of {images} examples"


def load(name: str, folder: pathlib.Path, num_test: int | None = None) -> Case:
    """A trained network and its test examples.

    Args:
        name: One of `NETWORKS`.
        folder: Where it is trained, once.
        num_test: Test examples; 0 is all, None the number in `NETWORKS`.
    """
    most = NETWORKS[name][2] if num_test is None else num_test
    if name == LAYER:
        return _layer(folder, most or NETWORKS[name][2])
    file, trained = train(name, folder)
    loaded = export.load(file)
    described = loaded.metadata
    source = sources.source(described["dataset"], "test", None)
    batches, resident = feeds.evaluation(source, batch_size=500, image_size=None)
    moments = {key: described["input"][key] for key in ("mean", "std", "max_value")}
    prepare: Callable[[Any], Any] = lambda x: datasets.augment(
        None, x, kind="none", **moments
    )
    inputs, labels = [], []
    for batch in batches:
        images, truth = feeds.images_and_labels(batch, resident)
        inputs.append(np.asarray(prepare(images))[batch["mask"]])
        labels.append(np.asarray(truth)[batch["mask"]])
        if most and sum(map(len, labels)) >= most:
            break
    return Case(
        name,
        trained,
        deployed.module_of(described),
        loaded.params,
        loaded.model_state,
        np.concatenate(inputs)[: most or None],
        np.concatenate(labels)[: most or None],
        file.parent,
        {},
    )


def _layer(folder: pathlib.Path, examples: int) -> Case:
    rng, size = np.random.default_rng(0), LAYER_SIZE
    signs = rng.choice(np.array([-1, 1], np.float32), (size, size))
    inputs = rng.standard_normal((examples, size), np.float32)
    module = mlp.MLP(size, features=(), use_logit_norm=False)
    (folder / "layer").mkdir(parents=True, exist_ok=True)
    weights = {"head": {"kernel": signs}}
    trained = f"not trained: {size} x {size} random signs"
    return Case(LAYER, trained, module, weights, {}, inputs, None, folder / "layer", {})
