"""Convolutions and their gradients against XLA's, on shapes that kernels get wrong."""

import functools
import subprocess
import sys

import adaste_jax_cpu
import jax
import jax.numpy as jnp
import numpy as np
import pytest

# Inputs, kernel, strides, padding, dilation, groups.
CASES = {
    "plain": ((4, 8, 8, 16), (3, 3, 16, 32), (1, 1), "SAME", (1, 1), 1),
    "odd": ((3, 7, 5, 3), (3, 2, 3, 5), (1, 1), "VALID", (1, 1), 1),
    "one": ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), "VALID", (1, 1), 1),
    "strided": ((5, 9, 11, 7), (3, 3, 7, 17), (2, 3), ((1, 1), (0, 2)), (1, 1), 1),
    "last rows unused": ((2, 8, 8, 4), (3, 3, 4, 4), (3, 3), "VALID", (1, 1), 1),
    "shortcut": ((2, 8, 8, 16), (1, 1, 16, 32), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
    "dilated": ((2, 11, 9, 6), (3, 3, 6, 10), (1, 1), "SAME", (2, 3), 1),
    "groups": ((3, 6, 6, 12), (3, 3, 4, 9), (1, 1), "SAME", (1, 1), 3),
    "depthwise": ((2, 9, 9, 19), (3, 3, 1, 19), (2, 2), "SAME", (1, 1), 19),
    "multiplied": ((2, 5, 5, 3), (3, 3, 1, 6), (1, 1), "SAME", (1, 1), 3),
    "all padding": ((2, 3, 3, 2), (3, 4, 2, 3), (1, 1), ((2, 2), (3, 0)), (1, 1), 1),
    "wide": ((2, 4, 4, 3), (4, 4, 3, 130), (1, 1), "SAME_LOWER", (1, 1), 1),
    "line": ((3, 17, 5), (4, 5, 6), (2,), "SAME", (1,), 1),
    "volume": ((2, 5, 4, 6, 3), (3, 2, 3, 3, 4), (1, 2, 1), "SAME", (1, 1, 1), 1),
}
DTYPES = {"float32": 2e-6, "bfloat16": 1e-2}
"""Tolerances, relative to the largest value: of the order of sums, and of the dtype."""


def arrays(name, dtype):
    shape, kernel, *_ = CASES[name]
    rng = np.random.default_rng(len(name))
    draw = lambda shape: jnp.asarray(rng.standard_normal(shape), dtype)
    return draw(shape), draw(kernel)


