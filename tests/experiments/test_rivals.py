"""The methods of studies, one number at a time."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaste_jax import export, methods
from experiments import models
from experiments.models import hugging_face
from experiments.studies import equal_size, rivals

LATENTS = jax.random.normal(jax.random.key(0), (4, 3))
PARAMS = {"kernel": LATENTS}


def updated(method, params, grads):
    """Parameters after each step."""
    state, found = method.tx.init(params), []
    for step, grad in enumerate(grads):
        updates, state = method.tx.update(
            grad, state, params, weights=method.weights(params, step), step=step
        )
        params = optax.apply_updates(params, updates)
        found.append(params)
    return found


def test_ste_with_scales_is_a_scaled_sign_and_the_gradient_as_it_is():
    method = rivals.scaled_ste(9)
    wanted = np.abs(np.asarray(LATENTS, np.float64)).mean(0) * np.sign(LATENTS)
    weights, pull = jax.vjp(lambda p: method.weights(p, 0), PARAMS)
    np.testing.assert_allclose(weights["kernel"], wanted, rtol=1e-6)
    np.testing.assert_array_equal(pull(PARAMS)[0]["kernel"], LATENTS)
    np.testing.assert_array_equal(method.deploy(PARAMS)["kernel"], weights["kernel"])


@pytest.mark.parametrize("make", [rivals.scaled_ste, rivals.annealed])
def test_an_embedding_has_scales_along_its_rows(make):
    params = {"embed": {"embedding": LATENTS.T}, "norm": {"scale": jnp.ones(4)}}
    params["dense"] = PARAMS
    method = make(10, group=2, embedding=True)
    groups = np.asarray(LATENTS.T, np.float64).reshape(3, 2, 2)
    wanted = np.sign(groups) * np.abs(groups).mean(-1, keepdims=True)
    for found in (method.deploy(params), method.weights(params, 9)):
        table = found["embed"]["embedding"]
        np.testing.assert_allclose(table, wanted.reshape(3, 4), rtol=1e-6)
        assert found["norm"]["scale"] is params["norm"]["scale"]
    columns = np.asarray(LATENTS, np.float64).reshape(2, 2, 3)
    wanted = np.abs(columns).mean(1)
    shipped = np.abs(method.deploy(params)["dense"]["kernel"])
    np.testing.assert_allclose(shipped[::2], wanted, rtol=1e-6)
    assert method.where(params) == {
        "embed": {"embedding": True},
        "norm": {"scale": False},
        "dense": {"kernel": True},
    }
    plain = make(10, group=2).deploy(params)
    assert plain["embed"]["embedding"] is params["embed"]["embedding"]


def test_weight_decay_takes_a_share_of_the_latents_beside_the_step():
    rate, decay = 0.1, 0.5
    options = {"learning_rate": lambda step: rate * (step + 1)}
    grads = [{"kernel": jnp.full(LATENTS.shape, g)} for g in (0.3, -0.2)]
    plain = updated(rivals.scaled_ste(9, **options), PARAMS, grads)
    found = updated(rivals.scaled_ste(9, weight_decay=decay, **options), PARAMS, grads)
    latents = LATENTS
    for step, (one, other) in enumerate(zip(plain, found, strict=True)):
        moved = one["kernel"] - (plain[step - 1]["kernel"] if step else LATENTS)
        latents = latents + moved - rate * (step + 1) * decay * latents
        np.testing.assert_allclose(other["kernel"], latents, rtol=1e-5, atol=1e-6)


def test_the_average_of_the_latents_is_what_is_left_at_the_end():
    """Steps before the last are those without an average."""
    grads = [{"kernel": LATENTS * g} for g in (0.3, -0.2, 0.5, 0.1)]
    plain = updated(rivals.annealed(4), PARAMS, grads)
    found = updated(rivals.annealed(4, averaging=0.6), PARAMS, grads)
    for one, other in zip(plain[:-1], found[:-1], strict=True):
        np.testing.assert_array_equal(one["kernel"], other["kernel"])
    average = np.zeros(LATENTS.shape)
    for step, one in enumerate(plain):
        kept = min(0.6, step / (step + 1))
        average = kept * average + (1 - kept) * np.asarray(one["kernel"], np.float64)
    np.testing.assert_allclose(found[-1]["kernel"], average, rtol=1e-5, atol=1e-6)


def test_the_second_stage_begins_with_the_whole_learning_rate():
    method = rivals.two_stage(20, learning_rate=0.25)
    params = {"kernel": jnp.ones((2, 2))}
    sizes = []
    for step in range(20):
        grads = {"kernel": jnp.ones((2, 2))}
        state = method.tx.init(params)  # Adam's first step has the size of the rate
        updates, _ = method.tx.update(grads, state, params, weights=params, step=step)
        sizes.append(-float(updates["kernel"][0, 0]))
    wanted = [0.25 * (1 + math.cos(math.pi * (n % 10) / 10)) / 2 for n in range(20)]
    np.testing.assert_allclose(sizes, wanted, rtol=1e-4, atol=1e-6)
    assert method.binary_from == 10


@pytest.mark.parametrize("step", [0, 20, 80])
def test_ternary_weights_are_blended_with_the_latents(step):
    method = rivals.ternary_blend(100)
    share = min(step / 80, 1.0)
    latents = np.asarray(LATENTS, np.float64)
    scale = np.abs(latents).mean()
    levels = scale * np.clip(np.round(latents / scale), -1, 1)
    weights, pull = jax.vjp(lambda p: method.weights(p, step), PARAMS)
    wanted = (1 - share) * latents + share * levels
    np.testing.assert_allclose(weights["kernel"], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(pull(PARAMS)[0]["kernel"], LATENTS)
    np.testing.assert_allclose(method.deploy(PARAMS)["kernel"], levels, rtol=1e-6)
    assert method.binary_from == 80


def test_int8_is_what_llama_cpp_stores():
    gguf = pytest.importorskip("gguf")
    kernel = jax.random.normal(jax.random.key(1), (64, 5))
    params = {"kernel": kernel, "embedding": kernel.T * 3, "scale": kernel[:, 0]}
    found = rivals.int8(9).deploy(params)
    for name, rows in (("kernel", kernel.T), ("embedding", kernel.T * 3)):
        stored = gguf.quants.Q8_0.quantize(np.asarray(rows))
        wanted = gguf.quants.Q8_0.dequantize(stored)
        ours = found[name].T if name == "kernel" else found[name]
        # Where a quotient lies between two levels, either may be taken.
        far = np.abs(np.asarray(ours) - wanted) > 1e-6
        assert far.mean() < 0.01
        assert np.abs(np.asarray(ours) - wanted).max() < np.abs(rows).max() / 100
    assert found["scale"] is params["scale"]


def test_float16_is_rounded():
    found = rivals.float16(9).deploy(PARAMS)["kernel"]
    wanted = np.asarray(LATENTS).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == jnp.float32


@pytest.mark.parametrize("name", rivals.METHODS)
def test_an_optimiser_is_taken_and_steps_are_finite(name):
    method = rivals.METHODS[name](5, optimiser=functools.partial(optax.adam, b1=0.5))
    params = {"kernel": jax.random.normal(jax.random.key(2), (32, 2))}
    grads = [jax.tree.map(jnp.ones_like, params)] * 5
    last = updated(method, params, grads)[-1]
    assert np.isfinite(method.deploy(last)["kernel"]).all()
    assert np.any(last["kernel"] != params["kernel"])


@pytest.mark.parametrize(
    ("kind", "row", "real"),
    [
        ("binary embedding", "binary embedding, STE", "F16"),
        ("ternary", "ternary, STE", "Q8_0"),
        ("int8", None, "Q8_0"),
    ],
)
def test_bytes_are_those_of_the_tensors_of_a_gguf_file(kind, row, real, tmp_path):
    gguf = pytest.importorskip("gguf")
    network = models.create("decoder", 256, **equal_size.shape("0.25 MB", kind))
    init = functools.partial(network.init, train=False)
    tokens = jnp.zeros((1, 8), jnp.uint8)
    params = jax.jit(init)(jax.random.key(0), tokens)["params"]
    if row is not None:
        _, name, options = equal_size._ROWS[row]
        known = {**rivals.METHODS, "ternary_absmean": methods.ternary_absmean}
        params = known[name](9, **options).deploy(params)
    file = tmp_path / "network.gguf"
    config = hugging_face.config_of(network, context=128)
    tensors = hugging_face.tensors(network, params)
    export.to_gguf(file, tensors, config, real=real, packed=row is not None)
    sizes = [int(one.n_bytes) for one in gguf.GGUFReader(file).tensors]
    assert sum(sizes) == equal_size.file_bytes("0.25 MB", kind)
