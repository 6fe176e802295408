"""The reader printed in `docs/format.md`, run without JAX and without the library."""

import json
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adaste_jax
from adaste_jax import estimators, export
from tests.export import hostile, test_file_fuzz

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "format.md"


def reader_code():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return code


@pytest.fixture(scope="module")
def read():
    names = {}
    exec(compile(reader_code(), str(PAGE), "exec"), names)
    return names["read"]


@pytest.fixture
def saved(tmp_path):
    rng = np.random.default_rng(0)
    params = {
        "stem": {"kernel": jnp.asarray(rng.normal(size=(3, 3, 3, 5)), jnp.float32)},
        "head": {"kernel": jnp.asarray(rng.normal(size=(8, 3)), jnp.float32)},
        "scalar": {"kernel": jnp.asarray(-1.0)},
        "half": {"bias": jnp.asarray(rng.normal(size=3), jnp.bfloat16)},
        "count": jnp.int32(-3),
    }
    path = tmp_path / "model.safetensors"
    export.save(path, params, metadata={"architecture": "demo"})
    return path, params


@pytest.mark.parametrize("compact", [False, True])
def test_it_reads_what_the_library_reads(read, saved, compact):
    path, params = saved
    export.save(path, params, compact=compact)
    arrays, header = read(path)
    deployed = adaste_jax.deploy(params)
    assert len(arrays) == 5
    for name in ("stem", "head", "scalar"):
        np.testing.assert_array_equal(
            arrays[f"params/{name}/kernel"], deployed[name]["kernel"]
        )
    np.testing.assert_array_equal(
        arrays["params/half/bias"], params["half"]["bias"].astype(jnp.float32)
    )
    assert arrays["params/count"] == -3
    assert header == export.load(path).header


@pytest.mark.parametrize(
    "deploy", [estimators.scaled_sign, estimators.ternary_absmean, jnp.sign]
)
@pytest.mark.parametrize("shape", [(10, 4), (3, 3, 2, 5), (7,)])
def test_it_reads_scales_and_trits(read, tmp_path, deploy, shape):
    latent = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)
    if shape == (7,) and deploy is estimators.scaled_sign:
        deploy = jnp.sign
    path = tmp_path / "model.safetensors"
    export.save(path, {"kernel": latent}, deploy=deploy)
    arrays, _ = read(path)
    assert list(arrays) == ["params/kernel"]
    np.testing.assert_array_equal(arrays["params/kernel"], deploy(latent))


@pytest.mark.parametrize("compact", [False, True])
def test_it_refuses_damage(read, saved, compact):
    path, params = saved
    export.save(path, params, compact=compact)
    whole = path.read_bytes()
    damaged = [whole[:-1], whole + b"\0"]
    for position in (len(whole) - 1, len(whole) - 10, 120):
        data = bytearray(whole)
        data[position] ^= 4
        damaged.append(bytes(data))
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(ValueError):  # noqa: PT011  each has its own message
            read(path)


def test_it_agrees_with_the_library_on_thousands_of_damaged_files(read, tmp_path):
    """What one refuses the other refuses, and what both read is the same."""
    path = tmp_path / "model.safetensors"
    accepted = 0
    for data, change, _ in test_file_fuzz.mutations(8000):
        path.write_bytes(data)
        try:
            loaded = export.load(path)
        except export.FormatError:
            with pytest.raises(Exception):  # noqa: B017, PT011  any error is a refusal
                read(path)
            continue
        arrays, header = read(path)
        accepted += 1
        assert header == loaded.header, change
        tree = {"params": loaded.params, "model_state": loaded.model_state}
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
            parts = [str(key.key) for key in keys]
            if header["format"] > 1:  # names are escaped there
                parts = [p.replace("~", "~0").replace("/", "~1") for p in parts]
            np.testing.assert_array_equal(arrays.pop("/".join(parts)), leaf)
        assert not arrays
    assert 100 < accepted < 4000


def changed(**fields):
    """A whole file but for some fields of its kernel."""
    outer, inner = hostile.parts()
    inner["tensors"]["params/kernel"].update(fields)
    return hostile.assemble(outer, inner)


@pytest.mark.parametrize(
    "data",
    [
        changed(axes=[1, 0]),
        changed(axes=[0, 1, 2]),
        changed(axes=[0, 0]),
        changed(axes=[]),
        changed(encoding="real"),
        changed(encoding="trits"),
        changed(dtype="int8"),
        changed(shape=[15.0]),
        changed(shape=[True, 15]),
        changed(extra=1),
        hostile.assemble(hostile.parts()[0], {**hostile.parts()[1], "format": True}),
        hostile.assemble(hostile.parts()[0], {**hostile.parts()[1], "metadata": []}),
        hostile.assemble({}, {**hostile.parts()[1], "tensors": []}, b""),
    ],
)
def test_it_refuses_what_the_page_says(read, tmp_path, data):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(export.FormatError):
        export.load(path)
    with pytest.raises(Exception):  # noqa: B017, PT011
        read(path)


@pytest.mark.parametrize(
    ("name", "version", "right"),
    [
        ("params/a~b", 1, True),
        ("params/a~b", 2, False),
        ("params/a~0b", 2, True),
        ("params/a~1~0~1b/w", 2, True),
        ("params/a~", 2, False),
        ("params/..~1b", 2, False),
        ("params/a~1.", 2, False),
        ("params/a~1..~1b", 2, False),
        ("params/a~01..", 2, True),
        ("params/a", 4, False),
    ],
)
def test_it_reads_the_keys_of_version_2(read, tmp_path, name, version, right):
    outer, inner = hostile.parts()
    outer[name] = outer.pop("params/kernel")
    inner["tensors"][name] = inner["tensors"].pop("params/kernel")
    path = tmp_path / "model.safetensors"
    path.write_bytes(hostile.assemble(outer, {**inner, "format": version}))
    if right:
        assert name in read(path)[0]
    else:
        with pytest.raises(ValueError):  # noqa: PT011  the message is the name
            read(path)


def test_it_is_one_page_and_needs_numpy_only(saved):
    path, params = saved
    code = reader_code()
    assert len(code.splitlines()) <= 80
    code += f"""
import sys
arrays, _ = read({str(path)!r})
assert not {{"jax", "adaste_jax", "safetensors"}} & set(sys.modules)
print(json.dumps(arrays["params/head/kernel"].tolist()))
"""
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    expected = adaste_jax.deploy(params)["head"]["kernel"]
    np.testing.assert_array_equal(json.loads(output.stdout), expected)


def test_the_example_of_the_page_is_right():
    kernel = np.array([[1, -1], [-1, -1], [1, 1]])
    assert export.pack(kernel) == 49
    assert "1 + 16 + 32 = 49" in PAGE.read_text()
