"""VISPA's update: a gradient step, then latents are normalised.

Orecchia, Hu, He, Mark, Yang, Wu and Geng, "Training Binary Neural Networks via Gaussian
Variational Inference and Low-Rank Semidefinite Programming", NeurIPS 2024,
https://openreview.net/forum?id=cIXETwTkhK.
"""

import jax
import jax.numpy as jnp
import optax

from adaste_jax import _numerics
from adaste_jax.optim import _base


def vispa(
    learning_rate: optax.ScalarOrSchedule = 0.1, *, momentum: float = 0.9
) -> optax.GradientTransformation:
    """The update of the latents t = (m, z_1, ..., z_K) of `estimators.vispa_sample`.

        a <- momentum a + (1 - momentum) g
        t <- t - learning_rate a,   then   t <- t / |t|

    with the norm over the last axis, weight by weight. The division does not change
    the sign of a weight; it sets the size of later steps. Published (1-bit weights):
    learning rate 0.1 with 5 epochs of warm-up and a cosine, 500 epochs, batches of 256,
    weight decay 5e-4, and a learned scale for each output channel.

    Args:
        learning_rate: A number or a schedule.
        momentum: Coefficient of the average.

    Returns:
        A chain; its `update` needs `params`.

    Raises:
        ValueError: If `update` gets no `params`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import optim
        >>> tx = optim.vispa(0.1, momentum=0.0)
        >>> latent = jnp.array([[0.6, 0.8]])
        >>> update, _ = tx.update(jnp.array([[0.2, 0.1]]), tx.init(latent), latent)
        >>> (latent + update).round(6)
        Array([[0.591806, 0.80608 ]], dtype=float32)
    """
    return optax.chain(
        optax.ema(momentum, debias=False),
        optax.scale_by_learning_rate(learning_rate),
        _base.leafwise("vispa", _to_norm_one),
    )


def _to_norm_one(update: jax.Array, latent: jax.Array) -> jax.Array:
    end = latent + update
    scaled = end / _numerics.power_unit(end, (-1,))
    norm = jnp.linalg.norm(scaled, axis=-1, keepdims=True)
    return scaled / jnp.where(norm == 0, jnp.ones((), norm.dtype), norm) - latent
