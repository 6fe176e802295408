"""Losses and metrics of outputs and labels, in training and in evaluation.

A label is a class where it is an integer and the outputs have one axis more, of at
least two classes; or where it has the shape of the outputs and the loss treats them as
logits of classes. Only then is there an accuracy. All else is for metrics of the
caller.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from adaste_jax.train import _labels

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
    """Losses and metrics, a number per label.

    Attributes:
        losses: Losses in float32 or a wider dtype.
        values: Metrics by name, [batch, ...].
        known: Which labels are a class, [batch, ...]; all if labels are not classes.
        classes: Number of classes of integer labels; None if labels are not classes.
    """

    losses: jax.Array
    values: dict[str, jax.Array]
    known: jax.Array
    classes: int | None


def measure(
    loss: _labels.Loss, metrics: Metrics | None, outputs: Any, labels: Any
) -> Measured:
    """Losses and metrics of outputs and labels.

    Args:
        loss: The loss.
        metrics: Metrics of the caller. One called `accuracy` replaces the default one.
        outputs: Outputs of the network.
        labels: Labels that `prepare` gives.

    Raises:
        ValueError: If `loss` gives one number, if labels and outputs were broadcast
            against each other, or if a metric has another shape or a reserved name.
    """
    losses = loss(outputs, labels)
    truth = _labels.truth_of(labels)
    _labels.check_losses(losses, outputs, truth)
    outputs = jax.lax.stop_gradient(outputs)  # metrics are not trained on
    classes = _labels.classes_of(outputs, truth)
    values: dict[str, jax.Array] = {}
    known = jnp.ones(losses.shape, bool)
    if classes is not None:
        known = _labels.are_one_of(classes, truth)
        values["accuracy"] = _is_largest(outputs, truth)
    elif _labels.are_distributions(loss, losses, outputs, labels):
        # A row of zeros is the one-hot form of a label that is unknown.
        known = jnp.any(truth != 0, axis=-1)
        values["accuracy"] = _is_largest(outputs, jnp.argmax(truth, axis=-1))
    values |= _of_caller(metrics, outputs, labels)
    return Measured(wide(losses), values, known, classes)


def means(measured: Measured) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The mean loss that is differentiated, and mean loss and metrics as reported.

    What is reported is NaN if an integer label is not one of the classes. The gradient
    is unchanged: whatever takes a label out of it changes how the gradients of all
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
        measured: What was measured on a batch.
        mask: [batch] or of more axes of the labels: which count; None is all.
    """
    losses = measured.losses
    counts = _like(losses, measured.known, "label")
    if mask is not None:
        counts &= _like(losses, mask.astype(bool), "mask")

    def total(name: str, value: jax.Array) -> jax.Array:
        value = _like(losses, value, name)
        if value.dtype == bool:
            return jnp.sum(value & counts)
        return jnp.sum(jnp.where(counts, value, 0.0))

    found = {"loss": total("loss", losses), "count": jnp.sum(counts)}
    for name, value in measured.values.items():
        found["correct" if name == "accuracy" else name] = total(name, value)
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
    truth = _labels.truth_of(labels)
    if _labels.classes_of(outputs, truth) is not None:
        return _is_largest(outputs, truth)
    if _labels.have_shape_of_classes(outputs, truth):
        return _is_largest(outputs, jnp.argmax(truth, axis=-1))
    raise ValueError(
        "accuracy is of at least two classes: integer labels [batch, ...] or labels "
        "of the shape of the outputs [batch, ..., classes]; got labels "
        f"{_labels.described(truth)} and outputs {_labels.described(outputs)}."
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


def wide(value: jax.Array) -> jax.Array:
    """In float32, and in float64 where it is that."""
    if jnp.issubdtype(value.dtype, jnp.floating) and value.dtype.itemsize >= 4:
        return value
    return value.astype(jnp.float32)


def _is_largest(outputs: jax.Array, truth: jax.Array) -> jax.Array:
    right = jnp.argmax(outputs, axis=-1) == truth
    # The argmax of NaN is its place.
    return right & ~jnp.isnan(jnp.max(outputs, axis=-1))


def _of_caller(
    metrics: Metrics | None, outputs: Any, labels: Any
) -> dict[str, jax.Array]:
    """Metrics of the caller.

    Raises:
        ValueError: If one has a reserved name, or is a mean already.
    """
    if metrics is None:
        return {}
    if isinstance(metrics, Mapping):
        found = {name: metric(outputs, labels) for name, metric in metrics.items()}
    else:
        given: Any = metrics(outputs, labels)
        name = getattr(metrics, "__name__", "")
        name = name if name.isidentifier() else "metric"
        found = dict(given) if isinstance(given, Mapping) else {name: given}
        check_names(found, RESERVED)
    found = {name: jnp.asarray(value) for name, value in found.items()}
    for name, value in found.items():
        if not value.ndim:
            raise ValueError(
                f"the metric {name!r} gave one number. It must give one per label, "
                "[batch, ...]; the step takes the mean."
            )
    return found


def _like(losses: jax.Array, value: jax.Array, name: str) -> jax.Array:
    """One number per loss: repeated, or the mean, over axes that are only in one.

    Raises:
        ValueError: If losses and values are not of the same labels.
    """
    if value.ndim > losses.ndim and value.size == losses.size:
        value = value.reshape(losses.shape)  # losses of a text in one row
    if value.ndim > losses.ndim:
        value = jnp.mean(wide(value), axis=tuple(range(losses.ndim, value.ndim)))
    if value.shape != losses.shape[: value.ndim]:
        raise ValueError(
            f"{name!r} must be one number per label, {list(losses.shape)} as the loss; "
            f"got {list(value.shape)}."
        )
    extra = (1,) * (losses.ndim - value.ndim)
    value = jnp.broadcast_to(value.reshape(value.shape + extra), losses.shape)
    return value if value.dtype == bool else wide(value)
