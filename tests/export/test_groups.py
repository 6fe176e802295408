"""Files with a scale for each group: exact, with and without this library."""

import functools
import json
import os
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import adaste_jax
from adaste_jax import estimators, export, methods
from tests.export import hostile, test_format_page


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture(scope="module")
def read():
    names = {}
    exec(test_format_page.reader_code(), names)
    return names["read"]


def _drawn(shape, dtype=np.float32, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def _scales(loaded, name="params/kernel"):
    return loaded.header["tensors"][f"scales/{name}"]


KERNELS = {
    "dense": ((256, 10), 128, -2, [128, 1], [2, 10]),
    "convolution": ((3, 3, 64, 5), 32, -2, [1, 1, 32, 1], [3, 3, 2, 5]),
    "embedding": ((10, 256), 128, -1, [1, 128], [10, 2]),
    "into heads": ((64, 4, 6), 16, 0, [16, 1, 1], [4, 4, 6]),
    "out of heads": ((12, 64, 7), 128, (0, 1), [2, 64, 1], [6, 1, 7]),
    "vector": ((48,), 16, -1, [16], [3]),
    "bytes partly filled": ((27, 3), 9, -2, [9, 1], [3, 3]),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("estimator", "encoding"),
    [(estimators.scaled_sign, "bits"), (estimators.ternary_absmean, "trits")],
)
def test_groups_come_back_exactly(path, read, kernel, estimator, encoding):
    shape, size, axis, group, counts = KERNELS[kernel]
    latent = _drawn(shape)
    deploy = estimators.per_group(estimator, size, axis=axis)
    export.save(path, {"kernel": latent}, deploy=deploy)
    loaded = export.load(path)
    weights = np.asarray(deploy(latent))
    np.testing.assert_array_equal(loaded.params["kernel"], weights)
    stored = loaded.header["tensors"]["params/kernel"]
    assert (stored["encoding"], stored["group"]) == (encoding, group)
    assert (_scales(loaded)["shape"], _scales(loaded)["dtype"]) == (counts, "float32")
    assert loaded.header["format"] == 2
    np.testing.assert_array_equal(read(path)[0]["params/kernel"], weights)
    # Once more, from the weights that were read.
    export.save(path, loaded.params, deploy=lambda weights: weights)
    np.testing.assert_array_equal(export.load(path).params["kernel"], weights)


def test_scales_of_float16_are_rounded_and_nothing_else(path, read):
    latent = _drawn((256, 10))
    method = methods.scaled_sign(9, group=128)
    params = {"kernel": latent, "bias": jnp.arange(10.0).reshape(1, 10)}
    export.save(path, params, method=method, scale_dtype=jnp.float16)
    loaded = export.load(path)
    groups = np.asarray(latent).reshape(2, 128, 10)
    signs = np.where(groups >= 0, np.float32(1), np.float32(-1))
    scales = np.abs(np.asarray(method.deploy(params)["kernel"])).reshape(2, 128, 10)
    rounded = scales.astype(np.float16).astype(np.float32)
    assert (rounded != scales).any()
    expected = (signs * rounded).reshape(256, 10)
    assert loaded.params["kernel"].dtype == np.float32
    np.testing.assert_array_equal(loaded.params["kernel"], expected)
    np.testing.assert_array_equal(read(path)[0]["params/kernel"], expected)
    np.testing.assert_array_equal(loaded.params["bias"], params["bias"])
    assert _scales(loaded)["dtype"] == "float16"
    table = adaste_jax.summary(
        lambda params, x: x @ params["kernel"] + params["bias"],
        params,
        jnp.ones((1, 256)),
        method=method,
        scale_dtype=jnp.float16,
    )
    data = path.read_bytes()
    assert table.bytes == len(data) - 8 - int.from_bytes(data[:8], "little")


def test_scales_of_float16_without_groups(path, read):
    latent = _drawn((16, 3))
    deploy = estimators.scaled_sign
    export.save(path, {"kernel": latent}, deploy=deploy, scale_dtype="float16")
    loaded = export.load(path)
    weights = np.asarray(deploy(latent))
    expected = np.sign(weights) * np.abs(weights).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(loaded.params["kernel"], expected)
    np.testing.assert_array_equal(read(path)[0]["params/kernel"], expected)
    assert loaded.header["format"] == 2
    assert "group" not in loaded.header["tensors"]["params/kernel"]


def test_files_without_groups_are_written_as_before(path):
    latent = _drawn((16, 3))
    for deploy in (None, estimators.scaled_sign, estimators.ternary_absmean):
        export.save(path, {"kernel": latent}, deploy=deploy)
        assert export.load(path).header["format"] == 1
    export.save(path, {"kernel": latent}, scale_dtype="float16")  # signs have no scale
    assert export.load(path).header["format"] == 1
    half = latent.astype(jnp.float16)
    export.save(path, {"kernel": half}, deploy=deploy, scale_dtype="float16")
    assert export.load(path).header["format"] == 1  # of the dtype of the weights


@pytest.mark.parametrize("key", ["mlp/~/linear", "a~b", "/"])
def test_keys_with_slashes(path, read, key):
    latent = _drawn((32, 3))
    deploy = estimators.per_group(estimators.ternary_twn, 16)
    export.save(path, {key: {"kernel": latent}}, deploy=deploy)
    weights = np.asarray(deploy(latent))
    loaded = export.load(path)
    np.testing.assert_array_equal(loaded.params[key]["kernel"], weights)
    (array,) = read(path)[0].values()
    np.testing.assert_array_equal(array, weights)


def test_any_groups_come_back_and_the_page_agrees(path, read):
    """Trees of random shapes, groups, dtypes and levels, against NumPy."""
    rng = np.random.default_rng(0)
    grouped = 0
    for _ in range(24):
        params, expected = {}, {}
        half = bool(rng.integers(2))
        for name in ["kernel", "a/kernel", "b~"][: 1 + rng.integers(3)]:
            rank = rng.integers(1, 5)
            first, last = np.sort(rng.integers(0, rank, 2))
            block, counts = np.ones(rank, int), rng.integers(1, 4, rank)
            block[first : last + 1] = rng.integers(2, 5, last + 1 - first)
            block[first] *= 4
            counts[first + 1 : last + 1] = 1
            dtype = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16][
                rng.integers(2 if half else 4)
            ]
            levels = rng.integers(0 if rng.integers(2) else 1, 2, block * counts)
            levels = levels * rng.choice([-1, 1], levels.shape)
            scale = rng.uniform(0.1, 9, counts).astype(dtype)
            full = np.kron(scale.astype(float), np.ones(block)).astype(dtype)
            params[name] = levels.astype(dtype) * full
            if half:
                full = full.astype(np.float16).astype(dtype)
            expected[name] = levels.astype(dtype) * full
        save = functools.partial(export.save, path, where=lambda t: True)
        dtype = "float16" if half else None
        with jax.enable_x64(True):
            save(params, deploy=lambda w: w, scale_dtype=dtype)
        loaded = export.load(path)
        grouped += any("group" in t for t in loaded.header["tensors"].values())
        arrays, header = read(path)
        for name, weights in expected.items():
            assert loaded.params[name].dtype == weights.dtype
            np.testing.assert_array_equal(loaded.params[name], weights)
            escaped = name
            if header["format"] == 2:
                escaped = name.replace("~", "~0").replace("/", "~1")
            np.testing.assert_array_equal(
                arrays.pop(f"params/{escaped}"), weights.astype(float)
            )
        assert not arrays
    assert grouped > 6


