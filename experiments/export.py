"""Writes the trained network of a workdir as a file with one bit a weight.

    python -m experiments.export --workdir=runs/quickstart --out=quickstart.safetensors

prints what each layer takes, and the accuracy before and after where the data are at
hand (`--no-data` does not look for them). With `--program=FILE`
the network is also written as a program that JAX alone can run, with `--onnx=FILE` as
an ONNX model for ONNX Runtime and other engines, with `--c=FOLDER` as C sources, which
are compiled and run on the test examples where there is a C compiler. A `decoder` is
written for llama.cpp with `--gguf=FILE`, and its latents for `transformers` with
`--hugging_face=FOLDER`.
"""

import argparse
import functools
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import logging

from adaste_jax import export, methods, train
from experiments import command_line, errors
from experiments import console as consoles
from experiments.data import tokens
from experiments.deployment import comparison, deployed, description, engines, networks
from experiments.deployment.comparison import show as show
from experiments.runs import identity, kept
from experiments.training import restore, states
from experiments.training.evaluation import Evaluation
from experiments.training.problem import Problem


def export_run(
    workdir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    fold: bool = False,
    num_test: int = 0,
    data: bool = True,
    **others: str | os.PathLike[str] | None,
) -> dict[str, Any]:
    """Writes the file, reads it back, and compares the two networks on test examples.

    The network is built from what the workdir holds. The data are only read for the
    comparison, and for batch-norm statistics where the weights of the last step are
    still soft. The tokenizer of a text, if it has one, is written beside the file, as
    `NAME.tokenizer.json`.

    Args:
        workdir: Folder of a run with a checkpoint, or one of its checkpoints.
        out: File to write.
        fold: Whether batch normalisation is folded into a scale and a shift.
        num_test: How many test images are compared; 0 for all.
        data: Whether the data are read for the comparison.
        **others: What else to write, and where; None for nowhere. `program=` a program
            for JAX alone, `onnx=` an ONNX model, `c=` a folder with C sources; of a
            `decoder` also `gguf=` a file for llama.cpp, and `hugging_face=` a folder
            with its latents for `transformers`.

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
        fold=fold,
        num_test=num_test,
        data=data,
        **others,
    )


def export_state(
    problem: Problem,
    method: methods.Method,
    state: train.TrainState,
    out: str | os.PathLike[str],
    *,
    fold: bool = False,
    num_test: int = 0,
    data: bool = True,
    **others: str | os.PathLike[str] | None,
) -> dict[str, Any]:
    """Does what `export_run` does, from a state in memory."""
    config = problem.config
    deployed.check_count("num_test", num_test, least=0)
    if state is None or not states.is_binary(method, state.params):
        raise errors.RunError(
            f"the method {config.method!r} has no binary weights to pack."
        )
    _refuse_nonfinite(state)
    files = {name: file for name, file in others.items() if file is not None}
    engines.check(config.model, files.keys())
    for path in (out, *files.values()):
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
        "config": identity.changed(config),
        "step": int(state.step),
        "commit": _commit(),
    }
    vocabulary = problem.vocabulary
    network = engines.Network(
        described, *stored, state.params, metadata, method.where, vocabulary
    )
    sizes, runs = engines.write(files, network)  # what cannot be held is refused here
    _write_tokenizer(vocabulary, out, files.get("program", out))
    with engines.writing(out):
        export.save(
            out,
            network.params,
            where=method.where,
            deploy=lambda weights: weights,  # shipped already; their scale is found
            model_state=network.model_state,
            metadata=metadata,
            compact=True,
        )
        loaded = export.load(out)
    read = jax.jit(deployed.network(loaded.metadata))
    functions["file"] = functools.partial(read, loaded.params, loaded.model_state)
    functions.update(runs)
    report = comparison.sizes(out, sizes, loaded, weights, model_state)
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


def _write_tokenizer(
    vocabulary: tokens.Vocabulary, *files: str | os.PathLike[str]
) -> None:
    """Puts the tokenizer, if there is one, beside files."""
    if vocabulary.source is not None:
        for beside in {networks.tokenizer_beside(file) for file in files}:
            with engines.writing(beside):
                export.write_file(beside, vocabulary.source.encode())


def _make_folder(file: pathlib.Path) -> None:
    """The folder that a file is to stand in, before there is work to lose."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.RunError(f"cannot write {file}: {error}") from error


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
    clone = pathlib.Path(__file__).parents[1]
    if not (clone / ".git").exists():  # installed, perhaps within another repository
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(
            command,
            cwd=clone,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the file and prints the report."""
    parser = command_line.Parser(
        "experiments.export",
        "Writes the network of a workdir as a file with one bit a weight.",
    )
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument("--out", help="one-bit file to write")
    parser.add_argument("--program", help="program to write: NAME.stablehlo")
    parser.add_argument("--onnx", help="ONNX model to write: NAME.onnx")
    parser.add_argument("--c", help="folder for C sources")
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
    flags = ("out", *engines.WRITERS)
    if not any(getattr(arguments, flag) for flag in flags):
        parser.error(f"name a file to write: {', '.join(f'--{f}' for f in flags)}")
    with command_line.refusals(console), tempfile.TemporaryDirectory() as folder:
        arguments.out = arguments.out or os.path.join(folder, "network.safetensors")
        report = export_run(**vars(arguments))
    show(report, console)
    if not restore.saved(arguments.workdir).fixed:
        consoles.say(console, "The run is not finished: this is its latest checkpoint.")


if __name__ == "__main__":
    main()
