"""The networks of the experiments: plain Flax Linen modules with float layers.

They become binary from outside, by `adaste_jax.binarize`. Where there is batch norm,
every parameter is the `kernel` of a dense layer or a convolution; transformers have
embeddings, positions and layer norms besides, which stay real. Images are [batch,
height, width, channels], text is [batch, length].
"""

import dataclasses
from typing import Any

import ml_collections
from flax import linen as nn

from experiments import errors
from experiments.models.language_model import LanguageModel
from experiments.models.mlp import MLP
from experiments.models.resnet import ResNet18
from experiments.models.vgg import VGG16, VGGSmall
from experiments.models.vit import ViT

MODELS: dict[str, type[nn.Module]] = {
    "language_model": LanguageModel,
    "mlp": MLP,
    "resnet18": ResNet18,
    "vgg16": VGG16,
    "vgg_small": VGGSmall,
    "vit": ViT,
}


def create(name: str, /, num_classes: int, **options: Any) -> nn.Module:
    """A network by its name, called as `network.apply(variables, x, train=False)`.

    Args:
        name: A key of `MODELS`.
        num_classes: Number of logits.
        **options: Other attributes of the network.

    Returns:
        The module; `init` it with a float batch, a `language_model` with integers.

    Raises:
        RunError: If the name or an option is unknown.

    Example:
        >>> create("mlp", 10, features=(64,)).features
        (64,)
    """
    if name not in MODELS:
        raise errors.RunError(
            f"there is no network {name!r}; there are {', '.join(sorted(MODELS))}."
        )
    known = {
        field.name: field.default
        for field in dataclasses.fields(MODELS[name])
        if field.name not in ("num_classes", "parent", "name")
    }
    unknown = sorted(set(options) - set(known))
    if unknown:
        listing = ", ".join(f"{option}={value!r}" for option, value in known.items())
        raise errors.RunError(
            f"the network {name!r} has no option {', '.join(map(repr, unknown))}; its "
            f"options and their defaults are {listing}."
        )
    return MODELS[name](num_classes=num_classes, **options)


def options_of(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The options for `create` that a config gives; see `configs/base.py`."""
    options = config.model_options.to_dict()
    return options if config.dtype == "float32" else options | {"dtype": config.dtype}


__all__ = [
    "MLP",
    "MODELS",
    "VGG16",
    "LanguageModel",
    "ResNet18",
    "VGGSmall",
    "ViT",
    "create",
    "options_of",
]
