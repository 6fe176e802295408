"""The vocabulary of a GGUF file: bytes, or that of a `tokenizer.json`."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5


class Vocabulary(NamedTuple):
    """Tokens as llama.cpp wants them."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    pre: str  # how text is cut into words, by the names of llama.cpp
    end: int | None


def vocabulary(path: str | os.PathLike[str] | None, size: int) -> Vocabulary:
    """The vocabulary of a model.

    Args:
        path: A `tokenizer.json`; None for bytes.
        size: Tokens that the model knows.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it holds something else than byte-level BPE, or more tokens.
    """
    if path is not None:
        return _of_file(pathlib.Path(path), size)
    if size != 256:
        raise ValueError(
            f"the vocabulary has {size} tokens, and bytes are 256: give `tokenizer`, "
            "the path of a tokenizer.json."
        )
    letters = _letters()
    # llama.cpp wants a merge. This one makes no token, so that it does not come to be.
    merge = f"{letters[0]} {letters[1]}"
    return Vocabulary(letters, [_NORMAL] * 256, [merge], "default", 0)


def write(writer: Any, found: Vocabulary) -> None:
    """Puts a vocabulary into a file."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(found.pre)
    writer.add_token_list(found.tokens)
    writer.add_token_types(found.types)
    writer.add_token_merges(found.merges)
    writer.add_add_bos_token(False)
    if found.end is not None:
        writer.add_eos_token_id(found.end)


def _letters() -> list[str]:
    """A letter that can be seen for each byte, as in GPT-2."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(byte if byte in shown else next(hidden)) for byte in range(256)]


def _of_file(path: pathlib.Path, size: int) -> Vocabulary:
    try:
        described = json.loads(path.read_text("utf-8"))
        model = described["model"]
        if model.get("type") != "BPE" or model.get("byte_fallback"):
            raise KeyError("it is no byte-level BPE")
        ids = dict(model["vocab"])
        special = {}
        for one in described.get("added_tokens") or ():
            ids[one["content"]] = one["id"]
            special[one["id"]] = _CONTROL if one["special"] else _USER_DEFINED
        merges = [
            one if isinstance(one, str) else " ".join(one) for one in model["merges"]
        ]
        pre = _pre(described.get("pre_tokenizer") or {})
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"cannot take {path} as a tokenizer: {error}.") from error
    if max(ids.values()) >= size:
        raise ValueError(
            f"{path} has tokens up to number {max(ids.values())}, and the model knows "
            f"{size}."
        )
    names = {number: token for token, number in ids.items()}
    tokens = [names.get(i, f"[PAD{i}]") for i in range(size)]
    types = [special.get(i, _NORMAL) if i in names else _UNUSED for i in range(size)]
    ends = ("<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "</s>")
    end = next((ids[name] for name in ends if name in ids), None)
    return Vocabulary(tokens, types, merges, pre, end)


def _pre(described: Mapping[str, Any]) -> str:
    """What llama.cpp calls a way to cut text into words."""
    text = json.dumps(described)
    if '"ByteLevel"' not in text:
        raise KeyError("its words are not cut into bytes (ByteLevel)")
    if "\\\\p{N}{1,3}" in text:
        return "llama-bpe"
    if "|\\\\p{N}|" in text:
        return "qwen2"
    if '"Regex"' in text:
        raise KeyError("its words are cut by a pattern that is not known here")
    return "gpt-2"
