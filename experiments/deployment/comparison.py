"""The report of an export: sizes of the files, and accuracy of each form."""

import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.console

from adaste_jax import export
from experiments import console as consoles
from experiments.deployment import deployed

TITLES = {
    "packed": "packed weights",
    "training": "weights of the last step, float32",
    "deployed": "deployed weights, float32",
    "file": "file",
    "program": "program",
    "onnx": "ONNX model",
    "c": "C sources",
    "gguf": "GGUF file",
    "hugging_face": "Hugging Face",
}


def show(report: dict[str, Any], console: rich.console.Console) -> None:
    """Prints a report: bytes of each layer, ratios, and the accuracy of each path."""
    rows = report["tensors"] + [
        {"name": TITLES[name], **report[name]}
        for name in ("packed", "file", "program", "onnx", "c", "gguf", "hugging_face")
        if name in report
    ]
    consoles.table(
        console,
        ("tensor", "shape", "float32 bytes", "bytes", "ratio"),
        [
            (
                row["name"],
                "x".join(map(str, row.get("shape", ()))),
                f"{row['float32_bytes']:,}",
                f"{row['bytes']:,}",
                f"{row['ratio']:.2f}",
            )
            for row in rows
        ],
    )
    console.print()
    if "paths" not in report:
        why = report.get("not_compared", "the data were not asked for (--no-data)")
        consoles.say(console, f"not compared on test examples: {why}")
        return
    examples = f"on {report['num_test']:,} test examples"
    consoles.table(
        console,
        (examples, "accuracy", "loss", "difference", "changed"),
        [
            (
                TITLES[name],
                f"{100 * path['accuracy']:.2f} %",
                f"{path['loss']:.4f}",
                f"{path['largest_difference']:.2g}",
                f"{path['other_predictions']}",
            )
            for name, path in report["paths"].items()
        ],
    )
    if "c" in report and "c" not in report["paths"]:
        consoles.say(console, "the C sources were not run: there is no C compiler here")
    consoles.say(
        console,
        "difference: the largest of a logit; changed: predictions; to the "
        "deployed weights in float32",
    )


def sizes(
    out: str | os.PathLike[str],
    others: Mapping[str, int],
    loaded: export.Loaded,
    params: Any,
    model_state: Any,
) -> dict[str, Any]:
    """Bytes of each tensor and of each file, beside those of float32.

    Args:
        out: Path of the one-bit file.
        others: Bytes of what else was written, by name.
        loaded: Contents read from `out`.
        params: Deployed parameters.
        model_state: Batch-norm statistics of the deployed network.

    Returns:
        `tensors`, `packed` and `file`, and the other files by name.
    """
    tensors = []
    packed = []
    for name, stored in loaded.header["tensors"].items():
        count = math.prod(stored["shape"])
        if stored["encoding"] == "real":
            size = count * jnp.dtype(stored["dtype"]).itemsize
        else:
            size = -(-count // {"bits": 8, "trits": 5}[stored["encoding"]])
            packed.append((4 * count, size))
        tensors.append(
            {"name": name, "shape": stored["shape"], **_sizes(4 * count, size)}
        )
    float32_bytes, packed_bytes = map(sum, zip(*packed, strict=True))
    whole = sum(4 * leaf.size for leaf in jax.tree.leaves((params, model_state)))
    report = {
        "tensors": tensors,
        "packed": _sizes(float32_bytes, packed_bytes),
        "file": _sizes(whole, pathlib.Path(out).stat().st_size),
    }
    return report | {name: _sizes(whole, size) for name, size in others.items()}


def paths(logits: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, Any]:
    """Accuracy and loss of each path, and the distance of its logits to `deployed`.

    Args:
        logits: Logits [n, ..., classes] by name of the path.
        labels: Labels [n, ...].

    Returns:
        `num_test` and `paths`.
    """
    compared = {
        name: _compared(found, logits["deployed"], labels)
        for name, found in logits.items()
    }
    return {"num_test": len(labels), "paths": compared}


def _sizes(float32_bytes: int, size: int) -> dict[str, float]:
    ratio = float32_bytes / size if size else 1.0
    return {"float32_bytes": float32_bytes, "bytes": size, "ratio": ratio}


def _compared(
    found: np.ndarray, expected: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    return {
        **deployed.score(found, labels),
        "largest_difference": float(np.abs(found - expected).max()),
        "other_predictions": int((found.argmax(-1) != expected.argmax(-1)).sum()),
    }
