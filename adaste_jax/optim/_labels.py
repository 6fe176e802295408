"""Labels that tell `optax.partition` which leaves are latents."""

from collections.abc import Mapping
from typing import Any

import jax

from adaste_jax import _paths


def labels(
    params: Any, rules: Mapping[str, _paths.Where], *, default: str = "real"
) -> Any:
    """Gives every leaf a label, for `optax.partition`.

    Args:
        params: Any pytree of parameters.
        rules: For each label the leaves that it claims, in any form of `where` that
            `binarize` takes; for example `{"latent": kernels(exclude="^head/")}`.
        default: Label of the leaves that no rule claims.

    Returns:
        A tree of labels with the structure of `params`.

    Raises:
        ValueError: If a rule claims nothing, or two rules claim one leaf.

    Example:
        >>> import jax.numpy as jnp
        >>> import adaste_jax
        >>> params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
        >>> labels(params, {"latent": adaste_jax.kernels()})
        {'bias': 'real', 'kernel': 'latent'}
    """
    paths = _paths.distinct(params)
    names = [default] * len(paths)
    claimed_by: dict[int, str] = {}
    for label, where in rules.items():
        try:
            mask = _paths.select(params, where)
        except ValueError as error:
            error.add_note(f"in the rule for the label {label!r}")
            raise
        for leaf, claimed in enumerate(jax.tree.leaves(mask)):
            if claimed and leaf in claimed_by:
                raise ValueError(
                    f"the leaf {paths[leaf]!r} is claimed by {claimed_by[leaf]!r} and "
                    f"by {label!r}."
                )
            if claimed:
                claimed_by[leaf] = names[leaf] = label
    return jax.tree.unflatten(jax.tree.structure(params), names)
