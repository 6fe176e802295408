"""What the layers share: their options, and the estimate of a parameter."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from adaste_jax.nn import _scale
from adaste_jax.nn.nnx import _hyperparameters

_Module = TypeVar("_Module", bound=nnx.Module)


class Binary(nnx.Module):
    """A Flax layer that estimates one parameter in every call."""

    latent: ClassVar[str] = "kernel"
    param_dtype: Any  # of the layer of Flax

    def __init__(
        self,
        *args: Any,
        estimator: Callable[..., jax.Array],
        hyperparameters: Mapping[str, float] | None = None,
        use_scale: bool = False,
        **options: Any,
    ):
        super().__init__(*args, **options)
        self.estimator = estimator
        self.hyperparameters = _hyperparameters.variables(
            hyperparameters, self.param_dtype
        )
        latent = getattr(self, self.latent)
        shape = tuple(latent.shape[axis] for axis in self._output_axes())
        self.scale = nnx.data(
            nnx.Param(jnp.ones(shape, self.param_dtype)) if use_scale else None
        )

    def _output_axes(self) -> tuple[int, ...]:
        """The axes of the latent that are the features of the output."""
        return (-1,)

    def _estimated(self) -> Any:
        """A copy with the weight in place of the latent; see `replaced`."""
        hyperparameters = _hyperparameters.read(self.hyperparameters)
        weight = self.estimator(getattr(self, self.latent)[...], **hyperparameters)
        if self.scale is not None:
            weight = _scale.multiply(weight, self.scale[...], self._output_axes())
        return replaced(self, **{self.latent: weight})


class BinaryProduct(Binary):
    """A binary layer whose inputs may be made binary too."""

    def __init__(
        self,
        *args: Any,
        input_estimator: Callable[[jax.Array], jax.Array] | None = None,
        **options: Any,
    ):
        super().__init__(*args, **options)
        self.input_estimator = input_estimator

    def __call__(self, inputs: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        """Applies the layer; shapes and options are those of the layer it replaces."""
        if self.input_estimator is not None:
            inputs = self.input_estimator(inputs)
        layer, inputs = self._padded(self._estimated(), inputs)
        outputs: jax.Array = super(Binary, layer).__call__(inputs, *args, **kwargs)
        return outputs

    def _padded(self, layer: Any, inputs: jax.Array) -> tuple[Any, jax.Array]:
        return layer, inputs


def replaced(layer: _Module, **attributes: Any) -> _Module:
    """A copy of `layer` with other attributes, for one call of its parent class.

    The attributes are set without the checks of NNX, since the copy is not part of a
    model: it is never split, and the layer itself does not change.
    """
    other = copy.copy(layer)
    vars(other).update(attributes)
    return other
