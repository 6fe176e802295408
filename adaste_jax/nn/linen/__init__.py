"""Flax Linen layers whose kernel passes through an estimator.

The parameter tree is that of the Flax layer, and stores the latent kernel. A checkpoint
of `nn.Dense` loads into `BinaryDense`, and the reverse. docs/layers.md lists the layers
and says what to do for other layers.

These layers suit networks in which each layer is called once per loss. Otherwise, and
under gradient accumulation with a rule that is not additive, use `adaste_jax.binarize`
on the whole tree, with the layers of Flax.
"""

from adaste_jax.nn._hyperparameters import HYPERPARAMETERS
from adaste_jax.nn.linen._conv import BinaryConv, BinaryConvTranspose
from adaste_jax.nn.linen._dense import BinaryDense, BinaryDenseGeneral
from adaste_jax.nn.linen._embed import BinaryEmbed
from adaste_jax.nn.linen._functional import functional
from adaste_jax.nn.linen._hyperparameters import set_hyperparameters
from adaste_jax.nn.linen._whole import BinaryMultiHeadAttention, BinaryRNN

__all__ = [
    "HYPERPARAMETERS",
    "BinaryConv",
    "BinaryConvTranspose",
    "BinaryDense",
    "BinaryDenseGeneral",
    "BinaryEmbed",
    "BinaryMultiHeadAttention",
    "BinaryRNN",
    "functional",
    "set_hyperparameters",
]
