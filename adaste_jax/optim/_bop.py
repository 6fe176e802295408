"""Bop, an optimiser that flips binary weights and has no latents.

Helwegen, Widdicombe, Geiger, Liu, Cheng and Nusselder, "Latent Weights Do Not Exist:
Rethinking Binarized Neural Network Optimization", NeurIPS 2019,
https://arxiv.org/abs/1906.02107.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base as _checks
from adaste_jax.optim import _base


class BopState(NamedTuple):
    """The step count, and the average gradient m of each weight."""

    step: jax.Array  # shape=(), dtype=int32
    momentum: Any  # as the params, at least float32


def bop(
    gamma: optax.ScalarOrSchedule = 1e-4, *, tau: optax.ScalarOrSchedule = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Flips a weight when its average gradient has pushed against it enough.

        m <- (1 - gamma) m + gamma g
        w <- -w  if  w m > tau,  else w

    The parameters are the weights +1 and -1 themselves, so the loss uses them directly;
    `binary_signs` makes them from initial parameters. The inequality is strict. This is
    a whole optimiser: do not add a learning rate after it.

    Published for CIFAR-10 (500 epochs, batches of 50): gamma divided by 10 every 100
    epochs, and Adam at 0.01 for real parameters. For ImageNet gamma falls linearly from
    1e-4 to 1e-6.

    Args:
        gamma: Adaptivity rate, in [0, 1]; a number or a schedule of the step count.
        tau: Threshold, at least 0; a number or a schedule.

    Returns:
        A transformation whose updates are -2, 0 and 2, and NaN where m is not finite.
        Its `update` needs `params`, and may get `step`, at which schedules are read.

    Raises:
        ValueError: If a number is out of range, if `init` gets parameters other than
            +1 and -1 (traced ones cannot be checked), or `update` no `params`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import optim
        >>> tx = optim.bop(0.1, tau=1e-3)
        >>> weight = jnp.array([1.0, 1.0])
        >>> tx.update(jnp.array([0.05, -0.05]), tx.init(weight), weight)[0]
        Array([-2.,  0.], dtype=float32)
    """
    if not callable(gamma):
        _checks.check_scalar("gamma", gamma, low=0.0, high=1.0)
    if not callable(tau):
        _checks.check_scalar("tau", tau)

    def init(params: Any) -> BopState:
        _check_binary(params)
        zeros = lambda weight: jnp.zeros(weight.shape, _checks.compute_dtype(weight))
        return BopState(jnp.zeros((), jnp.int32), jax.tree.map(zeros, params))

    def update(
        updates: Any,
        state: BopState,
        params: Any = None,
        *,
        step: ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[Any, BopState]:
        del extra_args
        _base.check_params("bop", params)
        step = _base.clock(state.step, step)
        rate, threshold = _base.at(gamma, step), _base.at(tau, step)
        momentum = jax.tree.map(
            lambda m, g: (1 - rate) * m + rate * g.astype(m.dtype),
            state.momentum,
            updates,
        )
        flips = jax.tree.map(
            functools.partial(_flip, threshold=threshold), params, momentum
        )
        return flips, BopState(optax.safe_increment(step), momentum)

    return optax.GradientTransformationExtraArgs(init, update)


def binary_signs(params: Any) -> Any:
    """Initial weights for `bop`: the signs of the given parameters, +1 at 0.

    Args:
        params: A pytree of arrays, for example from a Glorot initialiser.

    Returns:
        The tree with +1 and -1.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import optim
        >>> optim.binary_signs({"kernel": jnp.array([-0.3, 0.0, 2.0])})
        {'kernel': Array([-1.,  1.,  1.], dtype=float32)}
    """
    return jax.tree.map(_numerics.sign, params)


def _flip(weight: jax.Array, momentum: jax.Array, *, threshold: Any) -> jax.Array:
    """-2 w or 0; NaN where the average is not finite and could never move w again."""
    push = weight.astype(momentum.dtype) * momentum
    flip = jnp.where(push > threshold, -2 * weight, 0 * weight)
    lost = (push - push).astype(weight.dtype)  # 0, or NaN
    return jnp.where(push - push == 0, flip, lost)


def _check_binary(params: Any) -> None:
    for path, weight in jax.tree_util.tree_leaves_with_path(params):
        if isinstance(weight, jax.core.Tracer):
            continue
        if not (np.abs(np.asarray(weight, np.float64)) == 1).all():
            name = jax.tree_util.keystr(path) or "the array"
            raise ValueError(
                f"bop trains weights that are +1 and -1; {name} has others. Pass "
                "`optim.binary_signs(params)`, and route real parameters elsewhere "
                "(`optax.partition`)."
            )
