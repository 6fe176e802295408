"""BayesBiNN, the Bayesian learning rule for Bernoulli weights.

Meng, Bachmann and Khan, "Training Binary Neural Networks using the Bayesian Learning
Rule", ICML 2020, https://arxiv.org/abs/2002.10778.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adaste_jax.estimators import _base as _checks
from adaste_jax.optim import _base

EPSILON = 1e-10
"""In float32, at the published temperatures, the whole gradient comes from it."""


class ScaleByBayesbinnState(NamedTuple):
    """The means tanh(t) of the latents in the previous step."""

    mean: Any  # as the params


def scale_by_bayesbinn(
    *,
    num_examples: float,
    temperature: float,
    decay: float = 1.0,
    prior: float = 0.0,
    stale_mean: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Turns gradients at the samples into natural gradients at the latents t.

    With w the sample, T = `temperature`, v = tanh(t) and e = 1e-10,

        s = ((1 - w^2 + e) / T) / (1 - v^2 + e)
        u <- num_examples s g + decay (t - prior).

    At the published temperatures samples are saturated in float32, so 1 - w^2 is 0.
    Where v is saturated too, s = 1 / T: a step of constant size, as in `bop`.

    Args:
        num_examples: Training examples, times ten in the recipe for CIFAR.
        temperature: Temperature of the samples (`estimators.bayesbinn_sample`), above
            0.
        decay: Weight of the prior.
        prior: Latent of the prior.
        stale_mean: Whether v is of the step before, as in the authors' code, or of
            this step, as in the paper.

    Returns:
        A transformation with `update(updates, state, params, weights=weights)`, where
        `weights` is the tree of samples that the gradients were taken at. With several
        samples both trees have one more leading axis, over which they are averaged.

    Raises:
        ValueError: If a hyperparameter is not positive, or an argument is missing.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import optim
        >>> tx = optim.scale_by_bayesbinn(num_examples=100, temperature=1.0)
        >>> latent, weight = jnp.array([0.0]), jnp.array([0.0])
        >>> tx.update(jnp.array([0.1]), tx.init(latent), latent, weights=weight)[0]
        Array([10.], dtype=float32)
    """
    for name, value in (("num_examples", num_examples), ("temperature", temperature)):
        _checks.check_scalar(name, value, open_interval=True)

    def init(params: Any) -> ScaleByBayesbinnState:
        return ScaleByBayesbinnState(mean=jax.tree.map(jnp.tanh, params))

    def update(
        updates: Any,
        state: ScaleByBayesbinnState,
        params: Any = None,
        *,
        weights: Any = None,
        **extra_args: Any,
    ) -> tuple[Any, ScaleByBayesbinnState]:
        del extra_args
        _base.check_params("bayesbinn", params)
        if weights is None:
            raise ValueError(
                "bayesbinn needs the samples that the gradients were taken at: call "
                "`tx.update(grads, state, params, weights=weights)`. Inside "
                "`optax.partition` also pass `mask_compatible_extra_args=True` to it."
            )
        mean = jax.tree.map(jnp.tanh, params)

        def natural(
            grad: jax.Array, latent: jax.Array, weight: jax.Array, mean: jax.Array
        ) -> jax.Array:
            scaled = (_variance(weight) + EPSILON) / temperature * grad
            if grad.ndim > latent.ndim:
                scaled = jnp.mean(scaled, axis=0)
            scaled = scaled / (_variance(mean) + EPSILON)
            return num_examples * scaled + decay * (latent - prior)

        used = state.mean if stale_mean else mean
        updates = jax.tree.map(natural, updates, params, weights, used)
        return updates, ScaleByBayesbinnState(mean)

    return optax.GradientTransformationExtraArgs(init, update)


def bayesbinn(
    learning_rate: optax.ScalarOrSchedule,
    *,
    num_examples: float,
    temperature: float = 1e-10,
    momentum: float = 0.0,
    decay: float = 1.0,
    prior: float = 0.0,
    stale_mean: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """The update of BayesBiNN's latents, the natural parameters of its weights.

    With u the natural gradient of `scale_by_bayesbinn` and m starting at zero,

        m <- momentum m + (1 - momentum) u
        t <- t - learning_rate m / (1 - momentum^step).

    Samples are `estimators.bayesbinn_sample(latent, key=..., temperature=...)`; take
    gradients at them. In the paper the deployed weight is +1 where tanh(t) > 0, else -1
    (so a latent of exactly 0 gives -1), or predictions are averaged over draws of +1
    with probability sigmoid(2 t). Published: latents +10 and -10 at random; temperature
    1e-10 (MNIST, CIFAR-10) or 1e-8 (CIFAR-100); learning rate 1e-4 (MNIST) or 3e-4
    (CIFAR) with a cosine to 1e-16; 500 epochs; batches of 100 (MNIST) or 50 (CIFAR);
    momentum 0, one sample; batch norm without affine parameters.

    Args:
        learning_rate: A number or a schedule.
        num_examples: Training examples, times ten in the recipe for CIFAR.
        temperature: Temperature of the samples (`estimators.bayesbinn_sample`), above
            0.
        momentum: Coefficient of the average.
        decay: Weight of the prior.
        prior: Latent of the prior.
        stale_mean: Whether v is of the step before, as in the authors' code, or of
            this step, as in the paper.

    Returns:
        A chain. Its `update` needs `params` and `weights`, the tree of samples that the
        gradients were taken at.

    Raises:
        ValueError: If `num_examples` or `temperature` is not positive, or `update` gets
            no `params` or no `weights`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import optim
        >>> tx = optim.bayesbinn(1e-3, num_examples=100, temperature=1.0)
        >>> latent, weight = jnp.array([0.0]), jnp.array([0.0])
        >>> tx.update(jnp.array([0.1]), tx.init(latent), latent, weights=weight)[0]
        Array([-0.01], dtype=float32)
    """
    return optax.chain(
        scale_by_bayesbinn(
            num_examples=num_examples,
            temperature=temperature,
            decay=decay,
            prior=prior,
            stale_mean=stale_mean,
        ),
        optax.ema(momentum, debias=True),
        optax.scale_by_learning_rate(learning_rate),
    )


def _variance(mean: jax.Array) -> jax.Array:
    """1 - mean^2. Not written so: XLA would add the epsilon to the 1, and lose it."""
    return (1 - mean) * (1 + mean)
