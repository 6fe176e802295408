"""The picture of the right and the wrong order of averaging, computed by the library.

`python -m experiments.studies.gallery` draws it.

AdaSTE's backward rule is not additive. The left side shows, over the latent, one weight
that gets a gradient from each half of a batch: the rule of their mean, and the mean of
their rules. The right side shows every weight of a perceptron on digits, with its batch
cut into eight parts: an additive rule would put all points on the diagonal.
"""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adaste_jax
from adaste_jax import datasets, estimators
from experiments.report import figures

HALVES = (0.5, -0.3)
PARTS = 8
BATCH = 128


def both_orders(
    rule: Callable[[jax.Array, jax.Array], jax.Array],
    latent: jax.Array,
    grads: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The gradient of a latent if gradients are averaged before the rule, and after it.

    Args:
        rule: Gives gradients at the latents, from latents and gradients at weights.
        latent: Latents.
        grads: Gradients at their weights, one for each part of the batch, with the
            parts on the first axis.

    Returns:
        The rule of the mean, which is right, and the mean of the rules.
    """
    before = rule(latent, jnp.mean(grads, axis=0))
    after = jnp.mean(jax.vmap(rule, in_axes=(None, 0))(latent, grads), axis=0)
    return before, after


def adaste(latent: jax.Array, grad: jax.Array, *, mu: float = 10.0) -> jax.Array:
    """The adaptive rule, as a function of arrays."""
    return estimators.adaste_gradient(latent, grad, mu=mu, alpha=0.01)


def gradients() -> tuple[jax.Array, jax.Array]:
    """Latents of a perceptron on digits, and the gradient of each part of a batch.

    Returns:
        Latents of shape [n], and gradients at the weights of shape [PARTS, n].
    """
    images, labels = datasets.digits()["train"]
    inputs = jnp.asarray(images[:BATCH], jnp.float32).reshape(BATCH, -1) / 16
    keys = jax.random.split(jax.random.key(0))
    glorot = jax.nn.initializers.glorot_normal()
    params = {
        "first": {"kernel": glorot(keys[0], (inputs.shape[1], 64))},
        "last": {"kernel": glorot(keys[1], (64, 10))},
    }
    weights = adaste_jax.deploy(params)

    def loss(weights, images, labels):
        hidden = jax.nn.relu(images @ weights["first"]["kernel"] / 8)
        logits = hidden @ weights["last"]["kernel"] / 8
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses)

    parts = jax.tree.map(
        lambda x: x.reshape(PARTS, -1, *x.shape[1:]),
        (inputs, jnp.asarray(labels[:BATCH])),
    )
    grads = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(weights, *parts)
    flat = lambda tree, lead: jnp.concatenate(
        [leaf.reshape(*lead, -1) for leaf in jax.tree.leaves(tree)], axis=-1
    )
    return flat(params, ()), flat(grads, (PARTS,))


def draw(path: pathlib.Path) -> float:
    """Draws both panels.

    Args:
        path: PNG to write.

    Returns:
        The relative error of the wrong order, on the right.
    """
    figure, (left, right) = figures.panels(1, 2, (9, 3.8))
    blue, red, green = (
        figures.COLOURS[name] for name in ("blue", "vermillion", "green")
    )
    latent = jnp.linspace(-8.0, 8.0, 801)
    grads = jnp.broadcast_to(jnp.asarray(HALVES)[:, None], (2, latent.size))
    before, after = both_orders(
        lambda latent, grad: adaste(latent, grad, mu=100.0), latent, grads
    )
    left.plot(latent, before, color=blue, label="rule of the mean (right)")
    left.plot(latent, after, "--", color=red, label="mean of the rules (wrong)")
    left.set(title=f"one weight, g = {HALVES[0]} and {HALVES[1]}", xlabel="latent")
    left.set_ylabel("h, what the latent gets")

    latents, parts = gradients()
    before, after = both_orders(adaste, latents, parts)
    error = float(jnp.linalg.norm(after - before) / jnp.linalg.norm(before))
    right.scatter(before, after, s=3, color=red, label="AdaSTE", rasterized=True)
    straight = both_orders(lambda latent, grad: grad, latents, parts)
    right.scatter(*straight, s=3, color=green, label="STE, additive")
    limit = float(np.quantile(np.abs(np.asarray(after)), 0.995))
    right.plot([-limit, limit], [-limit, limit], color="grey", linewidth=0.5)
    right.set(
        title=f"a network, {PARTS} parts: off by {100 * error:.0f} %",
        xlabel="h, averaged before the rule (right)",
        ylabel="h, averaged after it",
        xlim=(-limit, limit),
        ylim=(-limit, limit),
    )
    for axis in (left, right):
        axis.legend(fontsize=8, loc="lower right")
    figures.save(figure, path, dpi=90)
    return error
