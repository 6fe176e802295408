"""What the layers share: their fields, and the estimate of a parameter."""

import dataclasses
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from adaste_jax.nn import _scale
from adaste_jax.nn._hyperparameters import HYPERPARAMETERS


class Estimating(nn.Module, kw_only=True):
    """An estimator, and the variables that hold its hyperparameters."""

    estimator: Callable[..., jax.Array]
    hyperparameters: Mapping[str, float] = dataclasses.field(
        default_factory=dict,
        hash=False,  # a dict has no hash, and modules need one
    )

    @nn.nowrap
    def _values(self, dtype: Any) -> dict[str, jax.Array]:
        """The hyperparameters, in the dtype that latents of `dtype` are computed in."""
        dtype = jnp.promote_types(dtype, jnp.float32)
        if "flax.nnx" in sys.modules:
            # `nnx.bridge` must know their type before it meets them. Importing NNX for
            # that would more than double the time that importing Linen takes.
            importlib.import_module("adaste_jax.nn.nnx")
        return {
            key: self.variable(HYPERPARAMETERS, key, jnp.asarray, number, dtype).value
            for key, number in self.hyperparameters.items()
        }


class Binary(Estimating, kw_only=True):
    """A Flax layer that estimates one parameter when it is read."""

    use_scale: bool = False

    latent: ClassVar[str] = "kernel"

    @nn.nowrap
    def param(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Like `nn.Module.param`, but estimates the parameter called `latent`."""
        value = super().param(name, *args, **kwargs)
        if name != self.latent:
            return value
        weight = self.estimator(value, **self._values(value.dtype))
        if self.use_scale:
            axes = self._output_axes()
            shape = tuple(weight.shape[axis] for axis in axes)
            scale = self.param("scale", nn.initializers.ones, shape, value.dtype)
            weight = _scale.multiply(weight, scale, axes)
        return weight

    @nn.nowrap
    def _output_axes(self) -> tuple[int, ...]:
        """The axes of the latent that are the features of the output."""
        return (-1,)


class BinaryProduct(Binary, kw_only=True):
    """A binary layer whose inputs may be made binary too."""

    input_estimator: Callable[[jax.Array], jax.Array] | None = None

    # Not wrapped by Flax, which would count and capture the call twice.
    @nn.nowrap
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Applies the layer; shapes are those of the layer it replaces."""
        outputs: jax.Array = super().__call__(self._estimate_inputs(inputs))
        return outputs

    @nn.nowrap
    def _estimate_inputs(self, inputs: jax.Array) -> jax.Array:
        return inputs if self.input_estimator is None else self.input_estimator(inputs)
