"""CAGE: pulls latents towards what they are rounded to, after the step.

Tabesh, Safaryan, Panferov, Volkova and Alistarh, "CAGE: Curvature-Aware Gradient
Estimation for Accurate Quantization-Aware Training", MLSys 2026,
https://arxiv.org/abs/2510.18784.
"""

import jax
import jax.numpy as jnp
import optax

from adaste_jax.estimators import _base as _checks
from adaste_jax.optim import _base


def apply_cage(
    quantiser: _checks.Estimator, strength: optax.ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    """The decoupled correction of CAGE:  t <- t + u, then t <- t - s (t - Q(t)).

    s is the learning rate times the weight lambda of the correction. Place it last in a
    chain. Published with AdamW and other optimisers, for 3 and 4 bits; lambda is 0 for
    the first 80 % of the run, and then rises linearly to 10.

    Args:
        quantiser: Q, a map from the latents of one leaf to its weights. Its backward
            rule is not used.
        strength: s, in [0, 1]: a number, or a schedule of the step count.

    Returns:
        A transformation whose `update` needs `params`.

    Raises:
        ValueError: If `strength` is out of range, or `update` gets no `params`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators, optim
        >>> tx = optim.apply_cage(estimators.ste, 0.5)
        >>> latent = jnp.array([0.5, -2.0])
        >>> update, _ = tx.update(jnp.array([0.25, 0.0]), tx.init(latent), latent)
        >>> latent + update
        Array([ 0.875, -1.5  ], dtype=float32)
    """
    if not callable(strength):
        _checks.check_scalar("strength", strength, high=1.0)

    def pulled(update: jax.Array, latent: jax.Array, strength: jax.Array) -> jax.Array:
        end = latent + update
        share = jnp.asarray(strength, latent.dtype)
        return update - share * (end - quantiser(end))

    return _base.leafwise("apply_cage", pulled, strength)
