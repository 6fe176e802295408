"""Nothing that is NaN or infinite is exported: refused by name, before a byte."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import estimators, export

X = jnp.linspace(-1.0, 1.0, 24).reshape(8, 3)


def _network():
    params = {
        "body": {"kernel": X, "bias": jnp.ones(3, jnp.bfloat16)},
        "head": {"kernel": -X},
        "count": jnp.int32(3),
    }
    state = {"batch_stats": {"mean": jnp.zeros(3), "var": jnp.ones(3)}}
    return params, state


def _forward(params, state, inputs):
    return inputs @ params["body"]["kernel"] + state["batch_stats"]["mean"]


def _save(path, params, state):
    export.save(path, params, model_state=state)


def _packed_forward(path, params, state):
    export.packed_forward(_forward, params, state)


def _to_stablehlo(path, params, state):
    export.to_stablehlo(_forward, params, state, input_shape=(8,), path=path)


WAYS = {"save": _save, "packed_forward": _packed_forward, "to_stablehlo": _to_stablehlo}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("leaf", "name"),
    [
        ((0, "body", "kernel"), "params/body/kernel"),
        ((0, "body", "bias"), "params/body/bias"),
        ((1, "batch_stats", "var"), "model_state/batch_stats/var"),
    ],
)
def test_a_leaf_that_is_not_finite_is_named(tmp_path, way, value, leaf, name):
    network = _network()
    *folders, key = leaf
    node = network
    for folder in folders:
        node = node[folder]
    node[key] = node[key].at[-1].set(value)
    count = 3 if key == "kernel" else 1
    with pytest.raises(ValueError, match=rf"'{name}' \({count}\); in brackets"):
        WAYS[way](tmp_path / "model", *network)
    assert not list(tmp_path.iterdir())


def test_the_message_stays_short(tmp_path):
    lost = {f"layer_{n}": {"kernel": jnp.full(4, jnp.nan)} for n in range(9)}
    with pytest.raises(ValueError, match=r"layer_4/kernel' \(4\) and 4 more leaves"):
        export.save(tmp_path / "model", lost)


@pytest.mark.parametrize("way", [_save, _to_stablehlo])
def test_a_scale_that_is_not_finite_is_named(tmp_path, monkeypatch, way):
    """Of finite latents: a map that divides by their spread, of which there is none."""
    params, state = _network()
    params["head"]["kernel"] = jnp.ones((8, 3))

    def deploy(latent):
        return estimators.ste(latent) / jnp.std(latent)

    call = {_save: export.save, _to_stablehlo: export.to_stablehlo}[way]
    rest = {"path": tmp_path / "m", "params": params, "deploy": deploy}
    if way is _to_stablehlo:
        rest |= {"forward": _forward, "input_shape": (8,)}
    with pytest.raises(ValueError, match=r"head/kernel' it gave magnitudes.*24 of 24"):
        call(**rest, model_state=state)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pack", [export.pack, export.pack_ternary])
def test_pack_refuses_nan_and_says_how_many(pack):
    weights = np.float32(X).copy()
    weights[2, 1] = weights[7, 0] = np.nan
    for dtype in (jnp.float32, jnp.bfloat16):
        for axis in (None, 0):
            with pytest.raises(ValueError, match=r"2 of 24 weights are NaN.*\(8, 3\)"):
                pack(jnp.asarray(weights, dtype), axis=axis)
    infinite = jnp.where(jnp.isnan(weights), jnp.inf, weights)
    np.testing.assert_array_equal(pack(infinite), pack(jnp.nan_to_num(infinite)))
    assert jax.jit(pack)(X).dtype == jnp.uint8


@pytest.mark.parametrize("form", ["lookup", "pallas", "planes", "unpack"])
def test_a_product_shows_inputs_that_are_nan(form):
    """In their row only; weights are bytes, which cannot be NaN."""
    packed = export.pack(jnp.ones((13, 5)), axis=0)
    inputs = jnp.ones((3, 13)).at[1, 12].set(jnp.nan)
    got = np.asarray(export.packed_matmul(inputs, packed, form=form))
    assert np.isnan(got[1]).all()
    np.testing.assert_array_equal(got[[0, 2]], 13.0)


def test_folding_refuses_statistics_that_are_lost():
    ones = jnp.ones(3)
    for name in ("mean", "var", "scale", "bias"):
        for value in (jnp.nan, jnp.inf):
            arguments = {"mean": ones, "var": ones, "scale": ones, "bias": ones}
            arguments[name] = ones.at[1].set(value)
            with pytest.raises(ValueError, match=rf"'{name}' \(1\)"):
                export.fold_batch_norm(**arguments)
    with pytest.raises(ValueError, match=r"'folded bias' \(3\), 'folded scale' \(3\)"):
        export.fold_batch_norm(ones, -ones)  # a variance below zero
    for arguments in ((ones * jnp.nan, ones), (ones, ones * jnp.inf)):
        with pytest.raises(ValueError, match=r"'(scale|shift)' \(3\)"):
            export.fold_threshold(*arguments)
    factor, _ = jax.jit(export.fold_batch_norm)(ones, ones)
    assert factor.shape == (3,)


def test_a_folded_network_names_its_layer():
    from flax import linen as nn

    model = nn.Sequential(
        [nn.Dense(3), nn.BatchNorm(use_running_average=True), nn.relu]
    )
    variables = model.init(jax.random.key(0), jnp.ones((2, 4)))
    stats = variables["batch_stats"]["layers_1"]
    stats["var"] = stats["var"].at[2].set(jnp.nan)
    with pytest.raises(ValueError, match=r"BatchNorm at 'layers_1'.*'var' \(1\)"):
        export.fold_linen(model, variables, jnp.ones((2, 4)))


@pytest.mark.parametrize("shape", [(0, 4), (8, 0), (3, 3, 0, 2), (0,)])
@pytest.mark.parametrize(
    "deploy", [None, estimators.scaled_sign, estimators.ternary_absmean]
)
def test_a_kernel_without_entries_is_exported(tmp_path, shape, deploy):
    params = {"a": {"kernel": jnp.zeros(shape)}, "b": {"kernel": X}}
    path = tmp_path / "model.safetensors"
    export.save(path, params, deploy=deploy)
    loaded = export.load(path, params_like=params).params
    assert loaded["a"]["kernel"].shape == shape
    forward = export.packed_forward(
        lambda params, x: x @ params["b"]["kernel"] + params["a"]["kernel"].size,
        params,
        deploy=deploy,
    )
    np.testing.assert_allclose(
        forward(jnp.ones((2, 8))), jnp.ones((2, 8)) @ loaded["b"]["kernel"], rtol=1e-5
    )
    ternary = export.pack_ternary(params["a"]["kernel"])
    assert export.unpack_ternary(ternary, shape).shape == shape
    assert export.unpack(export.pack(params["a"]["kernel"]), shape).shape == shape
