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
from experiments import data, errors, models

Logits = Callable[[Any, Any, jax.Array], Any]
"""`logits(params, model_state, images)`, of uint8 images [batch, ...]."""


def describe(
    config: ml_collections.ConfigDict, splits: data.Splits, *, folded: bool
) -> dict[str, Any]:
    """What has to be known to build and to feed the network, as JSON.

    Args:
        config: Of the run.
        splits: Its data.
        folded: Whether batch normalisation is folded; see `export.fold_linen`.

    Returns:
        Part of the metadata of a file.
    """
    return {
        "architecture": {
            "network": config.model,
            "num_classes": splits.num_classes,
            "options": config.model_options.to_dict(),
            "folded": folded,
        },
        "input": {
            "shape": list(splits.test.images.shape[1:]),
            "mean": splits.mean.tolist(),
            "std": splits.std.tolist(),
            "max_value": splits.max_value,
        },
        "dataset": config.dataset,
    }


def network(description: Mapping[str, Any]) -> Logits:
    """The network of a description, from raw images to logits.

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
    """
    inputs = jnp.zeros((1, *description["input"]["shape"]), jnp.float32)
    variables = export.fold_linen(
        _module(description), {"params": params, **model_state}, inputs, train=False
    )
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
    function: Callable[[np.ndarray], jax.Array], images: np.ndarray, batch_size: int
) -> np.ndarray:
    """Logits of many images, in batches of one size, the last one filled up.

    Args:
        function: From a batch of images to logits.
        images: uint8 [n, ...].
        batch_size: Images in a batch.

    Returns:
        float32 [n, classes].
    """
    found = []
    for begin in range(0, len(images), batch_size):
        batch = np.asarray(images[begin : begin + batch_size])
        missing = batch_size - len(batch)
        filled = np.pad(batch, [(0, missing)] + [(0, 0)] * (batch.ndim - 1))
        found.append(np.asarray(function(filled))[: len(batch)])
    return np.concatenate(found)


def score(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Mean cross-entropy and accuracy."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    normaliser = np.log(np.exp(shifted).sum(axis=1))
    losses = normaliser - shifted[np.arange(len(labels)), labels]
    return {
        "loss": float(losses.mean()),
        "accuracy": float((logits.argmax(axis=1) == labels).mean()),
    }
