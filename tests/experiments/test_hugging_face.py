"""Decoders of Hugging Face: the logits of `transformers`, both ways."""

import functools
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from experiments import errors, models
from experiments.models import hugging_face_files

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 50,
    "max_position_embeddings": 64,
}
TOKENS = np.random.default_rng(0).integers(0, 50, (2, 9))
OURS = {"width": 32, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 48}
FORMS = {
    "qwen3": {"qk_norm": True},
    "llama": {"qk_norm": False},
    "bitnet": {"qk_norm": False, "sub_norm": True, "activation": "relu2"},
}


@pytest.fixture(scope="module")
def foreign():
    """Makes random models of `transformers`, and calls those of a folder."""
    torch = pytest.importorskip("torch", reason="torch is not installed (extra hf)")
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed (extra hf)"
    )

    class Foreign:
        def make(self, kind, folder, **fields):
            torch.manual_seed(0)
            name = {"qwen3": "Qwen3", "llama": "Llama", "bitnet": "BitNet"}[kind]
            fields = {"head_dim": 12 if kind == "qwen3" else 8, **SIZES, **fields}
            config = getattr(transformers, f"{name}Config")(**fields)
            model = getattr(transformers, f"{name}ForCausalLM")(config)
            with torch.no_grad():
                for parameter in model.parameters():  # norms other than 1
                    parameter.add_(torch.randn_like(parameter) * 0.2)
            model.save_pretrained(folder)

        def logits(self, folder, tokens):
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32
            )
            with torch.no_grad():
                return model(torch.tensor(tokens)).logits.numpy()

    return Foreign()


def logits_of(network, params, tokens):
    call = jax.jit(functools.partial(network.apply, train=False))
    return np.asarray(call({"params": params}, tokens))


def created(found):
    return models.create("decoder", found.num_classes, **found.options)


@functools.cache
def own(form, tied):
    network = models.create("decoder", 50, **OURS, **FORMS[form], tied=tied)
    init = functools.partial(network.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), TOKENS)["params"]
    rng = np.random.default_rng(0)
    return network, jax.tree.map(
        lambda leaf: rng.normal(0.1, 0.4, leaf.shape).astype(np.float32), shapes
    )


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("qwen3", {"tie_word_embeddings": True, "rope_theta": 5000.0}),
        ("qwen3", {"tie_word_embeddings": False}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"tie_word_embeddings": False, "rms_norm_eps": 1e-3}),
    ],
)
def test_a_model_of_transformers_has_its_logits_here(kind, fields, foreign, tmp_path):
    foreign.make(kind, tmp_path, **fields)
    found = hugging_face_files.read(tmp_path)
    assert found.options["tied"] == fields["tie_word_embeddings"]
    expected = foreign.logits(tmp_path, TOKENS)
    assert expected.std() > 0.3
    logits = logits_of(created(found), found.params, TOKENS)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("form", "tied"),
    [("qwen3", True), ("llama", True), ("llama", False), ("bitnet", False)],
)
def test_a_network_of_ours_has_its_logits_in_transformers(
    form, tied, foreign, tmp_path
):
    network, params = own(form, tied)
    hugging_face_files.write(tmp_path, network, params, context=128)
    expected = logits_of(network, params, TOKENS)
    np.testing.assert_allclose(
        foreign.logits(tmp_path, TOKENS), expected, atol=2e-4, rtol=1e-4
    )


@pytest.mark.parametrize("form", FORMS)
def test_what_is_written_is_read_again(form, tmp_path):
    network, params = own(form, form == "qwen3")
    hugging_face_files.write(tmp_path, network, params, context=128)
    found = hugging_face_files.read(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    assert created(found).sizes() == network.sizes()
    assert created(found).tied == network.tied
    assert len(found.digest) == 64


def test_weights_in_several_files_and_in_bfloat16_are_read(tmp_path):
    network, params = own("llama", True)
    hugging_face_files.write(tmp_path, network, params, context=128)
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    tensors = {
        name: leaf.astype(jax.numpy.bfloat16.dtype) for name, leaf in tensors.items()
    }
    names = sorted(tensors)
    files = {"one.safetensors": names[:5], "two.safetensors": names[5:]}
    for file, part in files.items():
        safetensors.numpy.save_file(
            {name: tensors[name] for name in part}, tmp_path / file
        )
    where = {name: file for file, part in files.items() for name in part}
    index = json.dumps({"weight_map": where})
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert hugging_face_files.is_checkpoint(tmp_path)
    found = hugging_face_files.read(tmp_path)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=5e-3),
        found.params,
        params,
    )


def test_a_folder_that_does_not_fit_is_refused_by_name(tmp_path):
    network, params = own("qwen3", True)
    hugging_face_files.write(tmp_path, network, params, context=128)
    config = json.loads((tmp_path / "config.json").read_text())

    def refused(message, **fields):
        (tmp_path / "config.json").write_text(json.dumps({**config, **fields}))
        with pytest.raises(errors.RunError, match=message):
            hugging_face_files.read(tmp_path)

    refused("model_type is 'gpt2'.*bitnet, llama, qwen3", model_type="gpt2")
    refused("attention_bias is True", attention_bias=True)
    refused("rope_parameters is.*'llama3'", rope_parameters={"rope_type": "llama3"})
    refused(r"lacks 11 tensors .*model.layers.2", num_hidden_layers=3)
    refused("layers.0.self_attn.k_norm.weight', which", model_type="llama")
    refused(
        r"down_proj.weight' of shape \(32, 48\), and .* \(32, 40\)",
        intermediate_size=40,
    )
    refused("describes no decoder.*depth must be", num_hidden_layers="many")
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 20)
    refused("cannot read .*model.safetensors")


def test_a_form_that_nobody_has_is_not_written(tmp_path):
    network = models.create("decoder", 50, **OURS, sub_norm=True)
    with pytest.raises(errors.RunError, match=r"no model .* both qk_norm"):
        hugging_face_files.write(tmp_path / "new", network, {}, context=128)
    assert not (tmp_path / "new").exists()
