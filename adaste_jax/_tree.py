"""Latents to weights over a whole parameter tree, of any model of any library."""

from collections.abc import Callable
from typing import Any

import jax

from adaste_jax import _numerics, _paths
from adaste_jax.estimators import _base


def binarize(
    params: Any,
    estimator: Callable[..., jax.Array],
    *,
    where: _paths.Where | None = None,
    key: jax.Array | None = None,
) -> Any:
    """Replaces the selected latents by weights: `estimator(latent)`, leaf by leaf.

    Call it once inside the loss, before the model is applied. Then the backward rule of
    a layer that is used twice is applied once, to the sum of its gradients. A rule that
    is not additive needs this.

    Args:
        params: Any pytree: Flax Linen parameters, the state of an NNX model, a dict.
        estimator: A map from `estimators`, with its hyperparameters bound, for
            example `functools.partial(estimators.adaste, mu=mu)`.
        where: Which leaves. Default `kernels()`: those called `kernel`. Otherwise
            regular expressions on the path, a tree of booleans, or a function from
            `params` to one.
        key: PRNG key for a stochastic estimator, which is then called as
            `estimator(latent, key=...)`, with a different key for each leaf.

    Returns:
        A tree of the same structure, shapes and dtypes; other leaves are unchanged.

    Raises:
        TypeError: If a selected leaf is not floating point, or `estimator` is not a
            function.
        ValueError: If nothing is selected, or a pattern matches nothing.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> params = {"kernel": jnp.array([-0.2, 0.0]), "bias": jnp.array([0.3])}
        >>> binarize(params, estimators.ste)["kernel"]
        Array([-1.,  1.], dtype=float32)
    """

    def weight(path: Any, selected: bool, index: int, latent: jax.Array) -> jax.Array:
        if not selected:
            return latent
        try:
            if key is None:
                return estimator(latent)
            return estimator(latent, key=jax.random.fold_in(key, index))
        except (TypeError, ValueError) as error:
            error.add_note(f"at the leaf {jax.tree_util.keystr(path)}")
            raise

    if not callable(estimator):
        raise TypeError(
            "`estimator` must be a function, such as `estimators.ste`, with "
            f"its hyperparameters bound; got {estimator!r}."
        )
    mask = _paths.select(params, where)
    leaves, treedef = jax.tree.flatten(params)
    indices = jax.tree.unflatten(treedef, range(len(leaves)))
    return jax.tree_util.tree_map_with_path(weight, mask, indices, params)


def deploy(params: Any, *, where: _paths.Where | None = None) -> Any:
    """The weights that are shipped: exactly +1 or -1, and +1 for a latent of 0.

    Args:
        params: Any pytree of latents and real parameters.
        where: Which leaves. Default `kernels()`: those called `kernel`. Otherwise
            regular expressions on the path, a tree of booleans, or a function from
            `params` to one.

    Returns:
        The tree with the selected leaves replaced by their signs. Its gradient is
        zero: it is for evaluation, not for training.

    Raises:
        TypeError: If a selected leaf is not floating point.
        ValueError: If nothing is selected, or a pattern matches nothing.
    """
    return binarize(
        params,
        lambda latent: _numerics.sign(_base.check_latent(latent)),
        where=where,
    )
