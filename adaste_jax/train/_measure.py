"""What is measured of outputs and labels, in training and in evaluation alike.

A label is a class where it is an integer and the outputs have one axis more, of at
least two classes; or where it has the shape of the outputs and the loss treats them as
logits of classes. Only then is there an accuracy. All else is for metrics of the
caller.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Loss = Callable[[jax.Array, Any], jax.Array]
"""From outputs [batch, ...] and labels to losses, one per label. Labels are an array
[batch, ...], or a dict of such arrays of which `label` is the one to predict."""

Metric = Callable[[jax.Array, Any], jax.Array]
"""From outputs and labels, as a `Loss` gets them, to one number per label."""

Metrics = Metric | Mapping[str, Metric]
"""Metrics by name; or one function, reported under its own name, or that gives a dict
of numbers per label."""

RESERVED = frozenset(
    {"loss", "correct", "count", "flip_rate", "saturated", "zero_gradient"}
)
"""Names that a step reports itself, so that no metric can have them."""


class Measured(NamedTuple):
    """Losses and metrics, all of one shape: a number per label.

    Attributes:
        losses: Of at least float32.
        values: Metrics by name; boolean, or of at least float32.
        known: Which labels are a class, or anything where labels are no classes.
        classes: How many classes integer labels have; None where labels are not that.
    """

    losses: jax.Array
    values: dict[str, jax.Array]
    known: jax.Array
    classes: int | None


def measure(loss: Loss, metrics: Metrics | None, outputs: Any, labels: Any) -> Measured:
    """Losses and metrics of outputs and labels.

    Args:
        loss: The loss.
        metrics: Those of the caller. One called `accuracy` takes the place of ours.
        outputs: Of the network.
        labels: As `prepare` gives them.

    Raises:
        ValueError: If `loss` gives one number, if labels and outputs were broadcast
            against each other, or if a metric has another shape or a reserved name.
    """
    losses = loss(outputs, labels)
    truth = _truth(labels)
    _check_losses(losses, outputs, truth)
    outputs = jax.lax.stop_gradient(outputs)  # metrics are not trained on
    classes = _classes(outputs, truth)
    values: dict[str, jax.Array] = {}
    known = jnp.ones(losses.shape, bool)
    if classes is not None:
        known = _like(losses, _is_one_of(classes, truth), "label")
        values["accuracy"] = _is_largest(outputs, truth)
    elif _is_distribution(loss, losses, outputs, labels):
        # A row of zeros is the one-hot form of a label that is unknown.
        known = _like(losses, jnp.any(truth != 0, axis=-1), "label")
        values["accuracy"] = _is_largest(outputs, jnp.argmax(truth, axis=-1))
    values |= _of_caller(metrics, outputs, labels)
    values = {name: _like(losses, value, name) for name, value in values.items()}
    return Measured(wide(losses), values, known, classes)


def means(measured: Measured) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The mean loss that is differentiated, and mean loss and metrics as reported.

    What is reported is NaN if an integer label is none of the classes. The gradient is
    left as it is: whatever takes a label out of it changes how the gradients of all
    other batches are rounded.
    """
    right = None if measured.classes is None else jnp.all(measured.known)

    def mean(value: jax.Array) -> jax.Array:
        value = jnp.mean(wide(value))
        return value if right is None else jnp.where(right, value, jnp.nan)

    report = jax.tree.map(mean, {"loss": measured.losses, **measured.values})
    return jnp.mean(measured.losses), report


def sums(measured: Measured, mask: jax.Array | None) -> dict[str, jax.Array]:
    """Sums of losses and metrics over known labels, and how many those are.

    Args:
        measured: Of a batch.
        mask: [batch] or of more axes of the labels: which count; None is all.
    """
    counts = measured.known
    if mask is not None:
        counts &= _like(measured.losses, mask.astype(bool), "mask")

    def total(value: jax.Array) -> jax.Array:
        if value.dtype == bool:
            return jnp.sum(value & counts)
        return jnp.sum(jnp.where(counts, value, 0.0))

    found = {"loss": total(measured.losses), "count": jnp.sum(counts)}
    for name, value in measured.values.items():
        found["correct" if name == "accuracy" else name] = total(value)
    return found


