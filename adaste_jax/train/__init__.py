"""Train and evaluation steps for latents, compiled over a mesh of devices.

A network is a module of Flax, Linen or NNX, or a function

    forward(params, model_state, inputs, *, train, key) -> (outputs, model_state),

where `model_state` is what the network carries besides parameters (batch-norm
statistics), and `key` a PRNG key or None. The steps turn a module into such a function
by `nn.linen.functional` or `nn.nnx.functional`. A method of `adaste_jax.methods` says
how the network is trained.

A fixed order makes the step the same on one device, on many and in microbatches.
Weights are computed from the latents once. The gradient is taken *at the weights* and
averaged over examples, microbatches and devices. Only then is the method's backward
rule applied to the average, once, since a rule need not be additive.
"""

from adaste_jax.train._evaluate import Deploy, make_eval_step, make_statistics_step
from adaste_jax.train._gather import packed_gather
from adaste_jax.train._gradient import Forward
from adaste_jax.train._init import init
from adaste_jax.train._labels import Loss
from adaste_jax.train._make import Report, make_train_step, train_step
from adaste_jax.train._measure import Metric, Metrics, accuracy
from adaste_jax.train._mesh import (
    DATA_AXIS,
    FSDP_AXIS,
    TENSOR_AXIS,
    data_mesh,
    replicate,
    state_sharding,
)
from adaste_jax.train._placement import Gather, Placement, Statistics, Strategy
from adaste_jax.train._prepare import Prepare
from adaste_jax.train._shipped import evaluate, reestimate_statistics
from adaste_jax.train._state import TrainState

__all__ = [
    "DATA_AXIS",
    "FSDP_AXIS",
    "TENSOR_AXIS",
    "Deploy",
    "Forward",
    "Gather",
    "Loss",
    "Metric",
    "Metrics",
    "Placement",
    "Prepare",
    "Report",
    "Statistics",
    "Strategy",
    "TrainState",
    "accuracy",
    "data_mesh",
    "evaluate",
    "init",
    "make_eval_step",
    "make_statistics_step",
    "make_train_step",
    "packed_gather",
    "reestimate_statistics",
    "replicate",
    "state_sharding",
    "train_step",
]
