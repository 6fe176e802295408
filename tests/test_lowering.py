"""Every config lowers for TPUs and GPUs, which are rarely at hand; nothing runs.

Shapes alone: train step, evaluation and exported program of each config, and each way
to share a step over devices, one at a time and scanned.
"""

import importlib

import jax
import jax.numpy as jnp
import pytest

from adaste_jax import export, train
from adaste_jax.nn import linen
from experiments import methods, models
from tests.experiments import test_configs

PLATFORMS = ("tpu", "cuda", "rocm")
BATCH = 8


def lowered(function, *arguments):
    """Lowers a function for all platforms, on shapes."""
    exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
    assert exported.platforms == PLATFORMS


class Case:
    """Network, method, state and batch of a config, as shapes."""

    def __init__(self, name, variant):
        config = importlib.import_module(f"experiments.configs.{name}")
        config = config.get_config(variant)
        shape, classes = test_configs.SHAPES[config.dataset]
        text = config.dataset == "pydoc_topics"
        network = models.create(config.model, classes, **models.options_of(config))
        self.inputs = jax.ShapeDtypeStruct(
            (BATCH, *shape), jnp.int32 if text else float
        )
        labels = jax.ShapeDtypeStruct((BATCH, *(shape if text else ())), jnp.int32)
        self.batch = {"image": self.inputs, "label": labels}
        self.network, self.forward = network, linen.functional(network)
        self.method = methods.create(config.method, config.methods, steps=100)
        self.state = jax.eval_shape(
            lambda inputs: train.init(network, self.method, inputs), self.inputs
        )

    def step(self, many=False, **placement):
        step = train.make_train_step(
            self.network,
            self.method,
            many=many,
            placement=train.Placement(
                mesh=train.data_mesh(jax.devices()[:2]), **placement
            ),
        )
        several = lambda leaf: jax.ShapeDtypeStruct((3, *leaf.shape), leaf.dtype)
        batch = jax.tree.map(several, self.batch) if many else self.batch
        lowered(lambda *arguments: step(*arguments), self.state, batch)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow)
        if name in test_configs.RELEASED
        else name
        for name in test_configs.NAMES
    ],
)
def test_step_evaluation_and_program_of_a_config(name):
    case = Case(name, "fast_smoke" if name in test_configs.RELEASED else "smoke")
    case.step()
    evaluate = train.make_eval_step(case.network, case.method)
    lowered(
        lambda *arguments: evaluate(*arguments),
        case.state.params,
        case.state.model_state,
        case.batch,
    )
    zeros = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype)
    params, state = jax.tree.map(zeros, (case.state.params, case.state.model_state))
    program = export.packed_forward(
        lambda params, state, x: case.forward(params, state, x, train=False, key=None)[
            0
        ],
        params,
        state,
        method=case.method,
    )
    lowered(program, case.inputs)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("strategy", ["jit", "shard_map", "pmap"])
@pytest.mark.parametrize("name", ["quickstart", "language_model"])
def test_strategies(name, strategy, many):
    Case(name, "smoke").step(many=many, strategy=strategy)
