"""Keys with slashes: version 2 of the format, and version 1 wherever it will do."""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adaste_jax
from adaste_jax import estimators, export

KERNEL = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)
BIAS = jnp.arange(3.0)
ODD = ["conv/~/w", "~", "~1", "~0", "~01", "/", "//x", "x/", "a~b/c", "a/b~1", "π/é"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def _names(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    container = json.loads(data[8 : 8 + length])
    container.pop("__metadata__")
    return set(container)


def _assert_deployed(got, params):
    expected = adaste_jax.deploy(params)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.mark.parametrize("key", ODD)
def test_any_key_comes_back(path, key):
    params = {key: {"kernel": KERNEL, "bias": BIAS}, "plain": {key: BIAS + 1}}
    state = {"batch_stats": {key: [BIAS, -BIAS]}}
    export.save(path, params, model_state=state)
    loaded = export.load(path)
    assert loaded.header["format"] == (2 if "/" in key else 1)
    _assert_deployed(loaded.params, params)
    like = jax.eval_shape(lambda: (params, state))
    again = export.load(path, params_like=like[0], model_state_like=like[1])
    _assert_deployed(again.params, params)
    jax.tree.map(np.testing.assert_array_equal, again.model_state, state)


def test_names_are_json_pointers(path):
    params = {"mlp/~/linear_0": {"w": KERNEL, "b": BIAS}}
    state = {"mlp/~/norm": BIAS}
    deploy = estimators.scaled_sign
    export.save(path, params, where="/w$", deploy=deploy, model_state=state)
    weights = "params/mlp~1~0~1linear_0/w"
    expected = {weights, f"scales/{weights}", "params/mlp~1~0~1linear_0/b"}
    assert _names(path) == expected | {"model_state/mlp~1~0~1norm"}
    loaded = export.load(path, params_like=params)
    np.testing.assert_allclose(
        loaded.params["mlp/~/linear_0"]["w"], deploy(KERNEL), rtol=1e-6
    )


def test_two_leaves_of_one_path_are_two_tensors(path):
    params = {"a/b": {"kernel": KERNEL}, "a": {"b": {"kernel": -KERNEL}}}
    export.save(path, params)
    assert _names(path) == {"params/a~1b/kernel", "params/a/b/kernel"}
    _assert_deployed(export.load(path, params_like=params).params, params)
    _assert_deployed(export.load(path).params, params)


def test_version_1_has_names_as_they_are(path):
    """A tilde alone needs no escape, so such files stay what they were."""
    params = {"a~1b": {"kernel": KERNEL}}
    export.save(path, params)
    assert _names(path) == {"params/a~1b/kernel"}
    assert set(export.load(path).params) == {"a~1b"}
    with pytest.raises(
        ValueError, match="'a/b' has a slash, which a file of version 1"
    ):
        export.load(path, params_like={"a/b": {"kernel": KERNEL}})


def test_a_name_of_version_2_is_not_that_of_version_1(path):
    params = {"a/b": {"kernel": KERNEL}}
    export.save(path, params)
    with pytest.raises(ValueError, match="differ in"):
        export.load(path, params_like={"a~1b": {"kernel": KERNEL}})


@pytest.mark.parametrize("key", ["../x", "x/..", "./x", "a/./b", "a/..\\b"])
def test_keys_that_look_like_a_way_out_of_a_folder_are_refused(path, key):
    with pytest.raises(ValueError, match=r"between slashes|no name of a tensor"):
        export.save(path, {key: {"kernel": KERNEL}})
    assert not path.exists()
