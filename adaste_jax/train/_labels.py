"""Decides whether labels are classes, or something that only the loss knows."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Loss = Callable[[jax.Array, Any], jax.Array]
"""From outputs [batch, ...] and labels to losses, one per label. Labels are an array
[batch, ...], or a dict of such arrays of which `label` is the one to predict."""


def truth_of(labels: Any) -> Any:
    """The labels to predict, or None for a dict without a key `label`."""
    return labels.get("label") if isinstance(labels, Mapping) else labels


def classes_of(outputs: Any, truth: Any) -> int | None:
    """Number of classes of integer labels; None if they are not classes."""
    if not (_is_array(outputs) and _is_array(truth)) or not outputs.shape:
        return None
    if not jnp.issubdtype(truth.dtype, jnp.integer):
        return None
    several = outputs.shape[-1] >= 2 and outputs.ndim >= 2
    return outputs.shape[-1] if several and truth.shape == outputs.shape[:-1] else None


def are_one_of(classes: int, truth: jax.Array) -> jax.Array:
    """Which integer labels are 0 to `classes` - 1."""
    if classes > np.iinfo(np.dtype(truth.dtype)).max:
        return truth >= 0
    return (truth >= 0) & (truth < classes)


def have_shape_of_classes(outputs: Any, truth: Any) -> bool:
    """Whether labels have the shape of outputs of at least two classes."""
    if not (_is_array(outputs) and _is_array(truth)):
        return False
    several = truth.ndim >= 2 and truth.shape[-1] >= 2
    return several and bool(truth.shape == outputs.shape)


def are_distributions(loss: Loss, losses: Any, outputs: Any, labels: Any) -> bool:
    """Whether labels of the shape of the outputs say how likely each class is.

    They could also be targets of a regression, or several yes-or-no labels, and then
    the largest of them has no meaning. A classification loss gives one number for all
    outputs of an example, and does not change if a constant is added to all of them.
    This is tested on an example.
    """
    truth = truth_of(labels)
    if not have_shape_of_classes(outputs, truth) or losses.shape != truth.shape[:-1]:
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


def check_labels(labels: Any, classes: int) -> None:
    """Checks labels on the host against the number of classes.

    Raises:
        ValueError: If one is out of range. The message has the one farthest off.
    """
    if not labels.size:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ValueError(
            f"a label of the batch is {wrong}; the network has {classes} outputs, so "
            f"labels are 0 to {classes - 1}. Leave out examples without a label. If "
            "these integers are not classes, make them floats, or let `prepare` "
            "return a dict of labels without a key 'label'."
        )


def check_losses(losses: Any, outputs: Any, truth: Any) -> None:
    """Checks that there is one loss per label.

    Raises:
        ValueError: If not. The message says what came.
    """
    if not jnp.ndim(losses):
        raise ValueError(
            "`loss` gave one number. It must give one loss per label, [batch, ...], "
            "since the step cannot tell a mean from a sum, and a sum would be averaged "
            "over microbatches and devices. For a summed loss multiply the losses by "
            "the batch size."
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
            f"outputs {described(outputs)} and labels {described(truth)} were "
            f"broadcast against each other, to losses {list(both)}: give both the same "
            "shape, in `prepare` or in `loss`."
        )


def described(value: Any) -> str:
    """Dtype and shape, for a message."""
    if _is_array(value):
        return f"{value.dtype}{list(value.shape)}"
    return type(value).__name__


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")
