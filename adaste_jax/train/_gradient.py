"""The gradient of the mean loss at the weights, of one batch or of microbatches.

This file knows nothing of latents or devices. It gets binarised weights and returns the
averaged gradient, so that the backward rule is applied to the gradient of the whole
batch.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from adaste_jax import _paths
from adaste_jax.train import _measure, _placement

Measure = Callable[[Any, Any], _measure.Measured]
"""`_measure.measure` with loss and metrics bound: from outputs and labels."""


class Forward(Protocol):
    """A network as a function."""

    def __call__(
        self, params: Any, model_state: Any, inputs: Any, *, train: bool, key: Any
    ) -> tuple[jax.Array, Any]:
        """Returns outputs and the new model state."""


def check_forward(forward: Forward) -> None:
    """Checks that a network can be called as a `Forward`.

    Raises:
        TypeError: If it cannot. The message says what is expected, and how to make such
            a function from a Flax module.
    """
    try:
        inspect.signature(forward).bind(None, None, None, train=True, key=None)
    except TypeError as error:
        raise TypeError(
            "`forward` is called as forward(params, model_state, inputs, *, train, "
            f"key), got a {type(forward).__qualname__}: {error}. `functional` of "
            "adaste_jax.nn.linen and of adaste_jax.nn.nnx makes such a function of a "
            "module of Flax."
        ) from error
    except ValueError:
        pass  # written in C, without a signature


class Found(NamedTuple):
    """The results of a forward and backward pass.

    Attributes:
        grads: Gradient of the mean loss at the weights.
        report: Mean loss, as `loss`, and means of the metrics, by name.
        model_state: The new model state.
    """

    grads: Any
    report: dict[str, jax.Array]
    model_state: Any


Pass = Callable[..., Found]
"""`(weights, deployed, model_state, inputs, labels, key) -> Found`. `deployed` are the
weights of a second forward pass whose loss and model state are kept, or None."""


def make_pass(
    forward: Forward,
    measure: Measure,
    *,
    microbatches: int,
    statistics: _placement.Statistics,
    loss_scale: float,
    unroll: bool,
    reduce_loss: Callable[[jax.Array], jax.Array] = lambda loss: loss,
    reduce_grads: Callable[[Any], Any] = lambda grads: grads,
    vary: Callable[[Any], Any] = lambda tree: tree,
) -> Pass:
    """Makes a pass over the part of a batch that one program sees.

    Args:
        forward: The network.
        measure: Losses and metrics, one per label.
        microbatches: Number of parts of the batch. Part i has the examples
            i, i + microbatches, ..., so that parts of a split batch stay split.
        statistics: Whether each part may normalise by its own statistics.
        loss_scale: Factor of the loss; the gradient is divided by it.
        unroll: Whether to unroll the microbatches, for backends with slow loops.
        reduce_loss: Changes the loss of a microbatch before it is differentiated.
        reduce_grads: Changes the gradients of a microbatch before they are added up.
        vary: Marks zeros as varying by device, if JAX tracks that.

    Returns:
        The pass.
    """

    def objective(
        weights: Any, model_state: Any, inputs: Any, labels: Any, key: Any
    ) -> tuple[jax.Array, Any]:
        outputs, new_state = forward(weights, model_state, inputs, train=True, key=key)
        value, report = _measure.means(measure(outputs, labels))
        return loss_scale * reduce_loss(value), (report, new_state)

    def one(weights: Any, deployed: Any, model_state: Any, *rest: Any) -> Found:
        differentiate = jax.grad(objective, has_aux=True)
        grads, (report, new_state) = differentiate(weights, model_state, *rest)
        if loss_scale != 1:
            grads = jax.tree.map(lambda grad: grad / loss_scale, grads)
        if deployed is not None:
            _, (report, new_state) = objective(deployed, new_state, *rest)
        return Found(reduce_grads(grads), report, new_state)

    def all_of_them(weights: Any, deployed: Any, model_state: Any, *rest: Any) -> Found:
        *examples, key = rest
        parts = jax.tree.map(lambda leaf: _cut(leaf, microbatches), examples)

        def add(carry: Any, number_and_part: Any) -> tuple[Any, None]:
            sums, model_state = carry
            number, part = number_and_part
            part_key = jax.random.fold_in(key, number)
            found = one(weights, deployed, model_state, *part, part_key)
            if statistics == "global":
                _refuse_changes(model_state, found.model_state)
            new = (found.grads, found.report)
            sums = jax.tree.map(lambda s, n: s + n.astype(s.dtype), sums, new)
            return (sums, found.model_state), None

        first = jax.tree.map(lambda leaf: leaf[0], parts)
        shapes = jax.eval_shape(one, weights, deployed, model_state, *first, key)
        sums = vary(jax.tree.map(_zeros, (shapes.grads, shapes.report)))
        carry = (sums, model_state)
        if unroll:
            for number in range(microbatches):
                part = jax.tree.map(lambda leaf: leaf[number], parts)  # noqa: B023
                carry, _ = add(carry, (number, part))
        else:
            carry, _ = jax.lax.scan(add, carry, (jnp.arange(microbatches), parts))
        sums, model_state = carry
        grads, report = jax.tree.map(lambda s: s / microbatches, sums)
        grads = jax.tree.map(lambda g, w: g.astype(w.dtype), grads, shapes.grads)
        return Found(grads, report, model_state)

    return one if microbatches == 1 else all_of_them


def _cut(leaf: jax.Array, parts: int) -> jax.Array:
    """[batch, ...] to [parts, batch / parts, ...]; every device cuts its own part."""
    return jnp.moveaxis(leaf.reshape(-1, parts, *leaf.shape[1:]), 1, 0)


def _zeros(like: jax.ShapeDtypeStruct) -> jax.Array:
    """Zeros to add to, in at least float32."""
    wide = like.dtype.itemsize >= 4
    return jnp.zeros(like.shape, like.dtype if wide else jnp.float32)


def _refuse_changes(before: Any, after: Any) -> None:
    """Checks that no statistics of microbatches replace those of the batch.

    Raises:
        ValueError: If the network has changed its state.
    """
    changed = [
        path
        for (path, new), old in zip(
            _paths.named(after), jax.tree.leaves(before), strict=True
        )
        if new is not old
    ]
    if changed:
        raise ValueError(
            f"in training the network changes its state ({', '.join(changed[:4])}), as "
            "batch norm does: in microbatches it would normalise by the statistics of "
            "each, which are not those of the batch. Pass "
            '`batch_statistics="local"` if that is meant.'
        )