def options(name):
    shape, _, strides, padding, dilation, groups = CASES[name]
    letters = "HWD"[: len(shape) - 2]
    return {
        "window_strides": strides,
        "padding": padding,
        "rhs_dilation": dilation,
        "dimension_numbers": (f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        "feature_group_count": groups,
    }


def products(function, name):
    """Outputs and both gradients, for random cotangents."""

    @jax.jit
    def run(x, w):
        y, back = jax.vjp(functools.partial(function, **options(name)), x, w)
        seeds = jnp.arange(y.size, dtype=jnp.float32).reshape(y.shape)
        return y, *back(jnp.sin(1.7 * seeds).astype(y.dtype))

    return run


def close(found, expected, tolerance):
    found, expected = (np.asarray(array, np.float64) for array in (found, expected))
    assert found.shape == expected.shape
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=tolerance * np.abs(expected).max()
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_those_of_xla(name, dtype):
    if dtype == "bfloat16" and not adaste_jax_cpu.has_bfloat16():
        pytest.skip("this machine has no bfloat16")
    x, w = arrays(name, dtype)
    run = products(adaste_jax_cpu.conv_general_dilated, name)
    text = run.lower(x, w).as_text()
    for handler in ("adaste_convolution", "_inputs", "_kernel"):
        assert handler in text
    # XLA's own sums are in float32, whatever the dtype of the arrays.
    expected = products(jax.lax.conv_general_dilated, name)(
        *(array.astype(jnp.float32) for array in (x, w))
    )
    for ours, theirs in zip(run(x, w), expected, strict=True):
        assert ours.dtype == dtype
        close(ours, theirs, DTYPES[dtype])


def test_gradients_of_gradients():
    name = "strided"
    x, w = arrays(name, jnp.float32)

    def second(function):
        loss = lambda x, w: jnp.sum(jnp.sin(function(x, w, **options(name))))
        norm = lambda x, w: sum(
            jnp.sum(jnp.cos(part)) for part in jax.grad(loss, (0, 1))(x, w)
        )
        return jax.jit(jax.grad(norm, (0, 1)))(x, w)

    found = second(adaste_jax_cpu.conv_general_dilated)
    expected = second(jax.lax.conv_general_dilated)
    for ours, theirs in zip(found, expected, strict=True):
        close(ours, theirs, 1e-5)  # sums of sums


def test_vmap_is_one_example_after_the_other():
    name = "groups"
    x, w = arrays(name, jnp.float32)
    several = jnp.stack([w, 2 * w, -w])

    def gradients(function):
        loss = lambda w: jnp.sum(jnp.sin(function(x, w, **options(name))))
        return jax.vmap(jax.grad(loss))(several)

    close(
        gradients(adaste_jax_cpu.conv_general_dilated),
        gradients(jax.lax.conv_general_dilated),
        2e-6,
    )


@pytest.mark.parametrize(
    ("shapes", "changes"),
    [
        (((0, 5, 5, 2), (3, 3, 2, 4)), {}),
        (((2, 5, 5, 2), (3, 3, 2, 4)), {"padding": ((-1, 1), (0, 0))}),
        (((2, 5, 5, 2), (3, 3, 2, 4)), {"padding": ((0, 3), (0, 0))}),
        (((2, 2, 2, 2), (5, 5, 2, 4)), {"padding": "VALID"}),
        (
            ((2, 5, 5, 2), (3, 3, 2, 4)),
            {"padding": ((1, 1),) * 2, "lhs_dilation": (2, 2)},
        ),
        (((2, 2, 5, 5), (4, 2, 3, 3)), {"dimension_numbers": None}),
        (((2, 5, 5, 2), (3, 3, 2, 4)), {"batch_group_count": 2}),
        (((2, 5, 5, 2), (3, 3, 2, 4)), {"dtype": jnp.float16}),
    ],
)
def test_what_onednn_does_not_do_is_left_to_xla(shapes, changes):
    dtype = changes.pop("dtype", jnp.float32)
    x, w = (jnp.ones(shape, dtype) for shape in shapes)
    settings = {
        "window_strides": (1, 1),
        "padding": "SAME",
        "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
    } | changes

    def gradient(function):
        return jax.make_jaxpr(jax.grad(lambda w: function(x, w, **settings).sum()))(w)

    ours = str(gradient(adaste_jax_cpu.conv_general_dilated))
    assert ours == str(gradient(jax.lax.conv_general_dilated))


def test_shapes_that_do_not_fit_are_an_error_of_jax():
    with pytest.raises(ValueError, match="feature"):
        adaste_jax_cpu.conv_general_dilated(
            jnp.ones((2, 5, 5, 3)),
            jnp.ones((3, 3, 2, 4)),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


@pytest.mark.parametrize(
    ("x", "w", "y", "strides", "groups"),
    [
        ((2, 5, 5, 3), (3, 3, 2, 4), (2, 5, 5, 4), 1, 1),  # channels
        ((2, 5, 5, 3), (3, 3, 3, 4), (3, 5, 5, 4), 1, 1),  # examples
        ((2, 5, 5, 3), (3, 3, 3, 4), (2, 50, 50, 4), 1, 1),  # outputs too large
        ((2, 5, 5, 3), (3, 3, 3, 4), (2, 5, 5, 4), 0, 1),
        ((2, 5, 5, 3), (3, 3, 3, 4), (2, 5, 5, 4), -1, 1),
        ((2, 5, 5, 3), (3, 3, 3, 4), (2, 5, 5, 4), 1, 0),
        ((2, 5, 5, 3), (3, 3, 3, 4), (2, 5, 5, 4), 1, 3),
        ((2, 5), (3, 3, 3, 4), (2, 5), 1, 1),
    ],
)
def test_handlers_refuse_what_would_read_beyond_an_array(x, w, y, strides, groups):
    adaste_jax_cpu.load()
    numbers = dict.fromkeys(("low", "high", "dilation"), np.ones(2, np.int64))
    numbers["strides"] = np.full(2, strides, np.int64)
    places = {
        "adaste_convolution": (x, w, y),
        "adaste_convolution_inputs": (y, w, x),
        "adaste_convolution_kernel": (x, y, w),
    }
    for name, (a, b, out) in places.items():
        call = jax.ffi.ffi_call(name, jax.ShapeDtypeStruct(out, jnp.float32))
        with pytest.raises(jax.errors.JaxRuntimeError):
            call(jnp.ones(a), jnp.ones(b), groups=np.int64(groups), **numbers)


def test_what_is_not_differentiated_holds_nothing_of_this_package():
    x, w = arrays("plain", jnp.float32)
    run = jax.jit(
        functools.partial(adaste_jax_cpu.conv_general_dilated, **options("plain"))
    )
    assert "adaste" not in run.lower(x, w).as_text()
    close(run(x, w), jax.lax.conv_general_dilated(x, w, **options("plain")), 0)


def test_other_platforms_get_xla():
    x, w = arrays("plain", jnp.float32)
    run = products(adaste_jax_cpu.conv_general_dilated, "plain")
    text = jax.export.export(run, platforms=["tpu"])(x, w).mlir_module()
    assert "custom_call" not in text
    assert "stablehlo.convolution" in text


_TWO_DEVICES = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import jax, jax.numpy as jnp, numpy as np, adaste_jax_cpu
from jax.sharding import Mesh, NamedSharding, PartitionSpec
mesh = Mesh(np.array(jax.devices()), "i")
x = jax.device_put(jnp.ones((4, 5, 5, 3)), NamedSharding(mesh, PartitionSpec("i")))
w = jnp.ones((3, 3, 3, 2))
def loss(function):
    return jax.jit(jax.grad(lambda w: jnp.sin(function(x, w, (1, 1), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"))).sum()))
ours = loss(adaste_jax_cpu.conv_general_dilated)
assert "adaste" not in ours.lower(w).as_text()
np.testing.assert_array_equal(ours(w), loss(jax.lax.conv_general_dilated)(w))
"""


def test_several_devices_are_left_to_xla():
    subprocess.run([sys.executable, "-c", _TWO_DEVICES], check=True)


_ONE_CORE = """
import os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
import jax, jax.numpy as jnp, adaste_jax_cpu
loss = lambda w: adaste_jax_cpu.conv_general_dilated(jnp.ones((8, 9, 9, 3)), w, (1, 1),
    "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")).sum()
jax.block_until_ready(jax.jit(jax.grad(loss))(jnp.ones((3, 3, 3, 4))))
for _ in range(3):
    jax.block_until_ready(jax.grad(loss)(jnp.ones((3, 3, 3, 4))))
print(len(os.listdir("/proc/self/task")))
"""


def test_no_threads_beside_those_of_xla():
    def count(program):
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return int(done.stdout)

    plain = _ONE_CORE.replace(
        "import jax, jax.numpy as jnp, adaste_jax_cpu",
        (
            "import jax, jax.numpy as jnp\nclass adaste_jax_cpu:\n"
            "    conv_general_dilated = jax.lax.conv_general_dilated"
        ),
    )
    assert count(_ONE_CORE) == count(plain)
