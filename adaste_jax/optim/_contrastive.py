"""The contrastive rules of hard tanh and of any squashing function, as transformations.

The mathematics and the papers are in `adaste_jax.estimators`.
"""

import optax

from adaste_jax import estimators
from adaste_jax.estimators import _base as _checks
from adaste_jax.estimators import _fenbp
from adaste_jax.optim import _base


def scale_by_hardtanh_adaste() -> optax.GradientTransformation:
    """Turns updates at the weights into updates at the latents.

    It applies `estimators.hardtanh_adaste_gradient` to a gradient that is already
    averaged. In the loss use the weights
    `estimators.hardtanh_adaste(..., straight_through=True)`.

    Returns:
        A transformation whose `update` needs `params`.

    Raises:
        ValueError: If `update` gets no `params`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import optim
        >>> tx = optim.scale_by_hardtanh_adaste()
        >>> latent, grad = jnp.array([0.5, 3.0, -3.0]), jnp.ones(3)
        >>> tx.update(grad, tx.init(latent), latent)[0]
        Array([1. , 0.5, 0. ], dtype=float32)
    """
    return _base.leafwise(
        "scale_by_hardtanh_adaste",
        lambda update, latent: estimators.hardtanh_adaste_gradient(latent, update),
    )


def scale_by_fenbp(
    beta: optax.ScalarOrSchedule, *, squash: _fenbp.Squash | str = "tanh"
) -> optax.GradientTransformation:
    """Turns updates at the weights into updates at the latents.

    It applies `estimators.fenbp_gradient` to a gradient that is already averaged. In
    the loss use the weights `estimators.fenbp(..., straight_through=True)`.

    Args:
        beta: Step of the difference quotient, at least 0: a number, or a schedule of
            the step count.
        squash: The function s of `estimators.fenbp`: "tanh", "hard_tanh" or a function.
            `optax.inject_hyperparams` calls every function as a schedule: give it a
            name, or pass it `static_args=("squash",)`.

    Returns:
        A transformation whose `update` needs `params`.

    Raises:
        TypeError: If `squash` is neither a name nor a function.
        ValueError: If `beta` is negative, `squash` is an unknown name, or `update` gets
            no `params`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from adaste_jax import optim
        >>> tx = optim.scale_by_fenbp(8.0, squash=jax.nn.hard_tanh)
        >>> latent, grad = jnp.array([3.0]), jnp.array([0.5])
        >>> tx.update(grad, tx.init(latent), latent)[0]
        Array([0.25], dtype=float32)
    """
    if isinstance(squash, str):
        if squash not in _fenbp.SQUASHES:
            raise ValueError(
                f"`squash` must be one of {tuple(_fenbp.SQUASHES)} or a function, got "
                f"{squash!r}."
            )
        squash = _fenbp.SQUASHES[squash]
    if not callable(squash):
        raise TypeError(
            f"`squash` must be a function or one of {tuple(_fenbp.SQUASHES)}, got "
            f"{squash!r}. Within `optax.inject_hyperparams` pass it "
            '`static_args=("squash",)`.'
        )
    if not callable(beta):
        _checks.check_scalar("beta", beta)
    return _base.leafwise(
        "scale_by_fenbp",
        lambda update, latent, beta: estimators.fenbp_gradient(
            latent, update, beta=beta, squash=squash
        ),
        beta,
    )
