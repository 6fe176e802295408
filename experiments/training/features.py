"""Hidden features of named layers, and how far a student's are from a teacher's."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from adaste_jax import train
from experiments import errors

LOGITS, FEATURES = "logits", "features"
"""What a watched network gives."""

_EPSILON = 1e-6


class Pair(NamedTuple):
    """A layer of the student, and the layer of the teacher that it learns from."""

    student: str
    teacher: str


def pairs(names: Sequence[str]) -> list[Pair]:
    """The layers that `config.distill_features` names: "LAYER", or "STUDENT=TEACHER".

    Raises:
        RunError: If a name is of another form.
    """
    found = []
    for name in names:
        student, _, teacher = name.partition("=")
        if not student or not (teacher or "=" not in name) or "=" in teacher:
            raise errors.RunError(
                "config.distill_features must name layers as 'Block_1', or as "
                f"'STUDENT=TEACHER' where their names differ; got {name!r}."
            )
        found.append(Pair(student, teacher or student))
    return found


def watched(
    forward: train.Forward, layers: Collection[str], *, name: str = "the network"
) -> train.Forward:
    """The network with other outputs: a dict of `logits` and of `features` by layer.

    Args:
        forward: A network of Linen.
        layers: Paths of modules, as "Block_1" or "Block_1/gate". Of a module that
            returns several things, the first is taken.
        name: What the network is called in errors.

    Raises:
        RunError: When it is called, if no such module runs.
    """

    def call(
        params: Any, model_state: Any, inputs: Any, *, train: bool, key: Any
    ) -> tuple[Any, Any]:
        found, seen = {}, set()

        def keep(method: Any, given: Any, options: Any, context: Any) -> Any:
            outputs = method(*given, **options)
            path = "/".join(context.module.path)
            if path and context.method_name == "__call__":
                seen.add(path)
                if path in layers:
                    first = outputs[0] if isinstance(outputs, tuple) else outputs
                    found[path] = first
            return outputs

        with nn.intercept_methods(keep):
            logits, state = forward(params, model_state, inputs, train=train, key=key)
        if missing := sorted(set(layers) - found.keys()):
            raise errors.RunError(
                f"config.distill_features: {name} has no layer "
                f"{', '.join(map(repr, missing))}; it has "
                f"{', '.join(sorted(seen)) or 'none that can be watched'}. Layers of "
                'flax_api="nnx", and blocks that are scanned (model_options.scan="on", '
                'or "auto" on accelerators), cannot be watched.'
            )
        return {LOGITS: logits, FEATURES: found}, state

    return call


def loss(inner: train.Loss, chosen: Sequence[Pair], *, weight: float) -> train.Loss:
    """A loss of logits and labels, plus the distance of features.

        inner + weight / n sum over the n pairs of distance(student, teacher)

    Args:
        inner: Loss of logits and a dict of labels.
        chosen: The layers.
        weight: Weight of the features, at least 0.

    Returns:
        Function from the outputs of a `watched` network and a dict of labels, with
        `features` of the teacher, to losses [batch, ...].

    Reference:
        Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015,
        https://arxiv.org/abs/1412.6550.
    """

    def combined(outputs: Any, labels: Any) -> jax.Array:
        found, there = outputs[FEATURES], labels[FEATURES]
        rank = labels["label"].ndim
        distances = [
            distance(found[pair.student], there[pair.teacher], rank) for pair in chosen
        ]
        total: jax.Array = inner(outputs[LOGITS], labels)
        return total + weight * sum(distances) / len(distances)

    return combined


def accuracy(outputs: Any, labels: Any) -> jax.Array:
    """Whether the largest logit of a `watched` network is that of the label."""
    return train.accuracy(outputs[LOGITS], labels)


def distance(student: jax.Array, teacher: jax.Array, rank: int) -> jax.Array:
    """Mean squared error of normalised features.

    With h divided by its root mean square over the features, it is the mean of
    (h - h')^2 over features and over axes that labels do not have: 0 for the same
    direction, 2 for a right angle, 4 for the opposite direction. Features of another
    number are first multiplied by a fixed random matrix with orthonormal columns or
    rows, which keeps angles on average; FitNets learn it instead.

    Args:
        student: [..., features].
        teacher: The same, of any number of features.
        rank: Number of axes of labels.

    Returns:
        float32 [...], of the first `rank` axes.
    """
    if student.shape[-1] != teacher.shape[-1]:
        teacher = teacher.astype(jnp.float32) @ _projection(
            teacher.shape[-1], student.shape[-1]
        )
    error = jnp.square(_normalised(student) - _normalised(teacher))
    return jnp.mean(error, axis=tuple(range(rank, error.ndim)))


def _normalised(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + _EPSILON)


def _projection(there: int, here: int) -> np.ndarray:
    """A matrix [there, here], always the same one."""
    drawn = np.random.default_rng(0).normal(size=(max(there, here), min(there, here)))
    basis = np.linalg.qr(drawn)[0].astype(np.float32)
    return basis if there >= here else basis.T


def check(student: Any, teacher: Any, chosen: Sequence[Pair], label_rank: int) -> None:
    """Refuses features that cannot be compared, before training.

    Args:
        student: Shapes that the watched student gives.
        teacher: Shapes that the watched teacher gives.
        chosen: The layers.
        label_rank: Number of axes of labels.

    Raises:
        RunError: Naming the layers and their shapes.
    """
    for pair in chosen:
        here = student[FEATURES][pair.student].shape
        there = teacher[FEATURES][pair.teacher].shape
        if here[:-1] != there[:-1] or len(here) <= label_rank:
            raise errors.RunError(
                "config.distill_features: the layers "
                f"{pair.student} and {pair.teacher} give {list(here)} and "
                f"{list(there)}: all axes but the last must be the same."
            )
