"""Writes the trained network of a workdir as a file with one bit a weight.

    python -m experiments.export --workdir=runs/quickstart --out=quickstart.safetensors

prints what each layer takes, and the accuracy before and after where the data are at
hand (`--no-data` does not look for them). With `--program=FILE`
the network is also written as a program that JAX alone can run, with `--onnx=FILE` as
an ONNX model for ONNX Runtime and other engines. A `decoder` is written for llama.cpp
with `--gguf=FILE`, and its latents for `transformers` with `--hugging_face=FOLDER`.
"""

import argparse
import contextlib
import functools
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from adaste_jax import export, methods, train
from experiments import command_line, errors
from experiments import console as consoles
from experiments.deployment import comparison, decoders, deployed, description
from experiments.deployment.comparison import show as show
from experiments.runs import identity, kept
from experiments.training import restore, states
from experiments.training.evaluation import Evaluation
from experiments.training.problem import Problem


def export_run(
    workdir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    program: str | os.PathLike[str] | None = None,
    onnx: str | os.PathLike[str] | None = None,
    gguf: str | os.PathLike[str] | None = None,
    hugging_face: str | os.PathLike[str] | None = None,
    fold: bool = False,
    num_test: int = 0,
    data: bool = True,
) -> dict[str, Any]:
    """Writes the file, reads it back, and compares the two networks on test examples.

    The network is built from what the workdir holds. The data are only read for the
    comparison, and for batch-norm statistics where the weights of the last step are
    still soft.

    Args:
        workdir: Folder of a run with a checkpoint, or one of its checkpoints.
        out: File to write.
        program: Where to write the network as a program too; None for nowhere.
        onnx: Where to write the network as an ONNX model too; None for nowhere.
        gguf: Where to write a `decoder` for llama.cpp too; None for nowhere.
        hugging_face: In which folder to write the latents of a `decoder`, for
            `transformers`; None for nowhere.
        fold: Whether batch normalisation is folded into a scale and a shift.
        num_test: How many test images are compared; 0 for all.
        data: Whether the data are read for the comparison.

    Returns:
        The report; see `comparison.show`.

    Raises:
        RunError: If there is no checkpoint or nothing binary in it, a number in it is
            not finite, or the file cannot be written. A file that was there stays.
    """
    deployed.check_count("num_test", num_test, least=0)
    saved = restore.saved(workdir)
    problem = saved.problem()
    method = states.method_of(problem)
    state, _ = saved.load(problem, method)
    return export_state(
        problem,
        method,
        state,
        out,
        program=program,
        onnx=onnx,
        gguf=gguf,
        hugging_face=hugging_face,
        fold=fold,
        num_test=num_test,
        data=data,
    )


def export_state(
    problem: Problem,
    method: methods.Method,
    state: train.TrainState,
    out: str | os.PathLike[str],
    *,
    program: str | os.PathLike[str] | None = None,
    onnx: str | os.PathLike[str] | None = None,
    gguf: str | os.PathLike[str] | None = None,
    hugging_face: str | os.PathLike[str] | None = None,
    fold: bool = False,
    num_test: int = 0,
    data: bool = True,
) -> dict[str, Any]:
    """Does what `export_run` does, from a state in memory."""
    config = problem.config
    deployed.check_count("num_test", num_test, least=0)
    if state is None or not states.is_binary(method, state.params):
        raise errors.RunError(
            f"the method {config.method!r} has no binary weights to pack."
        )
    _refuse_nonfinite(state)
    if gguf or hugging_face:
        decoders.check(config.model, gguf=gguf, hugging_face=hugging_face)
    for path in (out, program, onnx, gguf, hugging_face):
        if path is not None:
            _make_folder(pathlib.Path(path))
    model_state = Evaluation(problem, method).statistics(state)
    weights = method.deploy(state.params)
    plain = problem.described
    description.check(plain)
    outputs = jax.jit(deployed.network(plain))
    soft = method.weights(state.params, state.step, state.key)
    functions: dict[str, Callable[..., Any]] = {
        "training": functools.partial(outputs, soft, state.model_state),
        "deployed": functools.partial(outputs, weights, model_state),
    }

    stored = weights, model_state
    described = {
        **plain,
        "architecture": {**plain["architecture"], "folded": fold},
    }
    if fold:
        stored = deployed.fold(plain, *stored)
    metadata = {
        **described,
        "config": identity.published(config),
        "step": int(state.step),
        "commit": _commit(),
    }
    packing: dict[str, Any] = {
        "where": method.where,
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
    if onnx:
        with _writing(onnx):
            model = export.to_onnx(
                deployed.network(described),
                *stored,
                input_shape=described["input"]["shape"],
                input_dtype=np.uint8,
                path=onnx,
                metadata=metadata,
            )
            functions["onnx"] = deployed.onnx_network(model)
    if gguf:
        with _writing(gguf):
            decoders.write_gguf(gguf, described, weights)
    if hugging_face:
        decoders.write_hugging_face(hugging_face, described, state.params)
    others = {"program": program, "onnx": onnx, "gguf": gguf}
    report = comparison.sizes(out, others, loaded, weights, model_state)
    if not data:
        return report
    try:
        test = problem.splits.test
    except errors.RunError as error:
        return {**report, "not_compared": str(error)}
    logits, labels = deployed.all_logits(
        functions,
        test,
        batch_size=config.eval_batch_size,
        image_size=config.image_size or None,
        most=num_test,
    )
    return {**report, **comparison.paths(logits, labels)}


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
    bad = kept.nonfinite(trees)
    if bad:
        raise errors.RunError(
            f"the network of step {int(state.step)} is not finite ({bad}): there is "
            "nothing to export. Name an earlier checkpoint, WORKDIR/checkpoints/STEP."
        )


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
    parser.add_argument("--onnx", help="ONNX model to write: NAME.onnx")
    parser.add_argument("--gguf", help="file for llama.cpp to write: NAME.gguf")
    parser.add_argument(
        "--hugging_face", help="folder to write the latents to, for transformers"
    )
    parser.add_argument("--fold", action="store_true", help="fold batch normalisation")
    parser.add_argument(
        "--num_test",
        type=command_line.whole(),
        default=0,
        help="test examples to compare; 0 is all",
    )
    parser.add_argument(
        "--data",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="read the data, to compare the network on test examples",
    )
    console = consoles.program()
    arguments = parser.parse_args(argv)
    logging.set_verbosity(logging.ERROR)
    with command_line.refusals(console):
        report = export_run(**vars(arguments))
    show(report, console)
    if not restore.saved(arguments.workdir).fixed:
        consoles.say(console, "The run is not finished: this is its latest checkpoint.")


if __name__ == "__main__":
    main()