@pytest.mark.parametrize("method", ["scaled_sign", "ternary_absmean", "ternary_twn"])
def test_a_network_has_the_same_outputs_in_every_form(path, method):
    method = methods.METHODS[method](9, group=16)
    key = jax.random.key(0)
    params = {
        "hidden": {
            "kernel": jax.random.normal(key, (64, 32)),
            "bias": jnp.ones((1, 32)),
        },
        "head": {"kernel": jax.random.normal(key, (32, 5))},
    }

    def forward(params, x):
        hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
        return hidden @ params["head"]["kernel"]

    x = jax.random.normal(key, (4, 64))
    assert method.binary_from == 0
    trained = forward(method.weights(params, 3), x)
    np.testing.assert_array_equal(forward(method.deploy(params), x), trained)
    export.save(path, params, method=method)
    np.testing.assert_array_equal(forward(export.load(path).params, x), trained)
    packed = export.packed_forward(forward, params, method=method)
    np.testing.assert_allclose(packed(x), trained, rtol=1e-5, atol=1e-5)
    program = export.to_stablehlo(
        forward, params, input_shape=(64,), method=method, platforms=("cpu",)
    )
    outputs = jax.export.deserialize(bytearray(program)).call(x)
    np.testing.assert_allclose(outputs, trained, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["unpack", "planes", "lookup"])
def test_packed_products_of_groups(form):
    """As the docstring of `packed_matmul` says."""
    latent, x = _drawn((64, 5)), _drawn((2, 3, 64), seed=1)
    weights = np.asarray(estimators.per_group(estimators.scaled_sign, 16)(latent))
    scales = jnp.abs(weights[::16])
    x, packed = x.reshape(2, 3, 4, 16), export.pack(latent, axis=0).reshape(4, 2, 5)
    product = functools.partial(export.packed_matmul, form=form)
    parts = jax.vmap(product, in_axes=(-2, 0), out_axes=-2)(x, packed)
    outputs = (parts * scales[None, None]).sum(-2)
    expected = np.asarray(x.reshape(2, 3, 64), float) @ weights
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


