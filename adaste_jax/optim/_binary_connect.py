"""BinaryConnect's update: a scaled step, then a clip of the latents.

Courbariaux, Bengio and David, "BinaryConnect: Training Deep Neural Networks with Binary
Weights during Propagations", NeurIPS 2015, https://arxiv.org/abs/1511.00363.
"""

import math

import jax
import jax.numpy as jnp
import optax

from adaste_jax.estimators import _base as _checks
from adaste_jax.optim import _base


def binary_connect(
    learning_rate: optax.ScalarOrSchedule = 3e-3,
    *,
    inner: optax.GradientTransformation | None = None,
    glorot: bool = True,
    bound: float = 1.0,
) -> optax.GradientTransformation:
    """The update of BinaryConnect, for latents t with the direction d of `inner`.

        t <- clip(t - s learning_rate d, -bound, bound)

    In the loss the weights are `estimators.ste` or `estimators.ste_clipped`
    (BinaryNet) of the latents, or `estimators.bernoulli_hard`. Published with latents
    uniform in [-1, 1], batches of 50, the squared hinge loss, and a learning rate that
    falls from 3e-3 to 2e-6 in 500 epochs: `optax.exponential_decay(3e-3,
    transition_steps=500 * steps_per_epoch, decay_rate=2e-6 / 3e-3)`. The paper
    evaluates the stochastic form with the latents as weights, the other with signs.

    Args:
        learning_rate: A number or a schedule.
        inner: Gives the direction; default `optax.scale_by_adam()`.
        glorot: If true, s is the factor of `scale_by_glorot`; otherwise 1.
        bound: Above 0; latents are kept in [-bound, bound].

    Returns:
        A chain; its `update` needs `params`.

    Raises:
        ValueError: If `bound` is not positive, or `update` gets no `params`.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from adaste_jax import optim
        >>> tx = optim.binary_connect(0.1, inner=optax.identity(), glorot=False)
        >>> latent = jnp.array([0.95, -0.3])
        >>> update, _ = tx.update(jnp.array([-1.0, 2.0]), tx.init(latent), latent)
        >>> latent + update
        Array([ 1. , -0.5], dtype=float32)
    """
    return optax.chain(
        optax.scale_by_adam() if inner is None else inner,
        scale_by_glorot() if glorot else optax.identity(),
        optax.scale_by_learning_rate(learning_rate),
        clip_latents(bound),
    )


def clip_latents(bound: float = 1.0) -> optax.GradientTransformation:
    """Keeps latents in [-bound, bound]:  u <- clip(t + u, -bound, bound) - t.

    Place it last in a chain.

    Args:
        bound: Largest magnitude of a latent, above 0; scalar.

    Returns:
        A transformation whose `update` needs `params`.

    Raises:
        ValueError: If `bound` is not positive, or `update` gets no `params`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import optim
        >>> tx = optim.clip_latents()
        >>> latent = jnp.array([0.75, -0.5])
        >>> tx.update(jnp.array([0.5, 0.5]), tx.init(latent), latent)[0]
        Array([0.25, 0.5 ], dtype=float32)
    """
    _checks.check_scalar("bound", bound, open_interval=True)
    return _base.leafwise(
        "clip_latents",
        lambda update, latent: jnp.clip(latent + update, -bound, bound) - latent,
    )


def scale_by_glorot() -> optax.GradientTransformation:
    """Scales the update of each kernel by s = 1 / sqrt(1.5 / (fan_in + fan_out)).

    s is the inverse of the scale of a Glorot initialiser, for binary weights of
    magnitude 1. A kernel has the shape `[..., in, out]`, and both fans include the
    product of the leading axes. Leaves with fewer than two axes are not scaled.

    Returns:
        A transformation; its `update` needs `params`.

    Raises:
        ValueError: If `update` gets no `params`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import optim
        >>> tx = optim.scale_by_glorot()
        >>> kernel = jnp.ones((4, 2))  # 1.5 / (4 + 2) is 1 / 4
        >>> tx.update(kernel, tx.init(kernel), kernel)[0][0]
        Array([2., 2.], dtype=float32)
    """

    def scaled(update: jax.Array, latent: jax.Array) -> jax.Array:
        if latent.ndim < 2 or not latent.size:
            return update
        area = math.prod(latent.shape[:-2])
        fans = area * (latent.shape[-2] + latent.shape[-1])
        return update / math.sqrt(1.5 / fans)

    return _base.leafwise("scale_by_glorot", scaled)
