"""How often a step reads and writes a kernel, in the program that XLA made for the CPU.

A pass over a kernel of the size of the cache is what a step costs besides its products.
The bounds are those of jax 0.10.2; a later XLA may need fewer.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import estimators, methods, train

SIZE = 512
KERNEL = re.compile(rf"\w+\[{SIZE},{SIZE}\]")
LINE = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)")


def passes(compiled):
    """Reads and writes of arrays of the shape of a kernel, outside of branches."""
    text = compiled.as_text()
    kernels, reads, writes = {}, 0, 0
    for line in text[text.index("\nENTRY") :].splitlines()[2:]:
        found = LINE.match(line)
        if not found:
            continue
        name, kind, operation, rest = found.groups()
        kernels[name] = len(KERNEL.findall(kind))
        if operation in ("parameter", "tuple", "get-tuple-element", "bitcast"):
            continue
        writes += kernels[name]
        if operation != "conditional":  # its branches are for tensors out of range
            operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
            reads += sum(kernels.get(operand, 0) for operand in operands)
    return reads, writes


def test_the_estimator_reads_a_kernel_three_times_and_writes_it_once():
    """For the root mean square, for the mean, and for the weights."""
    latent = jax.ShapeDtypeStruct((SIZE, SIZE), jnp.float32)
    estimator = jax.jit(lambda latent, mu: estimators.adaste(latent, mu=mu))
    reads, writes = passes(estimator.lower(latent, jnp.float32(0.5)).compile())
    assert reads <= 3
    assert writes <= 1


def step_passes(method, report):
    def forward(params, model_state, inputs, *, train, key):
        return (inputs @ params["kernel"])[:, :10], model_state

    step = train.make_train_step(
        forward,
        method,
        report=report,
        placement=train.Placement(mesh=train.data_mesh(jax.devices()[:1])),
    )
    params = {"kernel": jnp.zeros((SIZE, SIZE))}
    state = train.TrainState.create(params, method.tx, key=jax.random.key(0))
    batch = {"image": np.zeros((8, SIZE), np.float32), "label": np.zeros(8, np.int32)}
    return passes(step.lower(state, batch).compile())


def test_steps_between_measurements_pass_no_kernel_more(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    method = methods.adaste(steps=100)
    short = step_passes(method, "short")
    assert step_passes(method, 16) == short
    full_precision = step_passes(methods.full_precision(steps=100), "short")
    assert short[0] - full_precision[0] <= 3
    assert short[1] - full_precision[1] <= 1


@pytest.mark.parametrize("report", ["full", 1])
def test_a_step_that_always_measures_reads_more(report, monkeypatch):
    """So the count of passes sees what is measured."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    method = methods.adaste(steps=100)
    assert step_passes(method, report) > step_passes(method, "short")
