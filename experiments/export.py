"""Writes the trained network of a workdir as a file with one bit a weight.

    python -m experiments.export --workdir=runs/quickstart --out=quickstart.safetensors

prints what each layer takes, and the accuracy before and after. With `--program=FILE`
the network is also written as a program that JAX alone can run.
"""

import argparse
import contextlib
import functools
import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table
import rich.text
from absl import logging

import adaste_jax
from adaste_jax import export
from experiments import command_line, errors
from experiments import console as consoles
from experiments.deployment import deployed, description
from experiments.runs import checkpoints, identity
from experiments.training import restore
from experiments.training.run import Run

_TITLES = {
    "packed": "packed weights",
    "training": "weights of the last step, float32",
    "deployed": "deployed weights, float32",
    "file": "file",
    "program": "program",
}


def export_run(
    workdir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    program: str | os.PathLike[str] | None = None,
    fold: bool = False,
    num_test: int = 0,
) -> dict[str, Any]:
    """Writes the file, reads it back, and compares the two networks.

    Args:
        workdir: Folder of a run with a checkpoint.
        out: File to write.
        program: Where to write the network as a program too; None for nowhere.
        fold: Whether batch normalisation is folded into a scale and a shift.
        num_test: How many test images are compared; 0 for all.

    Returns:
        The report; see `show`.

    Raises:
        RunError: If there is no checkpoint or nothing binary in it, a number in it is
            not finite, or the file cannot be written. A file that was there stays.
    """
    deployed.check_count("num_test", num_test, least=0)
    saved = restore.saved(workdir)
    run = Run(saved.config.lock())
    state = saved.state(run)
    return export_state(run, state, out, program=program, fold=fold, num_test=num_test)


def export_state(
    run: Run,
    state: Any,
    out: str | os.PathLike[str],
    *,
    program: str | os.PathLike[str] | None = None,
    fold: bool = False,
    num_test: int = 0,
) -> dict[str, Any]:
    """As `export_run`, from a run in memory."""
    if run.where is None:
        raise errors.RunError(
            f"the method {run.config.method!r} has no binary weights to pack."
        )
    deployed.check_count("num_test", num_test, least=0)
    _refuse_nonfinite(state)
    for path in (out, program):
        if path is not None:
            _make_folder(pathlib.Path(path))
    config = run.config
    model_state = run.deployed_statistics(state)
    deploy = run.method.deploy
    if deploy is None:
        weights = adaste_jax.deploy(state.params, where=run.where)
    else:
        weights = adaste_jax.binarize(state.params, deploy, where=run.where)
    plain = deployed.describe(config, run.splits, folded=False)
    description.check(plain)
    outputs = jax.jit(deployed.network(plain))
    training = (run.weights(state), state.model_state)
    functions: dict[str, Callable[..., Any]] = {
        "training": functools.partial(outputs, *training),
        "deployed": functools.partial(outputs, weights, model_state),
    }

    stored = weights, model_state
    described = plain
    if fold:
        stored = deployed.fold(plain, *stored)
        described = deployed.describe(config, run.splits, folded=True)
    metadata = {
        **described,
        "config": identity.published(config),
        "step": int(state.step),
        "commit": _commit(),
    }
    packing: dict[str, Any] = {
        "where": run.where,
        "deploy": lambda weights: weights,  # shipped already; their scale is found
        "metadata": metadata,
    }
    with _writing(out):
        export.save(out, stored[0], model_state=stored[1], **packing)
        loaded = export.load(out)
    read = jax.jit(deployed.network(loaded.metadata))
    functions["file"] = functools.partial(read, loaded.params, loaded.model_state)
    if program:
        with _writing(program):
            written = export.to_stablehlo(
                deployed.network(described),
                *stored,
                input_shape=described["input"]["shape"],
                input_dtype=np.uint8,
                path=program,
                **packing,
            )
        read_back = jax.export.deserialize(bytearray(written))
        functions["program"] = jax.jit(read_back.call)
    logits, labels = deployed.all_logits(
        functions,
        run.splits.test,
        batch_size=config.eval_batch_size,
        image_size=config.image_size or None,
        most=num_test,
    )
    return _report(out, program, loaded, weights, model_state, logits, labels)