def test_weights_of_groups_are_not_taken_for_latents(path):
    weights = estimators.per_group(estimators.scaled_sign, 16)(_drawn((64, 3)))
    with pytest.raises(ValueError, match="an s for each channel or group"):
        export.save(path, {"kernel": weights})


def test_what_cannot_be_stored_is_refused(path):
    latent = _drawn((64, 3))
    with pytest.raises(ValueError, match="groups of at least 8 weights"):
        export.save(
            path,
            {"kernel": latent},
            deploy=estimators.per_group(estimators.scaled_sign, 4),
        )
    deploy = estimators.per_group(estimators.scaled_sign, 16)
    save = functools.partial(export.save, path, deploy=deploy)
    with pytest.raises(TypeError, match="`scale_dtype` must be float16 or None"):
        save({"kernel": latent}, scale_dtype="bfloat16")
    with pytest.raises(TypeError, match=r"bfloat16, which does not hold .* float16"):
        save({"kernel": latent.astype(jnp.bfloat16)}, scale_dtype="float16")
    for size, count in ((1e9, 12), (1e-12, 12)):
        with pytest.raises(ValueError, match=f"{count} scales that are 0 or infinite"):
            save({"kernel": size * latent}, scale_dtype="float16")
    assert not path.exists()


def _grouped(version=2, **changes):
    """A whole file with groups but for some fields of its kernel or its scale."""
    outer, inner, data = hostile.grouped()
    for name, fields in changes.items():
        name = {"kernel": "", "scale": "scales/"}[name] + "params/a~1b/kernel"
        inner["tensors"][name].update(fields)
    return hostile.assemble(outer, {**inner, "format": version}, data)


def _without_scale():
    outer, inner, _ = hostile.grouped()
    name = "params/rows"
    outer = {name: {**outer[name], "data_offsets": [0, 4]}}
    inner["tensors"] = {name: inner["tensors"][name]}
    return hostile.assemble(outer, inner, bytes([0, 121, 242, 7]))


@pytest.mark.parametrize(
    "data",
    [
        _grouped(version=1),
        _grouped(kernel={"group": [8]}),
        _grouped(kernel={"group": [8, 1, 1]}),
        _grouped(kernel={"group": [8, 2]}),
        _grouped(kernel={"group": [1, 8]}),
        _grouped(kernel={"group": [0, 1]}),
        _grouped(kernel={"group": [8.0, 1]}),
        _grouped(kernel={"group": [True, 8]}),
        _grouped(kernel={"group": []}),
        _grouped(kernel={"group": None}),
        _grouped(kernel={"group": 8}),
        _grouped(kernel={"dtype": "bfloat16"}),
        _grouped(scale={"group": [1, 1]}),
        _grouped(scale={"dtype": "int16"}),
        _without_scale(),
    ],
)
def test_a_file_with_other_groups_is_refused(path, read, data):
    path.write_bytes(data)
    with pytest.raises(export.FormatError):
        export.load(path)
    with pytest.raises(Exception):  # noqa: B017, PT011  any error is a refusal
        read(path)


def test_the_file_made_by_hand_is_read(path, read):
    path.write_bytes(_grouped())
    kernel = export.load(path).params["a/b"]["kernel"]
    bits = np.unpackbits(np.uint8([[1, 2], [3, 254]]), axis=0, bitorder="little")
    expected = (2.0 * bits - 1) * np.repeat([[0.5, 2], [3, 0.25]], 8, axis=0)
    np.testing.assert_array_equal(kernel, expected)
    np.testing.assert_array_equal(read(path)[0]["params/a~1b/kernel"], expected)


def test_q1_0_takes_these_bytes(path):
    """The 16 bytes of a block of llama.cpp are those of a column of packed inputs."""
    latent = _drawn((256, 10))
    method = methods.scaled_sign(9, group=128)
    params = {"kernel": latent}
    export.save(path, params, method=method, scale_dtype="float16")
    header = json.dumps(export.load(path).header)
    assert re.search(r'"group": \[128, 1\]', header)
    blocks = np.asarray(latent).T.reshape(10, 2, 128)
    packed = np.packbits(blocks >= 0, axis=-1, bitorder="little")  # [out, groups, 16]
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    container = json.loads(data[8:start])
    first, last = container["params/kernel"]["data_offsets"]
    stored = np.frombuffer(data[start + first : start + last], "u1").reshape(32, 10)
    np.testing.assert_array_equal(stored.T.reshape(10, 2, 16), packed)
    assert os.path.getsize(path) - start == 256 * 10 * 1.125 / 8
