"""Flax NNX layers whose kernel passes through an estimator.

The parameters are those of the Flax layer, with the latent kernel in place of the
kernel. A checkpoint of `nnx.Linear` loads into `BinaryLinear`, and the reverse.
docs/layers.md lists the layers and says what to do for other layers.

These layers suit networks in which each layer is called once per loss. Otherwise, and
under gradient accumulation with a rule that is not additive, use `adaste_jax.binarize`
on the whole state, with the layers of Flax.
"""

from adaste_jax.nn.nnx._conv import BinaryConv, BinaryConvTranspose
from adaste_jax.nn.nnx._embed import BinaryEmbed
from adaste_jax.nn.nnx._functional import functional
from adaste_jax.nn.nnx._hyperparameters import Hyperparameter, set_hyperparameters
from adaste_jax.nn.nnx._linear import BinaryLinear, BinaryLinearGeneral
from adaste_jax.nn.nnx._whole import BinaryMultiHeadAttention, BinaryRNN

__all__ = [
    "BinaryConv",
    "BinaryConvTranspose",
    "BinaryEmbed",
    "BinaryLinear",
    "BinaryLinearGeneral",
    "BinaryMultiHeadAttention",
    "BinaryRNN",
    "Hyperparameter",
    "functional",
    "set_hyperparameters",
]
