"""The networks of the experiments: plain modules of Flax with float layers.

Each is written once and is there in both APIs of Flax: `create` gives the Linen module,
`create_nnx` the NNX module. Parameters have the same paths and shapes in both.

A method makes them binary from outside. Where there is batch norm, every parameter is
the `kernel` of a dense layer or a convolution; transformers have embeddings, positions
and layer norms besides, which stay real. Images are [batch, height, width, channels],
text is [batch, length].
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import ml_collections
from flax import nnx

from adaste_jax import train
from adaste_jax.nn import linen
from experiments import errors, fields
from experiments.models import decoder, nnx_network
from experiments.models.decoder import Decoder
from experiments.models.language_model import LanguageModel
from experiments.models.layers import Network
from experiments.models.mlp import MLP
from experiments.models.resnet import STEMS, ResNet18
from experiments.models.vgg import VGG16, VGGSmall
from experiments.models.vit import ViT

MODELS: dict[str, Callable[..., Network]] = {
    "decoder": Decoder,
    "language_model": LanguageModel,
    "mlp": MLP,
    "resnet18": ResNet18,
    "vgg16": VGG16,
    "vgg_small": VGGSmall,
    "vit": ViT,
}


DTYPES = ("float32", "bfloat16")
"""Of the activations."""

FLAX_APIS = ("linen", "nnx")
"""The APIs of Flax that a network can be run in."""

TEXT = ("decoder", "language_model")
"""Networks that read text; the others read images."""


class _Dtype:
    """None, or a dtype of `DTYPES` by its name or itself."""

    def refusal(self, value: Any) -> str | None:
        """See `fields.Kind`."""
        try:
            right = value is None or jnp.dtype(value).name in DTYPES
        except TypeError:
            right = False
        listed = ", ".join(DTYPES)
        return None if right else f" must be one of {listed}, got {value!r}."


# The limits are far above what a network for the data sets here needs: they stop a file
# of a stranger from asking for more memory than there is.
_WIDTH = fields.whole(1, 2**16)
_COUNT = fields.whole(1, 1024)
_ALL: dict[str, fields.Kind] = {"use_logit_norm": fields.Flag(), "dtype": _Dtype()}
_MOMENTUM: dict[str, fields.Kind] = {"norm_momentum": fields.Number(0, 1, below=True)}
_STAGES = fields.Several(fields.whole(0, 1024))

OPTIONS: dict[str, dict[str, fields.Kind]] = {
    "decoder": {
        "width": _WIDTH,
        "depth": _COUNT,
        "heads": _COUNT,
        "kv_heads": fields.whole(0, 1024),
        "head_dim": fields.whole(0, 1024),
        "hidden": fields.whole(0, 2**18),
        "activation": fields.Choice(decoder.ACTIVATIONS, "activation"),
        "qk_norm": fields.Flag(),
        "sub_norm": fields.Flag(),
        "tied": fields.Flag(),
        "rope_theta": fields.Number(1, 1e9),
        "norm_eps": fields.Number(0, 1, above=True),
        "int8_inputs": fields.Several(fields.Choice(decoder.PRODUCTS, "product")),
        "int8_group": fields.whole(0, 2**16),
        "scan": fields.Choice(decoder.SCANS),
        "dtype": _Dtype(),
    },
    "language_model": {"width": _WIDTH, "depth": _COUNT, "heads": _COUNT, **_ALL},
    "mlp": {"features": fields.Several(_WIDTH), **_MOMENTUM, **_ALL},
    "resnet18": {
        "width": _WIDTH,
        "blocks": _STAGES,
        "stem": fields.Choice(STEMS, "stem"),
        **_MOMENTUM,
        **_ALL,
    },
    "vgg16": {"width": _WIDTH, "convolutions": _STAGES, **_MOMENTUM, **_ALL},
    "vgg_small": {"width": _WIDTH, "dense": _WIDTH, **_MOMENTUM, **_ALL},
    "vit": {
        "patch": _COUNT,
        "width": _WIDTH,
        "depth": _COUNT,
        "heads": _COUNT,
        **_ALL,
    },
}
"""The options of each network, and what each may be."""


def create(name: str, /, num_classes: int, **options: Any) -> Network:
    """A Linen network, called as `network.apply(variables, x, train=False)`.

    Args:
        name: A key of `MODELS`.
        num_classes: Number of logits.
        **options: Other attributes of the network.

    Returns:
        The module; `init` it with a float batch, a `language_model` with integers.

    Raises:
        RunError: If the name or an option is unknown, or an option is out of range.

    Example:
        >>> create("mlp", 10, features=(64,)).features
        (64,)
    """
    check(name, options, prefix="")
    return MODELS[name](num_classes=num_classes, **options)


def create_nnx(
    name: str, /, num_classes: int, inputs: Any, *, rngs: nnx.Rngs, **options: Any
) -> nnx.Module:
    """An NNX network, called as `network(x)`, in training mode at first.

    Args:
        name: A key of `MODELS`.
        num_classes: Number of logits.
        inputs: An example of the inputs, or its shape and dtype: images are floats, a
            `language_model` takes integers.
        rngs: Draws the parameters from the stream `params`.
        **options: Other attributes of the network.

    Returns:
        The module. Its parameters are drawn in another order than those of Linen.

    Raises:
        RunError: If the name or an option is unknown, or an option is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> images = jnp.ones((2, 8, 8, 1))
        >>> network = create_nnx("mlp", 10, images, rngs=nnx.Rngs(0), features=(64,))
        >>> network(images).shape, network.Dense_0.kernel.shape
        ((2, 10), (64, 64))
    """
    return nnx_network.build(create(name, num_classes, **options), inputs, rngs=rngs)


def functional(network: Network, inputs: Any, *, flax_api: str) -> train.Forward:
    """A network as a function of the variables of its Linen module.

    Args:
        network: From `create`.
        inputs: An example of the inputs, or its shape and dtype.
        flax_api: Which module runs, one of `FLAX_APIS`. Parameters and state are the
            same trees for both, so that checkpoints and files are too.
    """
    if flax_api == "linen":
        return linen.functional(network)
    return nnx_network.functional(network, inputs)


def check(name: Any, options: Mapping[str, Any], *, prefix: str = "config.") -> None:
    """Refuses a network that cannot be built, before anything is built.

    Args:
        name: Must be a key of `MODELS`.
        options: Must be some of the options of this network, each in its range.
        prefix: Goes before `model` and `model_options` in the message.

    Raises:
        RunError: Naming the field, what it must be, and its value.
    """
    fields.check(
        {"model": name}, {"model": fields.Choice(MODELS, "network")}, prefix=prefix
    )
    kinds = OPTIONS[name]
    unknown = sorted(set(options) - set(kinds))
    if unknown:
        defaults = (f"{one}={getattr(MODELS[name], one)!r}" for one in kinds)
        place = f"{prefix}model_options: " if prefix else ""
        raise errors.RunError(
            f"{place}the network {name!r} has no option "
            f"{', '.join(map(repr, unknown))}{fields.guess(unknown[0], kinds)}; its "
            f"options and their defaults are {', '.join(defaults)}."
        )
    fields.check(options, kinds, prefix=f"{prefix}model_options.")
    if "heads" in kinds:
        _check_heads(MODELS[name], options, f"{prefix}model_options.")


def _check_heads(
    network: Callable[..., Network], options: Mapping[str, Any], prefix: str
) -> None:
    """Refuses heads that do not divide what they must."""
    width, heads, kv_heads, head_dim = (
        options.get(one, getattr(network, one, 0))
        for one in ("width", "heads", "kv_heads", "head_dim")
    )
    if width % heads and not head_dim:
        raise errors.RunError(
            f"{prefix}width must be a multiple of heads, got {width} and {heads}."
        )
    if kv_heads and heads % kv_heads:
        raise errors.RunError(
            f"{prefix}kv_heads must divide heads, got {kv_heads} and {heads}."
        )
    if network is Decoder and (head_dim or width // heads) % 2:
        raise errors.RunError(
            f"{prefix}head_dim must be even, for the rotary positions; got "
            f"{head_dim or width // heads}"
            + ("." if head_dim else f", which is width / heads = {width} / {heads}.")
        )


def options_of(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The options for `create` that a config gives; see `configs/base.py`."""
    given = config.model_options.to_dict()
    # Configs in files have lists, and modules that are hashed need tuples.
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return options if config.dtype == "float32" else options | {"dtype": config.dtype}


__all__ = [
    "DTYPES",
    "FLAX_APIS",
    "MLP",
    "MODELS",
    "OPTIONS",
    "TEXT",
    "VGG16",
    "Decoder",
    "LanguageModel",
    "Network",
    "ResNet18",
    "VGGSmall",
    "ViT",
    "check",
    "create",
    "create_nnx",
    "functional",
    "options_of",
]
