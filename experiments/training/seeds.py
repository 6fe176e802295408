"""What a seed stands for, and latents that are drawn with it."""

from typing import Any, NamedTuple

import jax

from experiments import methods


class Keys(NamedTuple):
    """What a seed stands for."""

    network: jax.Array
    train: jax.Array
    order: jax.Array
    latents: jax.Array


def keys_of(seed: int) -> Keys:
    """The keys of a run."""
    return Keys(*jax.random.split(jax.random.key(seed), 4))


def replaced(
    key: jax.Array, params: Any, labels: Any, initial: methods.InitialLatents
) -> Any:
    """Other latents in the place of those there are.

    Args:
        key: Of the new ones.
        params: Parameters.
        labels: A tree of strings: `"latent"` is replaced.
        initial: From a key and a latent to the new one.

    Returns:
        Parameters.
    """
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        initial(key, leaf) if label == "latent" else leaf
        for key, leaf, label in zip(keys, leaves, jax.tree.leaves(labels), strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)
