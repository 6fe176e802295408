"""The lines of layers.jsonl against counts by hand."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adaste_jax
from adaste_jax import metrics, train
from experiments.training import layers

BEFORE = {"a": {"kernel": jnp.array([[0.5, -0.5, 0.1]])}, "b": {"bias": jnp.ones(2)}}
AFTER = {"a": {"kernel": jnp.array([[-3.0, -0.0, 4.0]])}, "b": {"bias": jnp.ones(2)}}
RMS = 5 / np.sqrt(3)


def lines(params, weights, epoch, signs):
    """What a run with these weights records at step 7."""
    run = types.SimpleNamespace(
        where=adaste_jax.kernels(),
        method=types.SimpleNamespace(weights=lambda *_: weights, random=False),
        latents=lambda state: {"a/kernel": np.asarray(state.params["a"]["kernel"])},
    )
    state = train.TrainState.create(params, optax.identity(), key=jax.random.key(0))
    state = dataclasses.replace(state, step=jnp.array(7))
    return layers.Watch(run).records(state, epoch, signs)


def test_a_line_holds_flips_saturation_scale_and_counts():
    weights = {"a": {"kernel": jnp.array([[-1.5, 1.5, 0.3]])}, "b": {"bias": 0.0}}
    (line,) = lines(AFTER, weights, 2, metrics.pack_signs(BEFORE))
    # -3, 0 and 4 in bins of a fifth of the root mean square, from -4 of them on.
    bins = [int((value / RMS + 4) / 0.2) for value in (-3.0, 0.0, 4.0)]
    counts = line.pop("latents")
    assert [index for index, count in enumerate(counts) if count] == bins
    assert sum(counts) == 3
    assert len(counts) == len(layers.EDGES) - 1
    assert line == {
        "step": 7,
        "epoch": 2,
        "layer": "a/kernel",
        "flips_per_epoch": pytest.approx(2 / 3),  # sign(-0.0) is +1
        "saturated": pytest.approx(2 / 3),
        "rms": pytest.approx(RMS),
    }


def test_before_the_first_step_there_are_no_flips():
    (line,) = lines(BEFORE, BEFORE, 0, metrics.pack_signs(BEFORE))
    assert "flips_per_epoch" not in line


def test_what_lies_beyond_counts_in_the_outermost_bins_and_infinity_nowhere():
    values = np.concatenate([np.zeros(98), [np.inf, np.nan, -100.0, 100.0]])
    params = {"a": {"kernel": jnp.asarray(values, jnp.float32)}}
    (line,) = lines(params, params, 1, metrics.pack_signs(params))
    assert line["latents"][0] == line["latents"][-1] == 1
    assert sum(line["latents"]) == 100


def test_full_precision_has_no_lines():
    assert lines(BEFORE, BEFORE, 1, None) == []
