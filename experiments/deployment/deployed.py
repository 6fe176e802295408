"""The shipped network: described in JSON, applied to raw images.

`export.py` writes it and `predict.py` reads it; neither needs the run.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import linen as nn
from scipy import special  # type: ignore[import-untyped]

from adaste_jax import export
from experiments import errors, fields, models
from experiments.data import datasets, feeds, sources, tokens
from experiments.deployment import description

Logits = Callable[[Any, Any, jax.Array], Any]
"""`logits(params, model_state, inputs)`, of uint8 images or text [batch, ...]."""


def describe(
    config: ml_collections.ConfigDict,
    splits: datasets.Splits[sources.Source],
    *,
    folded: bool,
) -> dict[str, Any]:
    """Everything that is needed to build the network and its inputs, as JSON.

    Args:
        config: Config of the run.
        splits: Data of the run.
        folded: Whether batch normalisation is folded; see `export.fold_linen`.

    Returns:
        A part of the metadata of a file.
    """
    size = config.image_size or None
    moments = {"mean": splits.mean, "std": splits.std}
    shape = np.shape(splits.test[0]["image"])
    if size and splits.mean is not None:
        shape = (size, size, len(splits.mean))
    architecture = {
        "network": config.model,
        "num_classes": splits.num_classes,
        "options": models.options_of(config),
        "folded": folded,
    }
    names = getattr(splits, "class_names", None)
    if names is not None:
        architecture["class_names"] = list(names)
    inputs = {
        "shape": list(shape),
        "image_size": size,
        **{name: _numbers(m) for name, m in moments.items()},
        "max_value": splits.max_value,
    }
    if config.tokenizer:
        inputs["tokenizer"] = tokens.of(config).digest
    return {"architecture": architecture, "input": inputs, "dataset": config.dataset}


def _numbers(moments: np.ndarray | None) -> list[float] | None:
    """Numbers in as few digits as their dtype needs, so that they are read back."""
    return None if moments is None else [float(str(number)) for number in moments]


def network(described: Mapping[str, Any]) -> Logits:
    """The network of a description, from raw images or text to logits.

    Raises:
        RunError: If the description fails `description.check`.
    """
    module = module_of(described)
    folded = described["architecture"]["folded"]
    moments = {name: described["input"][name] for name in ("mean", "std", "max_value")}

    def logits(params: Any, model_state: Any, images: jax.Array) -> Any:
        inputs = datasets.augment(None, images, kind="none", **moments)
        variables = {"params": params, **model_state}
        if folded:
            return export.apply_folded(module, variables, inputs, train=False)
        return module.apply(variables, inputs, train=False)

    return logits


def onnx_network(model: bytes) -> Callable[[jax.Array], np.ndarray]:
    """An ONNX model in ONNX Runtime, from raw images or text to logits.

    Raises:
        RunError: If ONNX Runtime is missing, or too old for the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise errors.RunError(
            'the ONNX model is written; to compare it, pip install "adaste_jax[onnx]"'
        ) from error
    try:
        session = onnxruntime.InferenceSession(
            model, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise errors.RunError(
            f"onnxruntime {onnxruntime.__version__} does not run the ONNX model, which "
            f"is written. It needs onnxruntime 1.24 or newer: {error}"
        ) from error
    return lambda images: session.run(None, {"input": np.asarray(images)})[0]


def fold(described: Mapping[str, Any], params: Any, model_state: Any) -> Any:
    """Folds batch normalisation; see `adaste_jax.export.fold_linen`.

    Args:
        described: Description of the network, from `describe`.
        params: Parameters of the network.
        model_state: Batch-norm statistics of the network.

    Returns:
        Parameters and model state.

    Raises:
        RunError: If the network has no batch normalisation that can be folded.
    """
    try:
        variables = export.fold_linen(
            module_of(described),
            {"params": params, **model_state},
            network_input(described),
            train=False,
        )
    except ValueError as error:
        raise errors.RunError(f"cannot fold batch norm: {error}") from error
    return variables.pop("params"), variables


def module_of(described: Mapping[str, Any]) -> nn.Module:
    """The module of a description, which is checked first.

    Raises:
        RunError: If the description fails `description.check`.
    """
    description.check(described)
    architecture = described["architecture"]
    return models.create(
        architecture["network"],
        num_classes=architecture["num_classes"],
        **architecture["options"],
    )


def raw_input(described: Mapping[str, Any]) -> jax.ShapeDtypeStruct:
    """Shape and dtype of one raw input."""
    shape, is_text = described["input"]["shape"], described["input"]["mean"] is None
    size = described["architecture"]["num_classes"]
    kind = tokens.dtype(size) if is_text else jnp.uint8
    return jax.ShapeDtypeStruct((1, *shape), kind)


def network_input(described: Mapping[str, Any]) -> jax.Array:
    """One input of the network itself."""
    raw = raw_input(described)
    is_text = described["input"]["mean"] is None
    return jnp.zeros(raw.shape, raw.dtype if is_text else jnp.float32)


def all_logits(
    functions: Mapping[str, Callable[[jax.Array], jax.Array]],
    source: sources.Source,
    *,
    batch_size: int,
    image_size: int | None = None,
    most: int = 0,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Logits of several functions on the same images, which are read once.

    Args:
        functions: Functions from a batch of images to logits, by name.
        source: Images and labels.
        batch_size: Number of images in a batch.
        image_size: Side of the images; None keeps their size.
        most: Number of images; 0 takes all.

    Returns:
        Logits by name, float32 [n, classes], and labels [n]; for text with an axis of
        positions after the first.
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


def check_count(name: str, value: int, *, least: int) -> None:
    """Checks that a number of examples is a whole number of at least `least`.

    Args:
        name: Name of the argument, for the message.
        value: The number.
        least: The smallest allowed number.

    Raises:
        RunError: If it is not.
    """
    fields.check({name: value}, {name: fields.whole(least)}, prefix="")


def labelled(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Which labels belong to a class: bool, of the shape of `labels`."""
    return (labels >= 0) & (labels < num_classes)


def probabilities(logits: Any) -> np.ndarray:
    """Softmax over the last axis, in float64.

    Args:
        logits: [batch, classes].

    Raises:
        RunError: If there is an output for each of several places, as of text, or a
            logit is not finite.
    """
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 2:
        raise errors.RunError(
            f"the network gives logits of shape {list(logits.shape)}, not [1, classes]."
        )
    _refuse_nonfinite(logits)
    return special.softmax(logits, axis=-1)


def score(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Mean cross-entropy and accuracy, summed in float64.

    Labels outside of [0, classes), which mark examples without a class, are left out.

    Args:
        logits: Logits [..., classes].
        labels: Integers [...].

    Returns:
        `loss` and `accuracy`.

    Raises:
        RunError: If there is only one class, no label belongs to a class, or a logit is
            not finite, so that no result would be meaningful.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.ndim < 1 or labels.shape != logits.shape[:-1]:
        raise errors.RunError(
            f"logits of shape {logits.shape} need labels of shape {logits.shape[:-1]}, "
            f"got {labels.shape}."
        )
    if logits.shape[-1] < 2:
        raise errors.RunError(
            "the network has one logit, so there are no classes to choose from and no "
            "accuracy."
        )
    _refuse_nonfinite(logits)
    known = labelled(labels, logits.shape[-1])
    if not known.any():
        raise errors.RunError(
            f"none of {labels.size} labels lies in 0 ... {logits.shape[-1] - 1}: there "
            "is nothing to evaluate."
        )
    logits, labels = logits[known].astype(np.float64), labels[known].astype(np.int64)
    logs = special.log_softmax(logits, axis=-1)
    chosen = np.take_along_axis(logs, labels[..., None], axis=-1)
    return {
        "loss": float(-chosen.mean()),
        "accuracy": float((logits.argmax(axis=-1) == labels).mean()),
    }


def _refuse_nonfinite(logits: np.ndarray) -> None:
    bad = ~np.isfinite(logits).all(axis=-1)
    if bad.any():
        raise errors.RunError(
            f"the network gives NaN or infinity for {bad.sum()} of {bad.size} inputs: "
            "its weights or its batch norm are damaged."
        )
