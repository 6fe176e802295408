"""A decoder as a GGUF file with packed weights, which llama.cpp runs."""

import json
import os
import pathlib
import tempfile
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from adaste_jax.estimators import _base
from adaste_jax.export import _encode, _file, _gguf_blocks, _gguf_tokens

ARCHITECTURES = ("bitnet", "llama", "qwen3")
"""Kinds of models that can be written, by their names in both worlds."""

_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)


def to_gguf(
    path: str | os.PathLike[str],
    tensors: Mapping[str, ArrayLike],
    config: Mapping[str, Any],
    *,
    real: str = "F16",
    ternary: str = "TQ2_0",
    packed: bool = True,
    tokenizer: str | os.PathLike[str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a decoder as a GGUF file, which llama.cpp runs.

    The decoder comes in the form that Hugging Face's `transformers` gives it: tensors
    by name, of which products are [outputs, inputs], and what its `config.json` holds.
    Three kinds of models are known: Qwen3, Llama, and BitNet with `"silu"`.

    A matrix on two levels, s and -s, is stored as Q1_0: a bit for each weight, and s as
    float16 for each 128 inputs. One on s, 0 and -s is stored as TQ2_0 or TQ1_0, with
    one s for each 256 inputs. A scale of a tensor, of an output, or of a larger group
    is repeated. All other matrices, such as embeddings, are stored in `real`, norms in
    float32. The types have the numbers of llama.cpp's main line; forks that used those
    numbers for something else misread the file.

    llama.cpp rounds activations to int8 where weights are packed (32 inputs share a
    scale; 256 for ternary ones), so that its logits differ a little from those here.

    Args:
        path: File to write. It appears when it is complete; one that was there is
            replaced.
        tensors: The weights that are shipped, by name, as
            `"model.layers.0.self_attn.q_proj.weight"`; latents would be stored as
            real numbers. Without `"lm_head.weight"` the embedding is the head too.
        config: `model_type` ("qwen3", "llama" or "bitnet"), `vocab_size`,
            `hidden_size`, `intermediate_size`, `num_hidden_layers`,
            `num_attention_heads`, `num_key_value_heads`, `head_dim`, `rms_norm_eps`,
            `rope_theta`, `hidden_act`, `max_position_embeddings`. Others are not read.
        real: "F32", "F16" or "Q8_0" (int8 by groups of 32, 8.5 bits a weight).
        ternary: "TQ2_0" (2.0625 bits a weight, the faster one) or "TQ1_0" (1.6875).
        packed: If False, weights on few levels are stored in `real` too: a large file
            with the same answers, to compare with.
        tokenizer: A `tokenizer.json` of Hugging Face with byte-level BPE. Default: each
            byte is a token, which needs a vocabulary of 256.
        metadata: Texts by key, for example `{"general.name": "..."}`.

    Raises:
        ImportError: If gguf is not installed.
        OSError: If a file cannot be read or written.
        ValueError: If the model is of another form; a tensor is missing, unknown or not
            finite; a scale is 0 or infinite in float16; or the rows of a matrix on few
            levels do not divide into groups, or have other groups. The message names
            all such matrices, and what would do. Nothing is written then.

    Reference:
        The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; Q1_0:
        llama.cpp, pull request 21273.
    """
    try:
        import gguf

        types, file_types = gguf.GGMLQuantizationType, gguf.LlamaFileType
        file_types["MOSTLY_Q1_0"]  # the newest of those that are written
    except (ImportError, KeyError) as error:
        raise ImportError(
            'writing GGUF needs gguf 0.19 or newer: pip install "adaste_jax[gguf]"'
        ) from error
    _base.check_choice("real", real, ("F32", "F16", "Q8_0"))
    _base.check_choice("ternary", ternary, ("TQ2_0", "TQ1_0"))
    kind = _check(config)
    arrays = {name: np.asarray(leaf, np.float32) for name, leaf in tensors.items()}
    _encode.require_finite(tensors=arrays)
    named = _named(gguf, kind, arrays, config)
    stored = _gguf_blocks.stored(
        named, real=real, ternary=ternary, packed=packed, quants=gguf.quants
    )
    used = [one.kind for one in stored.values() if one.kind in _gguf_blocks.PACKED]
    if packed and not used:
        warnings.warn(
            f"no matrix is on few levels: the file holds all of them in {real}. If "
            "`tensors` are latents, give the weights of `method.deploy`; if not, "
            "`packed=False` says so.",
            stacklevel=2,
        )
    vocabulary = _gguf_tokens.vocabulary(tokenizer, int(config["vocab_size"]))

    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "model.gguf"
        writer = gguf.GGUFWriter(file, kind)
        _describe(writer, config)
        most = max(used, key=used.count) if used else real
        writer.add_file_type(
            file_types["ALL_F32" if most == "F32" else f"MOSTLY_{most}"]
        )
        writer.add_quantization_version(2)
        for key, text in {"general.name": "adaste_jax", **(metadata or {})}.items():
            writer.add_string(key, text)
        _gguf_tokens.write(writer, vocabulary)
        for name, one in stored.items():
            writer.add_tensor(name, one.data, raw_dtype=types[one.kind])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        _file.write_file(path, file.read_bytes())


def _check(config: Mapping[str, Any]) -> str:
    """The kind of model, if it can be written."""
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise ValueError(
            f"`config` has the model_type {kind!r}; {', '.join(ARCHITECTURES)} can be "
            "written."
        )
    if missing := [name for name in _FIELDS if name not in config]:
        raise ValueError(f"`config` lacks {', '.join(missing)}.")
    if (found := config.get("hidden_act", "silu")) != "silu":
        raise ValueError(
            f"`config` has the hidden_act {found!r}, and llama.cpp computes {kind} "
            'with "silu".'
        )
    for name in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if config.get(name):
            raise ValueError(f"`config` has {name}, which cannot be written.")
    rope = _rope(config)
    if (rope.get("rope_type") or rope.get("type") or "default") != "default":
        raise ValueError(
            f"`config` has the positions {json.dumps(rope)}; only those of the type "
            '"default" can be written.'
        )
    return str(kind)


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return config.get("rope_parameters") or config.get("rope_scaling") or {}


def _head_dim(config: Mapping[str, Any]) -> int:
    return int(
        config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    )


def _named(
    gguf: Any, kind: str, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The tensors by the names of llama.cpp, in its order of rows."""
    number = gguf.MODEL_ARCH[kind.upper()]
    names = gguf.get_tensor_name_map(number, config["num_hidden_layers"])
    heads = config["num_attention_heads"]
    counts = {
        "attn_q": heads,
        "attn_k": config.get("num_key_value_heads") or heads,
    }
    found = {}
    for name, array in arrays.items():
        renamed = name.replace("attn_sub_norm", "inner_attn_ln")
        renamed = renamed.replace("ffn_sub_norm", "ffn_layernorm")
        new = names.get_name(renamed, try_suffixes=(".weight",))
        if new is None:
            raise ValueError(f"{name!r} is no tensor of a model of the kind {kind}.")
        part = new.split(".")[-2]
        if kind == "llama" and part in counts:
            array = _interleaved(array, counts[part])
        found[new] = array
    expected = _shapes(kind, config, found)
    for name, shape in expected.items():
        if name not in found:
            raise ValueError(f"`tensors` lacks what llama.cpp calls {name!r}, {shape}.")
        if found[name].shape != shape:
            raise ValueError(
                f"{name!r} has the shape {found[name].shape}, and `config` calls for "
                f"{shape}."
            )
    if more := sorted(found.keys() - expected.keys()):
        raise ValueError(f"a model of the kind {kind} has no {', '.join(more)}.")
    return {name: found[name] for name in expected}


def _shapes(
    kind: str, config: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """What a model has, by the names of llama.cpp."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    heads, size = config["num_attention_heads"], _head_dim(config)
    kv_heads = config.get("num_key_value_heads") or heads
    shapes = {
        "token_embd.weight": (config["vocab_size"], width),
        "output_norm.weight": (width,),
    }
    if "output.weight" in found:
        if kind == "bitnet":
            raise ValueError(
                "llama.cpp has the embedding as the head of a bitnet: train with tied "
                'embeddings, and leave out "lm_head.weight".'
            )
        shapes["output.weight"] = (config["vocab_size"], width)
    block: dict[str, tuple[int, ...]] = {
        "attn_norm": (width,),
        "attn_q": (heads * size, width),
        "attn_k": (kv_heads * size, width),
        "attn_v": (kv_heads * size, width),
        "attn_output": (width, heads * size),
        "ffn_norm": (width,),
        "ffn_gate": (inner, width),
        "ffn_up": (inner, width),
        "ffn_down": (width, inner),
    }
    if kind == "qwen3":
        block |= {"attn_q_norm": (size,), "attn_k_norm": (size,)}
    if kind == "bitnet":
        block |= {"attn_sub_norm": (heads * size,), "ffn_sub_norm": (inner,)}
    for i in range(config["num_hidden_layers"]):
        shapes |= {f"blk.{i}.{part}.weight": shape for part, shape in block.items()}
    return shapes


def _interleaved(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a head in the order of pairs: llama.cpp turns i with i + 1 in a Llama."""
    halves = array.reshape(heads, 2, -1, array.shape[-1])
    return halves.swapaxes(1, 2).reshape(array.shape)


def _describe(writer: Any, config: Mapping[str, Any]) -> None:
    """The sizes of the model."""
    heads, size = config["num_attention_heads"], _head_dim(config)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    theta = _rope(config).get("rope_theta") or config.get("rope_theta", 10000.0)
    writer.add_rope_freq_base(theta)
