"""Packed products against NumPy's in float64."""

import adaste_jax_cpu
import jax
import jax.numpy as jnp
import numpy as np
import pytest


def draw(rows, inputs, outputs):
    rng = np.random.default_rng(rows + inputs + outputs)
    x = rng.standard_normal((rows, inputs)).astype(np.float32)
    signs = rng.integers(0, 2, (inputs, outputs)).astype(np.uint8)
    packed = np.packbits(signs, axis=0, bitorder="little")
    return x, packed, x.astype(np.float64) @ (2.0 * signs - 1)


@pytest.mark.parametrize("bits", [512, 256, 0])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [
        (1, 64, 64),
        (1, 1, 1),
        (3, 7, 5),
        (2, 65, 17),
        (5, 200, 1029),
        (1, 63, 2048),
        (2, 512, 1000),
    ],
)
def test_products_are_those_of_the_signs(rows, inputs, outputs, bits):
    x, packed, expected = draw(rows, inputs, outputs)
    found = jax.jit(adaste_jax_cpu.packed_matmul, static_argnames="bits")(
        x, packed, bits=bits
    )
    # Some ten sums in float32 for each output, of numbers of about sqrt(inputs).
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * inputs**0.5)


@pytest.mark.parametrize(
    "shapes", [((0, 16), (2, 4)), ((2, 16), (2, 0)), ((2, 0), (0, 4))]
)
def test_empty_arrays(shapes):
    x, packed = jnp.ones(shapes[0]), jnp.ones(shapes[1], jnp.uint8)
    found = adaste_jax_cpu.packed_matmul(x, packed)
    np.testing.assert_array_equal(found, np.zeros((shapes[0][0], shapes[1][1])))


def test_vmap():
    x, packed, expected = draw(4, 40, 24)
    found = jax.vmap(lambda row: adaste_jax_cpu.packed_matmul(row[None], packed)[0])(x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("x", "packed", "error"),
    [
        (jnp.ones((2, 16), jnp.bfloat16), jnp.ones((2, 4), jnp.uint8), TypeError),
        (jnp.ones((2, 16)), jnp.ones((2, 4), jnp.int8), TypeError),
        (jnp.ones((2, 17)), jnp.ones((2, 4), jnp.uint8), ValueError),
        (jnp.ones(16), jnp.ones((2, 4), jnp.uint8), ValueError),
    ],
)
def test_what_does_not_fit_is_refused(x, packed, error):
    with pytest.raises(error, match="must be"):
        adaste_jax_cpu.packed_matmul(x, packed)


@pytest.mark.parametrize("shape", [(2, 5), (3, 4), (8,)])
def test_the_handler_refuses_what_would_write_beyond_an_array(shape):
    adaste_jax_cpu.load()
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    call = jax.ffi.ffi_call("adaste_packed_matmul", result)
    with pytest.raises(jax.errors.JaxRuntimeError):
        call(jnp.ones((2, 16)), jnp.ones((2, 4), jnp.uint8), bits=np.int64(512))