def accuracy(outputs: jax.Array, labels: Any) -> jax.Array:
    """Whether the largest output is that of the label: for `metrics` of a step.

    A step reports it by itself where labels are classes. Name it in `metrics` where
    labels have the shape of the outputs and the loss does not tell that they are
    classes, as with a squared hinge.

    Args:
        outputs: [batch, ..., classes], of at least two classes.
        labels: Integers [batch, ...], one-hot or soft [batch, ..., classes], or a dict
            of which `label` is that.

    Returns:
        Booleans [batch, ...]; false where an output is NaN.

    Raises:
        ValueError: If labels have another shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import train
        >>> outputs = jnp.array([[0.1, 0.9], [0.8, 0.2]])
        >>> train.accuracy(outputs, jnp.array([1, 1])).tolist()
        [True, False]
    """
    truth = _truth(labels)
    if _classes(outputs, truth) is not None:
        return _is_largest(outputs, truth)
    if _has_shape_of_classes(outputs, truth):
        return _is_largest(outputs, jnp.argmax(truth, axis=-1))
    raise ValueError(
        "accuracy is of at least two classes: integer labels [batch, ...] or labels "
        "of the shape of the outputs [batch, ..., classes]; got labels "
        f"{_described(truth)} and outputs {_described(outputs)}."
    )


def check_metrics(metrics: Metrics | None, taken: frozenset[str] = RESERVED) -> None:
    """Refuses what is no function, or has the name of something else.

    Raises:
        TypeError: If it is neither a function nor a dict of functions.
        ValueError: If a name is taken.
    """
    if metrics is None or callable(metrics):
        return
    if not isinstance(metrics, Mapping) or not all(map(callable, metrics.values())):
        raise TypeError(
            "`metrics` must be a function from (outputs, labels) to one number per "
            f"label, or a dict of such functions; got {metrics!r}."
        )
    check_names(metrics, taken)


def check_names(names: Any, taken: Any) -> None:
    """Refuses metrics under a name that the step needs.

    Raises:
        ValueError: Naming them.
    """
    clash = sorted(set(names) & set(taken))
    if clash:
        raise ValueError(
            f"`metrics` has {clash}, which the step reports itself: take other names."
        )


def check_labels(labels: Any, classes: int) -> None:
    """Refuses labels on the host that are no classes.

    Raises:
        ValueError: Naming the one that is most wrong.
    """
    if not labels.size:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ValueError(
            f"a label of the batch is {wrong}; the network has {classes} outputs, so "
            f"labels are 0 to {classes - 1}. Leave out examples without a label. If "
            "these integers are no classes, make them floats, or let `prepare` give a "
            "dict of labels that has no key 'label'."
        )


def wide(value: jax.Array) -> jax.Array:
    """In float32, and in float64 where it is that."""
    if jnp.issubdtype(value.dtype, jnp.floating) and value.dtype.itemsize >= 4:
        return value
    return value.astype(jnp.float32)


def _truth(labels: Any) -> Any:
    return labels.get("label") if isinstance(labels, Mapping) else labels


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _described(value: Any) -> str:
    if _is_array(value):
        return f"{value.dtype}{list(value.shape)}"
    return type(value).__name__


def _classes(outputs: Any, truth: Any) -> int | None:
    """How many classes integer labels have; None where they are no classes."""
    if not (_is_array(outputs) and _is_array(truth)) or not outputs.shape:
        return None
    if not jnp.issubdtype(truth.dtype, jnp.integer):
        return None
    several = outputs.shape[-1] >= 2 and outputs.ndim >= 2
    return outputs.shape[-1] if several and truth.shape == outputs.shape[:-1] else None


def _has_shape_of_classes(outputs: Any, truth: Any) -> bool:
    if not (_is_array(outputs) and _is_array(truth)):
        return False
    return truth.shape == outputs.shape and truth.ndim >= 2 and truth.shape[-1] >= 2


