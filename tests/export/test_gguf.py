"""GGUF files: llama.cpp gives the logits of JAX, from one bit a weight."""

import functools
import json

import jax
import numpy as np
import pytest

from adaste_jax import estimators, export
from experiments import models
from experiments.models import hugging_face
from tests.export import llama_cpp

gguf = pytest.importorskip("gguf")

SIZES = {"width": 256, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 512}
FORMS = {
    "qwen3": {},
    "llama": {"qk_norm": False, "tied": False, "rope_theta": 5000.0},
    "bitnet": {"qk_norm": False, "sub_norm": True},
}
BINARY = jax.jit(estimators.per_group(estimators.scaled_sign, 128))
TERNARY = jax.jit(estimators.per_group(estimators.ternary_absmean, 256))
MAPS = {
    "F32": lambda kernel: kernel,
    "Q1_0": BINARY,
    "TQ2_0": TERNARY,
    "TQ1_0": TERNARY,
    "scale of a tensor": lambda kernel: np.sign(kernel) * np.float32(0.0625),
    "scale of a channel": estimators.scaled_sign,
}
TEXT = "for each Größe: x = 1\n\treturn  None"
TOKENS = np.frombuffer(TEXT.encode(), np.uint8)


@functools.cache
def model(form="qwen3", scales="Q1_0", **options):
    """A network with weights, its logits of the text, and its form for the export."""
    network = models.create("decoder", 256, **SIZES, **FORMS[form], **options)
    init = functools.partial(network.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), TOKENS[None])["params"]
    rng = np.random.default_rng(0)

    def drawn(path, leaf):
        if leaf.ndim == 1:
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        array = rng.normal(0, 1 / 16, leaf.shape).astype(np.float32)
        if path[-1].key != "kernel":
            return array
        # float16 holds these scales, so that the file holds the weights exactly
        weights = np.asarray(MAPS[scales](array))
        return np.asarray(weights.astype(np.float16), np.float32)

    params = jax.tree_util.tree_map_with_path(drawn, shapes)
    call = jax.jit(functools.partial(network.apply, train=False))
    logits = np.asarray(call({"params": params}, TOKENS[None]))[0]
    tensors = hugging_face.tensors(network, params)
    return tensors, hugging_face.config_of(network, context=128), logits


def tensors_of(path):
    """Type, bytes and shape of each tensor of a file, as `gguf` reads them."""
    return {
        one.name: (one.tensor_type.name, np.asarray(one.data), tuple(one.shape))
        for one in gguf.GGUFReader(path).tensors
    }


def logits_of(path):
    loaded = llama_cpp.Model(path, 256)
    try:
        assert loaded.tokenize(TEXT) == TOKENS.tolist()
        return loaded.logits(TOKENS)
    finally:
        loaded.close()


@pytest.mark.parametrize("form", FORMS)
def test_real_weights_give_the_logits_of_jax_in_llama_cpp(form, tmp_path):
    tensors, config, expected = model(form, "Q1_0" if form == "qwen3" else "F32")
    assert expected.std() > 0.3
    path = tmp_path / "m.gguf"
    export.to_gguf(path, tensors, config, real="F32", packed=False)
    kinds = {kind for kind, *_ in tensors_of(tmp_path / "m.gguf").values()}
    assert kinds == {"F32"}
    np.testing.assert_allclose(logits_of(tmp_path / "m.gguf"), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("form", "scales", "options"),
    [
        ("qwen3", "Q1_0", {}),
        ("llama", "Q1_0", {"real": "Q8_0"}),
        ("bitnet", "TQ2_0", {"real": "F32"}),
        ("qwen3", "TQ1_0", {"ternary": "TQ1_0"}),
        ("qwen3", "scale of a tensor", {}),
        ("qwen3", "scale of a channel", {}),
    ],
)
def test_packed_weights_are_those_of_the_network(form, scales, options, tmp_path):
    """Bit for bit, by ggml's own function; logits differ by int8 activations."""
    tensors, config, expected = model(form, scales)
    path = tmp_path / "m.gguf"
    export.to_gguf(path, tensors, config, **options)
    found = tensors_of(path)
    kind = scales if "Q" in scales else "Q1_0"
    packed = {name for name, (one, *_) in found.items() if one == kind}
    assert len(packed) == 7 * SIZES["depth"] + (form == "llama")
    places = {
        "attn_q": "self_attn.q_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_down": "mlp.down_proj",
    }
    for place, name in places.items():
        _, data, shape = found[f"blk.1.{place}.weight"]
        weights = tensors[f"model.layers.1.{name}.weight"]
        assert shape == weights.shape[::-1]
        if form == "llama" and place == "attn_q":  # llama.cpp turns neighbours
            order = np.arange(64).reshape(2, 32).T.ravel()
            weights = weights.reshape(4, 64, 256)[:, order].reshape(256, 256)
        np.testing.assert_array_equal(llama_cpp.dequantize(kind, data), weights)
    real = options.get("real", "F16")
    assert found["token_embd.weight"][0] == real
    assert found["output_norm.weight"][0] == "F32"
    logits = logits_of(path)
    assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > 0.999
    assert (logits.argmax(-1) == expected.argmax(-1)).mean() > 0.9


