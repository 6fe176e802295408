"""Decoders as folders of Hugging Face: `config.json` and `*.safetensors`.

A `Decoder` with norms of queries and keys is a Qwen3, one without them a Llama, one with
SubLN in their place a BitNet; `transformers` reads and writes all three.
"""

import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adaste_jax import export
from experiments import errors, models
from experiments.models.decoder import Decoder

CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"

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


class Checkpoint(NamedTuple):
    """What a folder holds.

    Attributes:
        num_classes: Size of the vocabulary.
        options: The other attributes of the `Decoder`.
        params: Its parameters, float32.
        digest: SHA-256 of the files with weights.
    """

    num_classes: int
    options: dict[str, Any]
    params: dict[str, Any]
    digest: str


def tensors(network: Decoder, params: Any) -> dict[str, np.ndarray]:
    """Parameters by the names of `transformers`; products are [outputs, inputs].

    Args:
        network: The network.
        params: Its latents, or the weights that are shipped.
    """
    return {
        name: np.ascontiguousarray(leaf.T if leaf.ndim == 2 and turned else leaf)
        for name, turned, leaf in (
            (name, turned, np.asarray(_at(params, path)))
            for name, (path, turned, _) in _places(network).items()
        )
    }


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


def write(
    folder: str | os.PathLike[str], network: Decoder, params: Any, *, context: int
) -> None:
    """Writes a folder that `transformers.AutoModelForCausalLM` loads.

    Args:
        folder: The folder, which is made; files in it of these names are replaced.
        network: The network.
        params: Its latents, or the weights that are shipped.
        context: Most tokens in a sequence: those that it was trained on.

    Raises:
        RunError: If no kind of model has its form, or the files cannot be written.
    """
    import safetensors.numpy

    text = json.dumps(config_of(network, context=context), indent=2) + "\n"
    data = safetensors.numpy.save(tensors(network, params), metadata={"format": "pt"})
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        export.write_file(folder / _WEIGHTS, data)
        export.write_file(folder / CONFIG, text.encode())
    except OSError as error:
        raise errors.RunError(f"cannot write {folder}: {error}") from error


def is_checkpoint(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is one of these, and no workdir."""
    folder = pathlib.Path(folder)
    there = any((folder / name).exists() for name in (_WEIGHTS, _INDEX))
    return there and (folder / CONFIG).exists()


def read(folder: str | os.PathLike[str]) -> Checkpoint:
    """The network in a folder, for `models.create("decoder", ...)`.

    Args:
        folder: A folder with `config.json` and `model.safetensors`, or its parts.

    Raises:
        RunError: If it cannot be read, or is not of a form that `Decoder` has.
    """
    folder = pathlib.Path(folder)
    described = _json(folder / CONFIG)
    network = _network(described, folder / CONFIG)
    places = _places(network)
    params: dict[str, Any] = {}
    digest, found = hashlib.sha256(), set()
    for file in _files(folder):
        try:
            digest.update(file.read_bytes())
            for name, leaf in _tensors(file):
                found.add(name)
                _put(params, name, leaf, places, file)
        except (OSError, ValueError) as error:
            raise errors.RunError(f"cannot read {file}: {error}") from error
    if missing := [name for name in places if name not in found]:
        raise errors.RunError(
            f"{folder} lacks {len(missing)} tensors that its {CONFIG} calls for: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}."
        )
    options = {name: getattr(network, name) for name in _OPTIONS}
    return Checkpoint(network.num_classes, options, params, digest.hexdigest())


_OPTIONS = (
    "width",
    "depth",
    "heads",
    "kv_heads",
    "head_dim",
    "hidden",
    "activation",
    "qk_norm",
    "sub_norm",
    "tied",
    "rope_theta",
    "norm_eps",
)


def _kind(network: Decoder) -> str:
    """What the form of a network is called."""
    if network.qk_norm and network.sub_norm:
        raise errors.RunError(
            "no model of Hugging Face or llama.cpp has both qk_norm (Qwen3) and "
            "sub_norm (BitNet): train with one of them."
        )
    return "qwen3" if network.qk_norm else "bitnet" if network.sub_norm else "llama"


def _places(network: Decoder) -> dict[str, tuple[list[str], bool, tuple[int, ...]]]:
    """Where each tensor has its leaf, whether it is transposed, and its shape there."""
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    init = functools.partial(network.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), tokens)["params"]
    places = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        keys = [key.key for key in path]
        if keys[0].startswith("Block_"):
            number = keys[0].removeprefix("Block_")
            name = f"model.layers.{number}.{_BLOCK[keys[1]]}.weight"
        else:
            name = f"{_TOP[keys[0]]}.weight"
        places[name] = keys, keys[-1] == "kernel", leaf.shape
    return places


def _network(described: Mapping[str, Any], file: pathlib.Path) -> Decoder:
    """The network that a `config.json` describes."""

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


def _json(file: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise errors.RunError(f"cannot read {file}: {error}") from error
    if not isinstance(found, dict):
        raise errors.RunError(f"cannot read {file}: it holds no JSON object.")
    return found


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files with weights: one, or those that an index lists."""
    if not (folder / _INDEX).exists():
        return [folder / _WEIGHTS]
    names = set(_json(folder / _INDEX).get("weight_map", {}).values())
    for name in names:
        if not re.fullmatch(r"[\w.-]+\.safetensors", str(name)):
            raise errors.RunError(f"{folder / _INDEX} names {name!r}, no file there.")
    return [folder / name for name in sorted(names)]


def _tensors(file: pathlib.Path) -> Iterator[tuple[str, np.ndarray]]:
    import safetensors

    with safetensors.safe_open(file, framework="flax") as opened:
        for name in opened.keys():  # noqa: SIM118
            yield name, np.asarray(opened.get_tensor(name), np.float32)


def _put(
    params: dict[str, Any],
    name: str,
    leaf: np.ndarray,
    places: Mapping[str, tuple[list[str], bool, tuple[int, ...]]],
    file: pathlib.Path,
) -> None:
    """Puts a tensor into the tree."""
    if name not in places:
        if name == "lm_head.weight" or name.endswith("rotary_emb.inv_freq"):
            return  # of a tied head, and of positions: both follow from the rest
        raise errors.RunError(
            f"{file} holds {name!r}, which a decoder of its {CONFIG} does not have."
        )
    path, turned, shape = places[name]
    leaf = leaf.T if turned else leaf
    if leaf.shape != shape:
        raise errors.RunError(
            f"{file} holds {name!r} of shape {leaf.shape[::-1] if turned else leaf.shape}"
            f", and its {CONFIG} calls for {shape[::-1] if turned else shape}."
        )
    *folders, last = path
    for key in folders:
        params = params.setdefault(key, {})
    params[last] = np.ascontiguousarray(leaf)


def _at(params: Any, path: list[str]) -> Any:
    return functools.reduce(lambda tree, key: tree[key], path, params)
