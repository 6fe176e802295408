"""Neural networks with one-bit weights, in JAX.

Latents are the real numbers that are trained, weights are what the network uses, and
an estimator maps the first to the second with a backward rule of its own.
`import adaste_jax` needs JAX and Optax; Flax is imported by `adaste_jax.nn` only.
"""

import importlib.metadata

from adaste_jax import estimators, optim
from adaste_jax._paths import kernels
from adaste_jax._tree import binarize, deploy

__version__ = importlib.metadata.version("adaste_jax")

__all__ = ["binarize", "deploy", "estimators", "kernels", "optim"]