def test_blocks_of_one_bit_are_those_of_the_format(tmp_path):
    """fp16 scale, then bit j % 8 of byte j // 8, 1 for +."""
    tensors, config, _ = model()
    export.to_gguf(tmp_path / "m.gguf", tensors, config)
    kind, data, _ = tensors_of(tmp_path / "m.gguf")["blk.0.ffn_up.weight"]
    weights = tensors["model.layers.0.mlp.up_proj.weight"]
    assert kind == "Q1_0"
    assert data.shape == (512, 2 * 18)
    for row, group in ((0, 0), (7, 1), (511, 1)):
        block = data[row, 18 * group : 18 * (group + 1)]
        scale = float(block[:2].view(np.float16)[0])
        for j in range(128):
            bit = block[2 + j // 8] >> (j % 8) & 1
            assert weights[row, 128 * group + j] == (scale if bit else -scale)


def test_the_file_says_what_it_is(tmp_path):
    tensors, config, _ = model()
    told = {"general.name": "a name"}
    export.to_gguf(tmp_path / "m.gguf", tensors, config, metadata=told)
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    found = {name: field.contents() for name, field in fields.items()}
    assert found["general.architecture"] == "qwen3"
    assert found["general.name"] == "a name"
    assert found["general.file_type"] == 40
    assert found["qwen3.attention.head_count_kv"] == 2
    assert found["qwen3.attention.key_length"] == 64
    assert found["tokenizer.ggml.add_bos_token"] is False
    assert len(found["tokenizer.ggml.tokens"]) == 256
    numbers = {"Q1_0": 41, "TQ1_0": 34, "TQ2_0": 35}
    assert {n: gguf.GGMLQuantizationType[n].value for n in numbers} == numbers


def test_latents_in_the_place_of_weights_are_noticed(tmp_path):
    tensors, config, _ = model("qwen3", "F32")
    with pytest.warns(UserWarning, match="no matrix is on few levels"):
        export.to_gguf(tmp_path / "m.gguf", tensors, config)


def changed(tensors, name, array):
    return {**tensors, name: np.asarray(array, np.float32)}


def test_rows_that_do_not_fit_are_refused_by_name_and_nothing_is_written(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"what was there")

    def refused(message, tensors, config, **options):
        with pytest.raises(ValueError, match=message):
            export.to_gguf(tmp_path / "m.gguf", tensors, config, **options)
        assert (tmp_path / "m.gguf").read_bytes() == b"what was there"

    narrow = {"width": 96, "heads": 2, "kv_heads": 1, "hidden": 256, "depth": 1}
    network = models.create("decoder", 256, **narrow)
    shapes = jax.eval_shape(
        functools.partial(network.init, train=False), jax.random.key(0), TOKENS[None]
    )["params"]
    rng = np.random.default_rng(0)
    signs = jax.tree.map(lambda one: rng.choice([-1.0, 1.0], one.shape), shapes)
    refused(
        r"'blk.0.attn_q.weight', .*: rows of 96 inputs, which groups of 128 \(Q1_0\) "
        r"do not fill: 128 inputs would do",
        hugging_face.tensors(network, signs),
        hugging_face.config_of(network, context=128),
    )
    tensors, config, _ = model()
    name = "model.layers.0.mlp.up_proj.weight"
    kernel = rng.normal(size=(256, 512)).astype(np.float32)
    fine = np.asarray(estimators.per_group(estimators.scaled_sign, 64)(kernel)).T
    refused(
        "'blk.0.ffn_up.weight': several scales among 128 inputs",
        changed(tensors, name, fine),
        config,
    )
    ternary = np.asarray(
        estimators.per_group(estimators.ternary_absmean, 128)(kernel)
    ).T
    refused("train with `group=256`", changed(tensors, name, ternary), config)
    large = np.sign(kernel.T) * 1e6
    refused("scale of 1e.06, which is 0 or", changed(tensors, name, large), config)
    lost = np.where(kernel.T > 3, np.nan, kernel.T)
    refused("up_proj.weight", changed(tensors, name, lost), config)
    refused(
        "lacks.*'blk.0.ffn_up.weight'",
        {key: one for key, one in tensors.items() if key != name},
        config,
    )
    refused("is no tensor of", changed(tensors, "more.weight", kernel), config)
    refused("has the shape", changed(tensors, name, kernel), config)
    refused("model_type 'gpt2'", tensors, {**config, "model_type": "gpt2"})
    refused("hidden_act 'relu2'", tensors, {**config, "hidden_act": "relu2"})
    refused(
        "lacks vocab_size",
        tensors,
        {key: one for key, one in config.items() if key != "vocab_size"},
    )
    refused("`real` must be one of", tensors, config, real="Q4_0")
    refused("give `tokenizer`", *of_vocabulary(300))


def of_vocabulary(size):
    tensors, config, _ = model()
    table = np.random.default_rng(0).normal(0, 1 / 16, (size, 256))
    changed_one = changed(tensors, "model.embed_tokens.weight", table)
    return changed_one, {**config, "vocab_size": size}


def test_a_tokenizer_of_hugging_face_goes_into_the_file(tmp_path):
    tokenizers = pytest.importorskip(
        "tokenizers", reason="tokenizers is not installed (extra hf)"
    )
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False
    )
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([TEXT, "return the size of each"] * 4, trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    path = tmp_path / "m.gguf"
    export.to_gguf(path, *of_vocabulary(300), tokenizer=tmp_path / "tokenizer.json")
    loaded = llama_cpp.Model(path, 300)
    for text in (TEXT, "return the size of each: None"):
        expected = tokenizer.encode(text).ids
        assert len(expected) < len(text.encode())
        assert loaded.tokenize(text) == expected
    loaded.close()
    described = json.loads((tmp_path / "tokenizer.json").read_text())
    described["model"]["type"] = "Unigram"
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="no byte-level BPE"):
        export.to_gguf(path, *of_vocabulary(300), tokenizer=tmp_path / "tokenizer.json")
