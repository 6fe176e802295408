r"""One-bit language models at an equal size of the file: is fewer bits more?

    python -m experiments.studies.equal_size --workdir=runs/equal_size

Networks in the shape of Qwen3 on the text of Python's reference, as large as the file
allows: float16, int8 after training, ternary and binary, trained by STE and by a linear
blend that is annealed. For each the learning rate and the momentum are chosen on
validation by bits per byte. `--parts="1 MB;2 MB"` trains the larger ones; see
`annealing.py` for the other flags.
"""

import functools
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments import models
from experiments.configs import language_model
from experiments.studies import command, pages, rivals
from experiments.studies.study import Book, Part, Row, Study, rated

BITS = {"float32": 32.0, "float16": 16.0, "int8": 8.5, "ternary": 2.0625, "bit": 1.125}
"""Bits of a weight as llama.cpp stores it: F32, F16, Q8_0, TQ2_0 and Q1_0."""

KINDS = {
    "float16": ("float16", "float16"),
    "int8": ("int8", "int8"),
    "ternary": ("ternary", "int8"),
    "binary": ("bit", "int8"),
    "binary embedding": ("bit", "bit"),
}
"""What kernels and the embedding are stored as, which is the head too."""

# Width, blocks, features within the MLP, heads: the largest within the size, or nearly.
# Rows of binary products must divide by 128, of ternary ones by 256, of int8 by 32.
SHAPES: dict[str, dict[str, tuple[int, int, int, int]]] = {
    "0.25 MB": {
        "float16": (64, 2, 208, 2),
        "int8": (96, 2, 256, 4),
        "ternary": (256, 1, 512, 4),
        "binary": (256, 2, 512, 4),
        "binary embedding": (256, 2, 768, 4),
    },
    "0.5 MB": {
        "float16": (96, 2, 288, 4),
        "int8": (128, 2, 416, 4),
        "ternary": (256, 2, 768, 4),
        "binary": (256, 4, 640, 4),
        "binary embedding": (256, 4, 768, 4),
    },
    "1 MB": {
        "float16": (128, 2, 464, 4),
        "int8": (192, 2, 544, 6),
        "ternary": (256, 4, 768, 4),
        "binary": (256, 8, 768, 4),
        "binary embedding": (256, 8, 768, 4),
    },
    "2 MB": {
        "float16": (192, 2, 608, 6),
        "int8": (256, 2, 896, 4),
        "ternary": (256, 9, 768, 4),
        "binary": (512, 4, 1536, 8),
        "binary embedding": (512, 4, 1536, 8),
    },
}
"""Networks by the size of their file and by kind."""

_COMMAND = "python -m experiments.studies.equal_size --workdir=runs/equal_size"

BASE = "int8"
"""The row that others are compared with."""

_GROUP = {"group": 128}
_ROWS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "int8": ("int8", "int8", {}),
    "binary, annealed": ("binary", "annealed", _GROUP),
    "binary, STE": ("binary", "scaled_ste", _GROUP),
    "float16": ("float16", "float16", {}),
    "ternary, STE": ("ternary", "ternary_absmean", {"group": 256}),
    "ternary, annealed": ("ternary", "ternary_blend", {"group": 256}),
    "binary embedding, annealed": (
        *("binary embedding", "annealed"),
        {**_GROUP, "embedding": True},
    ),
    "binary embedding, STE": (
        *("binary embedding", "scaled_ste"),
        {**_GROUP, "embedding": True},
    ),
}
"""Kind, method and options of each row."""

_HURTS = {
    "binary, STE, weight decay": ("binary", "scaled_ste", {"weight_decay": 0.1}),
    "binary, STE, averaged": ("binary", "scaled_ste", {"averaging": 0.99}),
    "binary, annealed, weight decay": ("binary", "annealed", {"weight_decay": 0.1}),
    "binary, annealed, averaged": ("binary", "annealed", {"averaging": 0.99}),
}
"""What others report to hurt, at the smallest size."""


def shape(size: str, kind: str) -> dict[str, Any]:
    """Options of the network of a kind that fills a size."""
    width, depth, hidden, heads = SHAPES[size][kind]
    return {
        "width": width,
        "depth": depth,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": heads // 2,
    }


@functools.cache
def file_bytes(size: str, kind: str) -> int:
    """Bytes of the tensors of a network, as llama.cpp stores them."""
    network = models.create("decoder", 256, **shape(size, kind))
    tokens = jax.ShapeDtypeStruct((1, 128), jnp.uint8)
    init = functools.partial(network.init, train=False)
    params = jax.eval_shape(init, jax.random.key(0), tokens)["params"]
    kernels, embedding = KINDS[kind]
    stored = {"kernel": kernels, "embedding": embedding}

    def bits(path: Any, leaf: Any) -> float:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return BITS[stored.get(name, "float32")] * math.prod(leaf.shape)

    found = jax.tree_util.tree_map_with_path(bits, params)
    return round(sum(jax.tree.leaves(found)) / 8)


