"""Mirror descent on weights, in its direct form.

Ajanthan, Gupta, Torr, Hartley and Dokania, "Mirror Descent View for Neural Network
Quantization", AISTATS 2021, https://arxiv.org/abs/1910.08237.

The weights themselves are trained, w in (-1, 1) or u on the simplex. The parameters
store the dual variables, for which a mirror step is a subtraction: in float32 a stored
weight that has reached -1 could never leave it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


def md_tanh(
    learning_rate: optax.ScalarOrSchedule,
    *,
    beta: optax.ScalarOrSchedule,
    inner: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """Trains weights by w <- tanh(atanh(w) - learning_rate beta d).

    d is the direction of `inner`. The parameters are t = atanh(w), which start from a
    Glorot initialiser, and

        t <- t - learning_rate beta d.

    In the loss the weights are `estimators.md_tanh_s(t, beta=1.0)`, so that d comes
    from the gradient at the weights. The deployed weights are sign(t). This differs
    from `estimators.md_tanh_s` with a growing beta, which also rescales earlier steps.

    Args:
        learning_rate: A number or a schedule.
        beta: A number or a schedule of the step count. The paper multiplies beta by a
            factor every so many steps (docs/methods/md_tanh_s.md), for example
            `per_epoch(optax.exponential_decay(1.02, 1, 1.02, end_value=1e35), 200)`.
        inner: Gives the direction; default `scale_by_early_adam()`.

    Returns:
        A chain.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from adaste_jax import optim
        >>> tx = optim.md_tanh(0.1, beta=1.0, inner=optax.identity())
        >>> t = jnp.arctanh(jnp.array([0.5]))
        >>> update, _ = tx.update(jnp.array([1.0]), tx.init(t), t)
        >>> jnp.tanh(t + update).round(6)
        Array([0.421328], dtype=float32)
    """
    return optax.chain(
        scale_by_early_adam() if inner is None else inner,
        optax.scale_by_schedule(beta) if callable(beta) else optax.scale(beta),
        optax.scale_by_learning_rate(learning_rate),
    )


def md_softmax(
    learning_rate: optax.ScalarOrSchedule,
    *,
    beta: optax.ScalarOrSchedule,
    inner: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """Exponentiated gradient:  u <- u exp(-learning_rate beta d) / sum.

    u are the probabilities of the levels -1 and +1. The parameters are logits t of the
    shape `[..., 2]`, u = softmax(t), for which the update is

        t <- t - learning_rate beta d,

    as in `md_tanh`. In the loss the weights are `estimators.md_softmax_s(t, beta=1.0)`;
    the deployed weights are `estimators.softmax_deploy(t)`.

    Args:
        learning_rate: A number or a schedule of the step count.
        beta: A number or a schedule of the step count.
        inner: Gives the direction; default `scale_by_early_adam()`.

    Returns:
        A chain.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from adaste_jax import optim
        >>> tx = optim.md_softmax(1.0, beta=1.0, inner=optax.identity())
        >>> t = jnp.log(jnp.array([0.5, 0.5]))
        >>> update, _ = tx.update(jnp.array([-0.1, 0.1]), tx.init(t), t)
        >>> jax.nn.softmax(t + update).round(6)
        Array([0.549834, 0.450166], dtype=float32)
    """
    return md_tanh(learning_rate, beta=beta, inner=inner)


class ScaleByEarlyAdamState(NamedTuple):
    """The step count and the two moments."""

    step: jax.Array  # shape=(), dtype=int32
    mu: Any
    nu: Any


def scale_by_early_adam(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Adam with epsilon beside the uncorrected second moment, an early form of Adam.

        m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
        d = sqrt(1 - b2^step) / (1 - b1^step) m / (sqrt(v) + eps)

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, end of
    section 2, https://arxiv.org/abs/1412.6980. `optax.scale_by_adam` differs in the
    epsilon only.

    Args:
        b1: Decay of the first moment.
        b2: Decay of the second moment.
        eps: Added to the root of the second moment.

    Returns:
        A transformation.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import optim
        >>> tx = optim.scale_by_early_adam()
        >>> latent = jnp.zeros(2)
        >>> tx.update(jnp.array([0.5, -2.0]), tx.init(latent))[0].round(4)
        Array([ 1., -1.], dtype=float32)
    """

    def init(params: Any) -> ScaleByEarlyAdamState:
        zeros = optax.tree.zeros_like(params)
        return ScaleByEarlyAdamState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(
        updates: Any, state: ScaleByEarlyAdamState, params: Any = None
    ) -> tuple[Any, ScaleByEarlyAdamState]:
        del params
        step = optax.safe_increment(state.step)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        nu = jax.tree.map(
            lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, updates
        )
        correction = jnp.sqrt(1 - b2**step) / (1 - b1**step)
        updates = jax.tree.map(
            lambda m, v: (correction * m / (jnp.sqrt(v) + eps)).astype(m.dtype), mu, nu
        )
        return updates, ScaleByEarlyAdamState(step, mu, nu)

    return optax.GradientTransformation(init, update)