def _is_distribution(loss: Loss, losses: Any, outputs: Any, labels: Any) -> bool:
    """Whether labels of the shape of the outputs say how likely each class is.

    They may be targets of a regression, or many labels of yes and no, and then the
    largest of them means nothing. A loss of classes gives one number for all outputs
    of an example, and does not change when the same is added to all of them. That is
    tried on an example.
    """
    truth = _truth(labels)
    if not _has_shape_of_classes(outputs, truth) or losses.shape != truth.shape[:-1]:
        return False
    rng = np.random.default_rng(0)

    def example(leaf: Any) -> jax.Array:
        shape = (1, *leaf.shape[1:])
        if leaf is truth:
            return jnp.zeros(shape, leaf.dtype).at[..., 0].set(1)
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.asarray(rng.uniform(size=shape), leaf.dtype)
        return jnp.zeros(shape, leaf.dtype)

    with jax.ensure_compile_time_eval():
        logits = jnp.asarray(rng.normal(size=(1, *outputs.shape[1:])), jnp.float32)
        tried = jax.tree.map(example, labels)
        try:
            one, two = loss(logits, tried), loss(logits + 2.0, tried)
        except Exception:
            return False  # it cannot be tried alone, say for an axis of devices
        return bool(jnp.allclose(one, two, rtol=1e-3, atol=1e-3))


def _is_one_of(classes: int, truth: jax.Array) -> jax.Array:
    if classes > jnp.iinfo(truth.dtype).max:
        return truth >= 0
    return (truth >= 0) & (truth < classes)


def _is_largest(outputs: jax.Array, truth: jax.Array) -> jax.Array:
    right = jnp.argmax(outputs, axis=-1) == truth
    # The argmax of NaN is its place.
    return right & ~jnp.isnan(jnp.max(outputs, axis=-1))


def _of_caller(
    metrics: Metrics | None, outputs: Any, labels: Any
) -> dict[str, jax.Array]:
    if metrics is None:
        return {}
    if isinstance(metrics, Mapping):
        return {name: metric(outputs, labels) for name, metric in metrics.items()}
    found: Any = metrics(outputs, labels)
    if not isinstance(found, Mapping):
        name = getattr(metrics, "__name__", "")
        found = {name if name.isidentifier() else "metric": found}
    check_names(found, RESERVED)
    return dict(found)


def _check_losses(losses: Any, outputs: Any, truth: Any) -> None:
    """Refuses losses that are not one per label.

    Raises:
        ValueError: Saying what came.
    """
    if not jnp.ndim(losses):
        raise ValueError(
            "`loss` gave one number. It must give one loss per label, [batch, ...]: "
            "whether a number is a mean or a sum cannot be seen, and a sum would be "
            "averaged over microbatches and devices. For a summed loss multiply the "
            "losses by the batch size."
        )
    if not (_is_array(outputs) and _is_array(truth)):
        return
    shapes = outputs.shape, truth.shape
    try:
        both = np.broadcast_shapes(*shapes)
    except ValueError:
        return
    if losses.shape == both and both not in shapes:
        raise ValueError(
            f"outputs {_described(outputs)} and labels {_described(truth)} were "
            f"broadcast against each other, to losses {list(both)}: give both the same "
            "shape, in `prepare` or in `loss`."
        )


def _like(losses: jax.Array, value: Any, name: str) -> jax.Array:
    """One number per loss: repeated, or the mean, over axes that are only in one."""
    value = jnp.asarray(value)
    if value.ndim > losses.ndim:
        value = jnp.mean(wide(value), axis=tuple(range(losses.ndim, value.ndim)))
    if value.shape != losses.shape[: value.ndim] or not value.ndim:
        raise ValueError(
            f"{name!r} must be one number per label, {list(losses.shape)} as the loss; "
            f"got {list(value.shape)}."
        )
    extra = (1,) * (losses.ndim - value.ndim)
    value = jnp.broadcast_to(value.reshape(value.shape + extra), losses.shape)
    return value if value.dtype == bool else wide(value)