def equal_size(smoke: bool = False) -> Study:
    """Networks of equal size, by the size of the file."""
    config = rated(language_model.get_config("qwen3"), 3e-3)
    config.num_epochs = 6
    searched = config.copy_and_resolve_references()
    searched.num_epochs = 3
    parts = []
    for size in SHAPES:
        chosen = dict(_ROWS)
        if size == "0.25 MB":
            chosen |= {n: (k, m, _GROUP | o) for n, (k, m, o) in _HURTS.items()}
        rows = {
            name: Row(method, options, shape(size, kind))
            for name, (kind, method, options) in chosen.items()
        }
        parts.append(
            Part(
                size,
                config,
                rows,
                searched=searched,
                momenta=(0.8, 0.95),
                measure="bits_per_byte",
                asked=size in ("1 MB", "2 MB"),
            )
        )
    if smoke:
        config = rated(language_model.get_config("qwen3_smoke"), 3e-3)
        tiny = {"width": 64, "depth": 1, "hidden": 64, "heads": 2, "kv_heads": 1}
        names = ("int8", "binary embedding, annealed")
        rows = {
            name: Row(_ROWS[name][1], _ROWS[name][2] | {"group": 32} if i else {}, tiny)
            for i, name in enumerate(names)
        }
        one = Part("0.25 MB", config, rows, factors=(1.0,), measure="bits_per_byte")
        parts = [one]
    return Study("equal_size", parts, (1,) if smoke else (1, 2, 3))


def write(book: Book, folder: pathlib.Path) -> None:
    """Writes the page and its picture."""
    body, curves = [], {}
    for row in _ROWS:
        curves[row] = {
            file_bytes(part.name, _ROWS[row][0]) / 1e6: pages.values(book, part, row)
            for part in book.study.parts
            if row in part.rows
        }
    picture = f"{book.study.name}.png"
    xlabel, ylabel = "bytes of the weights (MB)", "test, bits per byte"
    panel = pages.Panel("Equal size of the file", xlabel, ylabel, curves, {})
    if pages.draw_curves(folder / picture, [panel]):
        body.append(f"![bits per byte over the size of the file]({picture})")
    for part in book.study.parts:
        if any(book.tested(part, row) for row in part.rows):
            body += [f"## {part.name}", pages.table(book, part, (BASE,)).rstrip()]
    body += ["## Networks", _networks()]
    texts = pages.Texts(
        title="One-bit language models at an equal size of the file",
        conclusion=" ".join(_conclusions(book)) or "Nothing is trained yet.",
        about=(
            "Decoders in the shape of Qwen3 on the text of Python's language "
            "reference (2,367 training examples of 128 bytes), 6 epochs of batches of "
            "16 (882 steps), Adam, cosine to 0. For each row the learning rate and "
            "then the momentum were chosen by the validation loss of 3 epochs, with "
            "another seed. int8 is rounded after training (groups of 32, as Q8_0). "
            "Binary weights have a scale for 128 inputs (Q1_0), ternary ones for 256 "
            "(TQ2_0); their embedding, which is the head too, is int8 in the file and "
            "float32 here, or binary. Annealed: the linear blend. Weight decay is 0.1, "
            "averaged is the average of latents with momentum 0.99. The text is short, "
            "and the training is: larger networks cannot show what they could learn."
        ),
        command=f"    {_COMMAND}",
    )
    pages.write(book, folder, texts, body)


def _conclusions(book: Book) -> list[str]:
    """For each size the best row, and how the best one-bit row stands to int8."""
    found = []
    for part in book.study.parts:
        means = {}
        for row in part.rows:
            values = list(pages.values(book, part, row).values())
            if values:
                means[row] = sum(values) / len(values)
        bits = {row: mean for row, mean in means.items() if row.startswith("binary")}
        if not bits or BASE not in means:
            continue
        best, bit = min(means, key=means.__getitem__), min(bits, key=bits.__getitem__)
        gap = pages.gap(book, part, bit, BASE)
        text = f"At {part.name} the best is {best} ({means[best]:.3f} bits per byte)"
        if gap is not None:
            seeds = f"{gap.seeds} seeds" if gap.seeds > 1 else "one seed"
            told = "" if gap.sure else ", not told apart"
            text += (
                f"; the best with one bit, {bit}, is {pages.said(gap, 3)} bits better "
                f"than {BASE} ({seeds}{told})"
            )
        found.append(f"{text}.")
    return found


def _networks() -> str:
    """The networks by size and kind."""
    lines = [["size", "weights", "width", "blocks", "MLP", "bytes"], ["---"] * 6]
    for size, kinds in SHAPES.items():
        for kind, (width, depth, hidden, _) in kinds.items():
            numbers = (width, depth, hidden, file_bytes(size, kind))
            lines.append([size, kind, *(f"{number:,}" for number in numbers)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, or says how long it takes, and writes the page."""
    rivals.enter()
    command.run(
        "experiments.studies.equal_size",
        "Language models at an equal size of the file; see the module.",
        {"equal_size": equal_size},
        write,
        argv,
    )


if __name__ == "__main__":
    main()
