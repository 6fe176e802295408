"""Packing against fixed bytes, NumPy and plain loops; the laws of both layouts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adaste_jax
from adaste_jax import export

# Kernels as Flax lays them out, with sizes that leave bytes partly filled.
SHAPES = {
    "dense": (13, 5),
    "convolution": (3, 3, 4, 6),
    "depthwise": (3, 3, 1, 10),
    "grouped": (1, 1, 2, 12),
    "embedding": (11, 7),
    "vector": (9,),
    "scalar": (),
    "empty": (0, 3),
    "whole bytes": (16, 8),
}


def latents(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def bits_by_loops(weights):
    """Bytes of a vector, bit by bit: the definition of the format."""
    packed = [0] * ((len(weights) + 7) // 8)
    for position, weight in enumerate(weights):
        if weight >= 0:
            packed[position // 8] += 2 ** (position % 8)
    return packed


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (None, [[0b10110001, 0b00011001, 0b1]]),
        (0, [[0b11, 0b00, 0b10, 0b10, 0b01, 0b11, 0b00, 0b01]]),
        (1, [[0b10110001], [0b00101101]]),
        (-1, [[0b10110001], [0b00101101]]),
    ],
)
def test_the_bytes_are_those_of_the_format(axis, expected):
    """Written down by hand: bit order and axis may never change."""
    first = [1, -1, -1, -1, 1, 1, -1, 1]
    weights = np.array([first, [1, -1, 1, 1, -1, 1, -1, -1]], np.float32)
    if axis is None:
        flat = [*first, 1, -1, -1, 1, 1, -1, -1, -1, 1]
        packed = export.pack(jnp.asarray(flat), axis=axis)[None]
    else:
        packed = export.pack(weights, axis=axis)
    np.testing.assert_array_equal(packed, np.array(expected, np.uint8))


def test_ternary_bytes_are_those_of_the_format():
    weights = jnp.array([1.0, 1.0, 1.0, 1.0, 1.0, -1.0, 0.0])
    packed = export.pack_ternary(weights)
    np.testing.assert_array_equal(packed, np.array([242, 3], np.uint8))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_every_kind_of_kernel_comes_back(shape):
    values = latents(shape)
    signs = np.where(values >= 0, 1.0, -1.0)
    axes = [None, *range(len(shape))[-2:], *([(0, 1, 2)] if len(shape) == 4 else [])]
    for axis in axes:
        packed = export.pack(values, axis=axis)
        assert packed.dtype == jnp.uint8
        assert packed.shape == export.packed_shape(shape, axis=axis)
        weights = export.unpack(packed, shape, axis=axis)
        np.testing.assert_array_equal(weights, signs)
    assert export.pack(values).size == -(-values.size // 8)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(0, 26), seed=st.integers(0, 99))
def test_bytes_are_those_of_a_loop(size, seed):
    values = latents((26,), seed)[:size]
    np.testing.assert_array_equal(export.pack(values), bits_by_loops(values))


def test_several_axes_are_packed_in_c_order():
    values = latents((3, 2, 4, 5))
    expected = np.packbits(values.reshape(24, 5) > 0, axis=0, bitorder="little")
    np.testing.assert_array_equal(export.pack(values, axis=(0, 1, 2)), expected)
    middle = np.packbits(values.reshape(3, 8, 5) > 0, axis=1, bitorder="little")
    np.testing.assert_array_equal(export.pack(values, axis=(1, 2)), middle)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_ternary_weights_come_back(shape):
    weights = np.random.default_rng(1).integers(-1, 2, shape).astype(np.float32)
    for axis in [None, 0] if shape else [None]:
        packed = export.pack_ternary(weights, axis=axis)
        assert packed.shape == export.packed_shape(shape, axis=axis, per_byte=5)
        restored = export.unpack_ternary(packed, shape, axis=axis)
        np.testing.assert_array_equal(restored, weights)


def test_signs_are_those_of_deploy():
    """Zeros are +1, and a subnormal number is a zero, as in compiled code."""
    edge = np.array([0.0, -0.0, 1e-40, -1e-40, -1e-30, np.inf, -np.inf], np.float32)
    deployed = adaste_jax.deploy({"kernel": jnp.asarray(edge)})["kernel"]
    np.testing.assert_array_equal(export.unpack(export.pack(edge), (7,)), deployed)
    np.testing.assert_array_equal(deployed, [1, 1, 1, 1, -1, 1, -1])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "int8"])
def test_dtypes_of_weights(float64, dtype):
    values = jnp.asarray(latents((10,)) * 3).astype(dtype)
    weights = export.unpack(export.pack(values), (10,), dtype=dtype)
    assert weights.dtype == dtype
    expected = np.where(np.asarray(values).astype(float) >= 0, 1, -1)
    np.testing.assert_array_equal(weights.astype(float), expected)


def test_a_tree_is_packed_by_tree_map():
    tree = {"a": latents((5, 3)), "b": [latents((8,))]}
    packed = jax.tree.map(export.pack, tree)
    restored = jax.tree.map(lambda p, w: export.unpack(p, w.shape), packed, tree)
    for weights, values in zip(
        jax.tree.leaves(restored), jax.tree.leaves(tree), strict=True
    ):
        np.testing.assert_array_equal(weights, np.where(values >= 0, 1, -1))


def test_compiled_and_sharded_packing_gives_the_same_bytes(strict_dtypes):
    """Sharded along an axis that is not packed, the bytes stay where they are."""
    values = latents((20, 8))
    mesh = jax.make_mesh((4,), ("out",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P(None, "out"))
    pack = jax.jit(lambda w: export.pack(w, axis=0))
    packed = pack(jax.device_put(values, sharding))
    np.testing.assert_array_equal(packed, export.pack(values, axis=0))
    assert packed.sharding.is_equivalent_to(sharding, packed.ndim)
    lowered = pack.lower(jax.ShapeDtypeStruct((20, 8), jnp.float32, sharding=sharding))
    assert "all-gather" not in lowered.compile().as_text()


@pytest.mark.parametrize("axis", [2, -3, (1, 0), (0, 2), ()])
def test_axes_that_are_not_there_or_not_neighbours_are_refused(axis):
    with pytest.raises(ValueError, match="neighbouring"):
        export.pack(latents((2, 3)), axis=axis)


@pytest.mark.parametrize("pack", [export.pack, export.pack_ternary])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.complex64])
def test_what_has_no_sign_is_refused(pack, dtype):
    with pytest.raises(TypeError, match="floating point or signed"):
        pack(np.ones(3, dtype))


def test_bytes_of_another_shape_or_dtype_are_refused():
    packed = export.pack(latents((16, 3)), axis=0)
    with pytest.raises(ValueError, match=r"\(3, 3\), got \(2, 3\)"):
        export.unpack(packed, (17, 3), axis=0)
    with pytest.raises(TypeError, match="uint8"):
        export.unpack(packed.astype(jnp.int32), (16, 3), axis=0)
