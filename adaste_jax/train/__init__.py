"""Train and evaluation steps for latents, compiled over a mesh of devices.

The steps know nothing of Flax: a network is a function

    forward(params, model_state, inputs, *, train, key) -> (outputs, model_state),

with `model_state` whatever it carries besides parameters (batch-norm statistics), and
`key` a PRNG key or None. `nn.linen.functional` and `nn.nnx.functional` make one of a
Flax module.

One order of things makes the step the same on one device, on many and in microbatches.
The latents are binarised once. The gradient is taken *at the weights* and averaged over
examples, microbatches and devices. Only then the estimator's backward rule turns it
into one at the latents, once, since a rule need not be additive.
"""

from adaste_jax.train._compile import make_train_step
from adaste_jax.train._evaluate import Deploy, make_eval_step, make_statistics_step
from adaste_jax.train._gather import Gather, packed_gather
from adaste_jax.train._gradient import Forward, Statistics
from adaste_jax.train._labels import Loss
from adaste_jax.train._measure import Metric, Metrics, accuracy
from adaste_jax.train._mesh import (
    DATA_AXIS,
    FSDP_AXIS,
    data_mesh,
    replicate,
    state_sharding,
)
from adaste_jax.train._prepare import Prepare
from adaste_jax.train._state import TrainState
from adaste_jax.train._step import train_step
from adaste_jax.train._strategies import Strategy

__all__ = [
    "DATA_AXIS",
    "FSDP_AXIS",
    "Deploy",
    "Forward",
    "Gather",
    "Loss",
    "Metric",
    "Metrics",
    "Prepare",
    "Statistics",
    "Strategy",
    "TrainState",
    "accuracy",
    "data_mesh",
    "make_eval_step",
    "make_statistics_step",
    "make_train_step",
    "packed_gather",
    "replicate",
    "state_sharding",
    "train_step",
]
