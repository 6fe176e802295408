"""The loss of a config: cross-entropy, with label smoothing or with a teacher."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from adaste_jax import train


class Teacher(NamedTuple):
    """A trained network whose outputs the student learns from.

    Attributes:
        outputs: Function from `variables` and the student's inputs to logits, or to a
            dict of `logits` and `features`; see `features.watched`.
        variables: Parameters and batch-norm statistics of the teacher.
        source: The checkpoint of the variables: its `step` and `checksum`.
    """

    outputs: Callable[[Any, jax.Array], Any]
    variables: Any
    source: Mapping[str, Any] = {}


def cross_entropy(smoothing: float) -> train.Loss:
    """Cross-entropy with labels that are smoothed.

    With C classes the label y becomes the distribution
    (1 - smoothing) [class = y] + smoothing / C.

    Args:
        smoothing: Amount of smoothing, in [0, 1); 0 leaves labels unchanged.

    Returns:
        Function from logits [batch, classes] and labels int [batch] to losses [batch].

    Reference:
        Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception
        Architecture for Computer Vision", CVPR 2016, https://arxiv.org/abs/1512.00567.
    """
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        targets = jax.nn.one_hot(labels, logits.shape[-1])
        return optax.softmax_cross_entropy(
            logits, optax.smooth_labels(targets, smoothing)
        )

    return loss


def distillation(hard: train.Loss, *, weight: float, temperature: float) -> train.Loss:
    """A loss of labels mixed with the distance to a teacher's softened outputs.

    With p and q the softmax of the teacher's and of the student's logits, both divided
    by the temperature T,

        (1 - weight) hard + weight T^2 KL(p || q).

    T^2 keeps the size of the second gradient the same at every temperature.

    Args:
        hard: Loss of logits and labels.
        weight: Weight of the teacher, in [0, 1].
        temperature: The temperature T, above 0.

    Returns:
        Function from logits and a dict of `label` and `teacher` (its logits) to losses
        [batch].

    Reference:
        Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015,
        https://arxiv.org/abs/1503.02531.
    """

    def loss(logits: jax.Array, labels: Any) -> jax.Array:
        divergence = optax.losses.kl_divergence(
            jax.nn.log_softmax(logits / temperature),
            jax.nn.softmax(labels["teacher"] / temperature),
        )
        soft = temperature**2 * divergence
        return (1 - weight) * hard(logits, labels["label"]) + weight * soft

    return loss
