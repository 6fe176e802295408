"""The decoder in the shape of Qwen3 and Llama: its attention, its cache, both APIs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import errors, models
from experiments.models import decoder

NUM_CLASSES = 11
TOKENS = np.random.default_rng(2).integers(0, NUM_CLASSES, (2, 7), np.uint8)
SIZES = {"width": 16, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 24}
FORMS = {
    "qwen3": {},
    "llama": {"qk_norm": False, "tied": False, "head_dim": 6},
    "bitnet": {"qk_norm": False, "sub_norm": True, "activation": "relu2"},
}


def create(form, **options):
    return models.create("decoder", NUM_CLASSES, **SIZES, **FORMS[form], **options)


@functools.cache
def params_of(form):
    """Parameters whose norms have scales other than 1."""
    init = functools.partial(create(form).init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), TOKENS)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0.1, 0.5, leaf.shape), leaf.dtype), shapes
    )


@functools.cache
def logits_of(form, tokens=None, **options):
    network = create(form, **options)
    tokens = TOKENS if tokens is None else np.asarray(tokens, np.uint8)
    call = jax.jit(functools.partial(network.apply, train=False))
    return np.asarray(call({"params": params_of(form)}, tokens))


def reference(form, tokens, **options):
    """Logits of one sequence in float64, position by position, head by head."""
    network, params = create(form, **options), params_of(form)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    sizes = network.sizes()
    heads, kv_heads, d = (sizes[k] for k in ("heads", "kv_heads", "head_dim"))

    def norm(x, scale):
        return x / np.sqrt(np.mean(x * x) + network.norm_eps) * scale["scale"]

    def product(x, name, place):
        if name in network.int8_inputs:
            groups = x.reshape(-1, network.int8_group)
            unit = np.abs(groups).max(axis=1, keepdims=True) / 127
            unit[unit == 0] = 1
            x = (np.rint(groups / unit) * unit).ravel()
        return x @ place[name]["kernel"]

    def turn(x, position):
        turned = np.empty(d)
        for i in range(d // 2):
            angle = position / network.rope_theta ** (2 * i / d)
            pair = complex(x[i], x[i + d // 2]) * np.exp(1j * angle)
            turned[i], turned[i + d // 2] = pair.real, pair.imag
        return turned

    def gated(x):
        if network.activation == "silu":
            return x / (1 + np.exp(-x))
        return np.maximum(x, 0) ** 2

    xs = [params["embed"]["embedding"][token] for token in tokens]
    for number in range(network.depth):
        block = params[f"Block_{number}"]
        queries, keys, values = [], [], []
        for position, x in enumerate(xs):
            seen = norm(x, block["attention_norm"])
            q = np.split(product(seen, "query", block), heads)
            k = np.split(product(seen, "key", block), kv_heads)
            if network.qk_norm:
                q = [norm(one, block["query_norm"]) for one in q]
                k = [norm(one, block["key_norm"]) for one in k]
            queries.append([turn(one, position) for one in q])
            keys.append([turn(one, position) for one in k])
            values.append(np.split(product(seen, "value", block), kv_heads))
        for position, x in enumerate(xs):
            found = []
            for head in range(heads):
                shared = head * kv_heads // heads
                past = range(position + 1)
                scores = np.array(
                    [queries[position][head] @ keys[t][shared] for t in past]
                )
                share = np.exp(scores / np.sqrt(d))
                share /= share.sum()
                found.append(sum(share[t] * values[t][shared] for t in past))
            found = np.concatenate(found)
            if network.sub_norm:
                found = norm(found, block["out_norm"])
            x = x + product(found, "out", block)
            seen = norm(x, block["mlp_norm"])
            inner = gated(product(seen, "gate", block))
            inner = inner * (product(seen, "expand", block))
            if network.sub_norm:
                inner = norm(inner, block["contract_norm"])
            xs[position] = x + product(inner, "contract", block)
    xs = [norm(x, params["last_norm"]) for x in xs]
    if network.tied:
        return np.array(xs) @ params["embed"]["embedding"].T
    return np.array([product(x, "head", params) for x in xs])


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_those_of_the_formulas(form):
    expected = reference(form, TOKENS[0])
    assert expected.std() > 0.3
    np.testing.assert_allclose(logits_of(form)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("form", "scan"), [("llama", "off"), ("bitnet", "on")])
def test_inputs_of_the_named_products_are_rounded_to_int8(form, scan):
    names = ("query", "out", "gate", "contract", "head")
    options = {"int8_inputs": names, "int8_group": 8}
    expected = reference(form, TOKENS[0], **options)
    assert np.abs(expected - logits_of(form)[0]).max() > 3e-3
    found = logits_of(form, scan=scan, **options)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_a_changed_token_changes_the_logits_from_its_position_on(form):
    before = logits_of(form)
    for position in (0, 3, 6):
        changed = TOKENS.copy()
        changed[:, position] = (changed[:, position] + 1) % NUM_CLASSES
        after = logits_of(form, tuple(map(tuple, changed)))
        np.testing.assert_allclose(after[:, :position], before[:, :position], atol=1e-5)
        different = np.abs(after - before).max(axis=(0, 2)) > 1e-4
        assert different[position:].all()


@pytest.mark.parametrize(("form", "scan"), [("llama", "off"), ("bitnet", "on")])
def test_both_apis_give_the_same_logits(form, scan):
    network = create(form, scan=scan)
    forward = jax.jit(models.functional(network, TOKENS, flax_api="nnx"), **STATIC)
    logits, _ = forward(params_of(form), {}, TOKENS, train=False, key=None)
    np.testing.assert_allclose(logits, logits_of(form), rtol=1e-5, atol=1e-5)


STATIC = {"static_argnames": ("train", "key")}


def test_scanned_and_not_in_both_apis_the_gradient_is_the_same():
    found = {}
    for scan, flax_api in (("off", "linen"), ("on", "nnx")):
        network = create("qwen3", scan=scan)
        forward = models.functional(network, TOKENS, flax_api=flax_api)

        def loss(params, forward=forward):
            logits, _ = forward(params, {}, TOKENS, train=True, key=None)
            return jnp.square(logits).mean()

        found[scan] = jax.jit(jax.grad(loss))(params_of("qwen3"))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        found["on"],
        found["off"],
    )
    assert all(np.abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(found["on"]))


@pytest.mark.parametrize(
    ("form", "scan"), [("qwen3", "off"), ("qwen3", "on"), ("llama", "on")]
)
def test_with_a_cache_the_logits_are_those_of_the_whole_sequence(form, scan):
    network, variables = create(form, scan=scan), {"params": params_of(form)}
    call = jax.jit(functools.partial(network.apply, train=False))
    cache, parts = network.new_cache(2, 9), []
    for piece in (TOKENS[:, :4], TOKENS[:, 4:5], TOKENS[:, 5:6], TOKENS[:, 6:]):
        logits, cache = call(variables, piece, cache)
        parts.append(logits)
    assert int(cache.length) == 7
    found = np.concatenate(parts, axis=1)
    np.testing.assert_allclose(found, logits_of(form), rtol=1e-5, atol=1e-5)


def test_a_module_of_nnx_has_the_cache_too():
    options = {**SIZES, "depth": 1, "scan": "on"}
    network = models.create("decoder", NUM_CLASSES, **options)
    model = models.create_nnx(
        "decoder", NUM_CLASSES, TOKENS, rngs=nnx.Rngs(0), **options
    )

    @nnx.jit
    def both(model):
        found, cache = model(TOKENS, network.new_cache(2, 9))
        return found, cache.length, model(TOKENS)

    found, length, whole = both(model)
    assert int(length) == 7
    np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-5)


def test_scanned_blocks_are_compiled_once_and_lower_for_accelerators():
    """The program of 12 blocks is about as long as that of 2."""
    lengths = {}
    for scan in ("on", "off"):
        for depth in (2, 12):
            options = {**SIZES, "depth": depth, "scan": scan, "dtype": "bfloat16"}
            network = models.create("decoder", NUM_CLASSES, **options)
            variables = jax.eval_shape(
                functools.partial(network.init, train=False), jax.random.key(0), TOKENS
            )
            traced = jax.jit(functools.partial(network.apply, train=True)).trace(
                variables, TOKENS
            )
            for platform in ("tpu", "cuda") if scan == "on" else ("cpu",):
                text = traced.lower(lowering_platforms=(platform,)).as_text()
                lengths[scan, depth] = text.count("dot_general")
    assert lengths["on", 12] == lengths["on", 2]
    assert lengths["off", 12] > 4 * lengths["off", 2]


def test_scanning_is_chosen_by_the_backend(monkeypatch):
    for backend, scanned in (("cpu", False), ("gpu", True), ("tpu", True)):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert create("qwen3")._scanned() is scanned
        assert create("qwen3", scan="off")._scanned() is False


def test_bfloat16_activations_keep_float32_parameters_and_logits():
    found = logits_of("qwen3", dtype="bfloat16")
    assert found.dtype == np.float32
    assert np.corrcoef(found.ravel(), logits_of("qwen3").ravel())[0, 1] > 0.99
    network = create("qwen3", dtype="bfloat16")
    variables, cache = {"params": params_of("qwen3")}, network.new_cache(2, 7)
    assert cache.keys.dtype == jnp.bfloat16
    cached, _ = jax.jit(functools.partial(network.apply, train=False))(
        variables, TOKENS, cache
    )
    np.testing.assert_allclose(cached, found, atol=0.05)


def test_rotary_positions_depend_on_the_distance_alone():
    rng = np.random.default_rng(0)
    query, key = (jnp.asarray(rng.normal(size=(1, 1, 1, 8)), "float32") for _ in "qk")

    def product(at, other):
        turned = [
            decoder.rotate(x, jnp.array([place]), 10000.0)
            for x, place in ((query, at), (key, other))
        ]
        return float(jnp.sum(turned[0] * turned[1]))

    assert product(9, 4) == pytest.approx(product(5, 0), abs=1e-5)
    assert abs(product(9, 4) - product(9, 3)) > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 4, "kv_heads": 3}, "kv_heads must divide heads, got 3 and 4"),
        ({"head_dim": 5}, "head_dim must be even.*got 5"),
        ({"width": 12, "heads": 4}, "head_dim must be even.*got 3, which is width"),
        ({"width": 10, "heads": 4}, "width must be a multiple of heads, got 10 and 4"),
        ({"activation": "gelu"}, "there are relu2, silu"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(errors.RunError, match=message):
        models.create("decoder", NUM_CLASSES, **options)