def show(report: dict[str, Any], console: rich.console.Console) -> None:
    """Prints a report: bytes of each layer, ratios, and the accuracy of each path."""
    table = rich.table.Table(box=None, pad_edge=False)
    table.add_column("tensor", no_wrap=True)
    for name in ("shape", "float32 bytes", "bytes", "ratio"):
        table.add_column(name, justify="right")
    rows = report["tensors"] + [
        {"name": _TITLES[name], **report[name]}
        for name in ("packed", "file", "program")
        if name in report
    ]
    for row in rows:
        table.add_row(
            rich.text.Text(consoles.shown(row["name"], console.encoding)),
            " x ".join(map(str, row.get("shape", ()))),
            f"{row['float32_bytes']:,}",
            f"{row['bytes']:,}",
            f"{row['ratio']:.2f}",
        )
    console.print(table)
    console.print()
    table = rich.table.Table(box=None, pad_edge=False)
    table.add_column(f"on {report['num_test']:,} test examples", no_wrap=True)
    for name in ("accuracy", "loss", "difference", "changed"):
        table.add_column(name, justify="right")
    for name, path in report["paths"].items():
        table.add_row(
            _TITLES[name],
            f"{100 * path['accuracy']:.2f} %",
            f"{path['loss']:.4f}",
            f"{path['largest_difference']:.2g}",
            f"{path['other_predictions']}",
        )
    console.print(table)
    consoles.say(
        console,
        "difference: the largest of a logit; changed: predictions; to the "
        "deployed weights in float32",
    )


def _report(
    out: str | os.PathLike[str],
    program: str | os.PathLike[str] | None,
    loaded: export.Loaded,
    params: Any,
    model_state: Any,
    logits: dict[str, np.ndarray],
    labels: np.ndarray,
) -> dict[str, Any]:
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
        "num_test": len(labels),
        "paths": {
            name: _compared(found, logits["deployed"], labels)
            for name, found in logits.items()
        },
    }
    if program:
        report["program"] = _sizes(whole, pathlib.Path(program).stat().st_size)
    return report


def _make_folder(file: pathlib.Path) -> None:
    """The folder that a file is to stand in, before there is work to lose."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.RunError(f"cannot write {file}: {error}") from error


@contextlib.contextmanager
def _writing(file: str | os.PathLike[str]) -> Iterator[None]:
    """Says of an error in the library which file could not be written."""
    try:
        yield
    except (OSError, ImportError, TypeError, ValueError) as error:
        reason = ", ".join([str(error), *getattr(error, "__notes__", ())])
        raise errors.RunError(f"cannot write {os.fspath(file)}: {reason}") from error


def _refuse_nonfinite(state: Any) -> None:
    """Refuses a network that is dead, before anything is written.

    Raises:
        RunError: Naming the first leaf with NaN or infinity.
    """
    trees = {"params": state.params, "model_state": state.model_state}
    bad = checkpoints.nonfinite(trees)
    if bad:
        raise errors.RunError(
            f"the network of step {int(state.step)} is not finite ({bad}): there is "
            "nothing to export. Name an earlier checkpoint, WORKDIR/checkpoints/STEP."
        )


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


def _commit() -> str | None:
    """The commit of this program, marked where files have changed since; or None."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(
            command,
            cwd=pathlib.Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the file and prints the report."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.export",
        description="Writes the network of a workdir as a file with one bit a weight.",
    )
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument("--out", required=True, help="one-bit file to write")
    parser.add_argument("--program", help="program to write: NAME.stablehlo")
    parser.add_argument("--fold", action="store_true", help="fold batch normalisation")
    parser.add_argument(
        "--num_test",
        type=command_line.whole(),
        default=0,
        help="test examples to compare; 0 is all",
    )
    console = consoles.program()
    arguments = parser.parse_args(argv)
    logging.set_verbosity(logging.ERROR)
    try:
        report = export_run(**vars(arguments))
    except errors.RunError as error:
        consoles.say_error(console, error)
        sys.exit(1)
    show(report, console)
    if not restore.saved(arguments.workdir).fixed:
        consoles.say(console, "The run is not finished: this is its latest checkpoint.")


if __name__ == "__main__":
    main()
