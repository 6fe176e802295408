"""A trained network as it is shipped: described in JSON, applied to raw images.

What `export.py` writes and `predict.py` reads; neither needs the run.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import linen as nn

from adaste_jax import export
from experiments import data, data_source, errors, feeds, models

Logits = Callable[[Any, Any, jax.Array], Any]
"""`logits(params, model_state, inputs)`, of uint8 images or text [batch, ...]."""


def describe(
    config: ml_collections.ConfigDict,
    splits: data.Splits[data_source.Source],
    *,
    folded: bool,
) -> dict[str, Any]:
    """What has to be known to build and to feed the network, as JSON.

    Args:
        config: Of the run.
        splits: Its data.
        folded: Whether batch normalisation is folded; see `export.fold_linen`.

    Returns:
        Part of the metadata of a file.
    """
    size = config.image_size or None
    moments = {"mean": splits.mean, "std": splits.std}
    shape = np.shape(splits.test[0]["image"])
    if size and splits.mean is not None:
        shape = (size, size, len(splits.mean))
    return {
        "architecture": {
            "network": config.model,
            "num_classes": splits.num_classes,
            "options": models.options_of(config),
            "folded": folded,
        },
        "input": {
            "shape": list(shape),
            "image_size": size,
            **{name: None if m is None else m.tolist() for name, m in moments.items()},
            "max_value": splits.max_value,
        },
        "dataset": config.dataset,
    }


def network(description: Mapping[str, Any]) -> Logits:
    """The network of a description, from raw images or text to logits.

    Raises:
        RunError: If the description is incomplete, or names an unknown network.
    """
    module = _module(description)
    folded = description["architecture"]["folded"]
    moments = {
        name: description["input"][name] for name in ("mean", "std", "max_value")
    }

    def logits(params: Any, model_state: Any, images: jax.Array) -> Any:
        inputs = data.augment(None, images, kind="none", **moments)
        variables = {"params": params, **model_state}
        if folded:
            return export.apply_folded(module, variables, inputs, train=False)
        return module.apply(variables, inputs, train=False)

    return logits


def fold(description: Mapping[str, Any], params: Any, model_state: Any) -> Any:
    """Folds batch normalisation; see `adaste_jax.export.fold_linen`.

    Args:
        description: Of the network.
        params: Its parameters.
        model_state: Its batch-norm statistics.

    Returns:
        Parameters and model state.

    Raises:
        RunError: If there is none that can be folded.
    """
    is_text = description["input"]["mean"] is None
    inputs = jnp.zeros(
        (1, *description["input"]["shape"]), jnp.uint8 if is_text else jnp.float32
    )
    try:
        variables = export.fold_linen(
            _module(description), {"params": params, **model_state}, inputs, train=False
        )
    except ValueError as error:
        raise errors.RunError(f"cannot fold batch normalisation: {error}") from error
    return variables.pop("params"), variables


def _module(description: Mapping[str, Any]) -> nn.Module:
    try:
        description["input"]["shape"]
        architecture = description["architecture"]
        return models.create(
            architecture["network"],
            num_classes=architecture["num_classes"],
            **architecture["options"],
        )
    except (KeyError, TypeError) as error:
        raise errors.RunError(
            f"the file does not describe its network ({error!r}): it was not written "
            "by experiments.export. adaste_jax.export.load reads what is in it."
        ) from error


def all_logits(
    functions: Mapping[str, Callable[[jax.Array], jax.Array]],
    source: data_source.Source,
    *,
    batch_size: int,
    image_size: int | None = None,
    most: int = 0,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Logits of several functions on the same images, read once.

    Args:
        functions: By name; each from a batch of images to logits.
        source: Of images and labels.
        batch_size: Images in a batch.
        image_size: As in `feeds.evaluation`.
        most: How many images; 0 for all.

    Returns:
        Logits by name, float32 [n, classes], and labels [n]; of text there is an axis
        of positions after the first.
    """
    batches, resident = feeds.evaluation(
        source, batch_size=batch_size, image_size=image_size
    )
    logits: dict[str, list[np.ndarray]] = {name: [] for name in functions}
    labels: list[np.ndarray] = []
    for batch in batches:
        images, truth = feeds.images_and_labels(batch, resident)
        counts = batch["mask"]
        labels.append(np.asarray(truth)[counts])
        for name, function in functions.items():
            logits[name].append(np.asarray(function(images))[counts])
        if most and sum(map(len, labels)) >= most:
            break
    end = most or None
    return (
        {name: np.concatenate(parts)[:end] for name, parts in logits.items()},
        np.concatenate(labels)[:end],
    )


def score(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Mean cross-entropy and accuracy, of logits [..., classes] and labels [...]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normaliser = np.log(np.exp(shifted).sum(axis=-1))
    chosen = np.take_along_axis(shifted, labels[..., None], axis=-1)[..., 0]
    return {
        "loss": float((normaliser - chosen).mean()),
        "accuracy": float((logits.argmax(axis=-1) == labels).mean()),
    }
