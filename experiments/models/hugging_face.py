"""Decoders in the form of Hugging Face: names of tensors, and what `config.json` says.

A `Decoder` with norms of queries and keys is a Qwen3, one without them a Llama, one
with SubLN in their place a BitNet; `transformers` and llama.cpp know all three.
`hugging_face_files` reads and writes folders.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import errors, models
from experiments.models.decoder import Decoder

ARCHITECTURES = {
    "bitnet": "BitNetForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""Kinds of models, and their classes in `transformers`."""

_BLOCK = {
    "attention_norm": "input_layernorm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.o_proj",
    "query_norm": "self_attn.q_norm",
    "key_norm": "self_attn.k_norm",
    "out_norm": "self_attn.attn_sub_norm",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "expand": "mlp.up_proj",
    "contract": "mlp.down_proj",
    "contract_norm": "mlp.ffn_sub_norm",
}
_TOP = {"embed": "model.embed_tokens", "last_norm": "model.norm", "head": "lm_head"}


class Place(NamedTuple):
    """Where a tensor has its leaf."""

    path: list[str]
    turned: bool  # [inputs, outputs] here, [outputs, inputs] there
    shape: tuple[int, ...]  # here


def places(network: Decoder) -> dict[str, Place]:
    """The place of every tensor that a network has, by name."""
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    init = functools.partial(network.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), tokens)["params"]
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        keys = [key.key for key in path]
        if keys[0].startswith("Block_"):
            number = keys[0].removeprefix("Block_")
            name = f"model.layers.{number}.{_BLOCK[keys[1]]}.weight"
        else:
            name = f"{_TOP[keys[0]]}.weight"
        found[name] = Place(keys, keys[-1] == "kernel", leaf.shape)
    return found


def tensors(network: Decoder, params: Any) -> dict[str, np.ndarray]:
    """Parameters by the names of `transformers`; products are [outputs, inputs].

    Args:
        network: The network.
        params: Its latents, or the weights that are shipped.
    """
    found = {}
    for name, place in places(network).items():
        leaf = np.asarray(functools.reduce(lambda t, key: t[key], place.path, params))
        found[name] = np.ascontiguousarray(leaf.T if place.turned else leaf)
    return found


def config_of(network: Decoder, *, context: int) -> dict[str, Any]:
    """What `config.json` says of a network.

    Args:
        network: The network.
        context: Most tokens in a sequence: those that it was trained on.

    Raises:
        RunError: If no kind of model has its form.
    """
    kind = _kind(network)
    sizes = network.sizes()
    return {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        "vocab_size": network.num_classes,
        "hidden_size": network.width,
        "intermediate_size": sizes["hidden"],
        "num_hidden_layers": network.depth,
        "num_attention_heads": network.heads,
        "num_key_value_heads": sizes["kv_heads"],
        "head_dim": sizes["head_dim"],
        "hidden_act": network.activation,
        "rms_norm_eps": network.norm_eps,
        "rope_theta": network.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": network.rope_theta},
        "tie_word_embeddings": network.tied,
        "attention_bias": False,
        "mlp_bias": False,
        "max_position_embeddings": context,
        "torch_dtype": "float32",
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def network_of(described: Mapping[str, Any], file: Any) -> Decoder:
    """The network that a `config.json` describes.

    Args:
        described: What it holds.
        file: Its path, for messages.

    Raises:
        RunError: If `Decoder` does not have this form.
    """

    def refuse(field: str, expected: str) -> errors.RunError:
        return errors.RunError(
            f"{file}: {field} is {described.get(field)!r}, and a decoder here needs "
            f"{expected}."
        )

    kind = described.get("model_type")
    if kind not in ARCHITECTURES:
        raise refuse("model_type", f"one of {', '.join(ARCHITECTURES)}")
    for field in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if described.get(field):
            raise refuse(field, "false")
    rope = described.get("rope_parameters") or described.get("rope_scaling") or {}
    if (rope.get("rope_type") or rope.get("type") or "default") != "default":
        field = "rope_parameters" if "rope_parameters" in described else "rope_scaling"
        raise refuse(field, 'positions of the type "default"')
    heads = described.get("num_attention_heads", 0)
    values = {
        "width": described.get("hidden_size"),
        "depth": described.get("num_hidden_layers"),
        "heads": heads,
        "kv_heads": described.get("num_key_value_heads") or heads,
        "head_dim": described.get("head_dim") or 0,
        "hidden": described.get("intermediate_size"),
        "activation": described.get("hidden_act", "silu"),
        "qk_norm": kind == "qwen3",
        "sub_norm": kind == "bitnet",
        "tied": bool(described.get("tie_word_embeddings", False)),
        "rope_theta": rope.get("rope_theta") or described.get("rope_theta", 10000.0),
        "norm_eps": described.get("rms_norm_eps", 1e-6),
    }
    try:
        vocabulary = int(described["vocab_size"])
        found = models.create("decoder", vocabulary, **values)
    except (KeyError, TypeError, ValueError, errors.RunError) as error:
        raise errors.RunError(f"{file} describes no decoder: {error}") from error
    assert isinstance(found, Decoder)
    return found


def _kind(network: Decoder) -> str:
    """What the form of a network is called."""
    if network.qk_norm and network.sub_norm:
        raise errors.RunError(
            "no model of Hugging Face or llama.cpp has both qk_norm (Qwen3) and "
            "sub_norm (BitNet): train with one of them."
        )
    return "qwen3" if network.qk_norm else "bitnet" if network.sub_norm else "llama"
