"""Restores runs from their workdirs, for export or for another run.

A run is rebuilt from its config and filled from a checkpoint. Then it can be exported,
or another run can start from its parameters or learn from it as a teacher.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import ml_collections

from adaste_jax import methods, train
from experiments import errors
from experiments.data import datasets, fingerprint
from experiments.deployment import fits
from experiments.runs import checkpoints, identity, small_files, workdir
from experiments.training import features, losses, older, states
from experiments.training.evaluation import Evaluation
from experiments.training.problem import Problem, keys_of

# Runs that agree in these have the same training and validation images.
_DATA_FIELDS = (
    "dataset",
    "resident",
    "image_size",
    "num_train",
    "text_length",
    "validation",
    "vocabulary_size",
)


@dataclasses.dataclass(frozen=True)
class Saved:
    """A run on the disk.

    Attributes:
        folder: Workdir of the run.
        config: Config of the run; fields newer than the run have their defaults.
        step: Step of the given checkpoint; None is the latest.
    """

    folder: pathlib.Path
    config: ml_collections.ConfigDict
    step: int | None

    @property
    def fixed(self) -> bool:
        """Whether the state is the same every time it is read."""
        return self.step is not None or (self.folder / workdir.RESULT).exists()

    def problem(self, splits: datasets.Splits[Any] | None = None) -> Problem:
        """The problem of the run.

        Version 0.2 records the facts about the data that are needed. So data are read
        only for older runs, or when they are used.

        Args:
            splits: The data, if they are already loaded.
        """
        record = workdir.problem(self.folder) if splits is None else None
        return Problem(self.config, splits=splits, record=record)

    def load(
        self, problem: Problem, method: methods.Method
    ) -> tuple[train.TrainState, dict[str, Any]]:
        """Loads a checkpoint of the run, and says which one it is.

        Args:
            problem: The problem of the run.
            method: The method of the run.

        Returns:
            The state, and `step` and `checksum` of the checkpoint.

        Raises:
            RunError: If there is no checkpoint, or it cannot be read.
        """
        state = states.start(problem, method, self.config.seed)
        store = checkpoints.Checkpoints(
            self.folder / workdir.CHECKPOINTS,
            keep=self.config.keep_checkpoints,
            read_only=True,
        )
        like = {"state": state, "tally": states.start_tally(method, state)}
        try:
            found = store.restore(
                like, step=self.step, older=older.before_0_2(self.config, like)
            )
            if found is None:
                raise errors.RunError(f"{self.folder} holds no checkpoint yet.")
            state = found[0]["state"]
            step = int(state.step)
            return state, {"step": step, "checksum": store.checksum(step)}
        finally:
            store.close()


def saved(path: str | os.PathLike[str]) -> Saved:
    """The run at a path.

    Args:
        path: A workdir, or one of its checkpoints: `WORKDIR/checkpoints/STEP`.

    Returns:
        The run; its checkpoints are not read yet.

    Raises:
        RunError: If there is no run.
    """
    folder, step = pathlib.Path(path).expanduser().absolute(), None
    if folder.parent.name == workdir.CHECKPOINTS and folder.name.isdecimal():
        folder, step = folder.parent.parent, int(folder.name)
    file = folder / workdir.CONFIG
    if not file.exists():
        raise errors.RunError(
            f"{folder} holds no config.json: give the workdir of a run, or one of its "
            "checkpoints (WORKDIR/checkpoints/STEP)."
        )
    cure = "Restore it from a copy, or name another run."
    found = small_files.read(file, cure=cure)
    try:
        config = identity.config_of(found)
    except ValueError as error:
        raise errors.RunError(f"cannot read {file}: {error}. {cure}") from error
    if config.tokenizer:  # the run has a copy
        config.tokenizer = str(folder / workdir.TOKENIZER)
    return Saved(folder, config, step)


class Start(NamedTuple):
    """What a run takes from another run for its first state.

    Attributes:
        params: Parameters of the other run.
        model_state: Batch-norm statistics of the other run.
        same_method: Whether both runs have the same method.
        source: `step` and `checksum` of the checkpoint.
    """

    params: Any
    model_state: Any
    same_method: bool
    source: dict[str, Any]


def start(
    problem: Problem, state: train.TrainState, *, step: int | None = None
) -> Start:
    """Reads the start of a run from the run that `config.init_from` names.

    Args:
        problem: The problem of the new run.
        state: The first state of the new run; only shapes matter.
        step: Step of the checkpoint if the config names none: the step that the run
            started from before. Default: the latest.

    Raises:
        RunError: If the parameters cannot be read, or have other paths or shapes.
    """
    config = problem.config
    with _naming("init_from"):
        other = saved(config.init_from)
        if other.step is None:
            other = dataclasses.replace(other, step=step)
        same = other.config.method == config.method
        rebuilt = _rebuilt(other, problem)
        found, source = other.load(rebuilt, states.method_of(rebuilt))
        drawn = jax.eval_shape(problem.draw, keys_of(config.seed).network)
        _check_shapes(
            (found.params, found.model_state),
            (state.params, state.model_state) if same else drawn,
            other.folder,
        )
    return Start(found.params, found.model_state, same, source)


def teacher(problem: Problem) -> losses.Teacher:
    """Reads the deployed network of the run that `config.teacher` names.

    Args:
        problem: The problem of the student.

    Returns:
        The network.

    Raises:
        RunError: If the run cannot be read, is not finished, or has other data.
    """
    config = problem.config
    with _naming("teacher"):
        other = saved(config.teacher)
        if not other.fixed:
            raise errors.RunError(
                f"{other.folder} is not finished, so its network may change: wait, or "
                "name a checkpoint (WORKDIR/checkpoints/STEP)."
            )
        differing = [
            f"{name}: {other.config[name]} there, {config[name]} here"
            for name in _DATA_FIELDS
            if other.config[name] != config[name]
        ]
        if differing:
            raise errors.RunError(
                f"{other.folder} has learned from other images "
                f"({'; '.join(differing)}). A teacher needs the same."
            )
        _check_data(other, problem)
        rebuilt = _rebuilt(other, problem)
        method = states.method_of(rebuilt)
        state, source = other.load(rebuilt, method)
    forward = rebuilt.forward
    if config.distill_features:
        layers = [pair.teacher for pair in features.pairs(config.distill_features)]
        forward = features.watched(forward, layers, name="the teacher")

    def outputs(variables: Any, inputs: jax.Array) -> Any:
        params, model_state = variables
        return forward(params, model_state, inputs, train=False, key=None)[0]

    statistics = Evaluation(rebuilt, method).statistics(state)
    return losses.Teacher(outputs, (method.deploy(state.params), statistics), source)


def _check_data(other: Saved, problem: Problem) -> None:
    """Checks that a run had the training and validation data of `problem`.

    Raises:
        RunError: If it had others. The message says what differs.
    """
    recorded = workdir.origin(other.folder)
    if recorded is None:  # of version 0.1
        return
    there, here = (
        {part: found[part] for part in ("train", "validation") if part in found}
        for found in (recorded["data"], problem.splits.identity())
    )
    differing = fingerprint.differences(there, here)
    if differing:
        raise errors.RunError(
            f"{other.folder} has learned from other data ({'; '.join(differing)}). A "
            "teacher needs the same."
        )


def _rebuilt(other: Saved, problem: Problem) -> Problem:
    """The problem of another run, with the data of `problem` if they are the same."""
    here = problem.config
    same = all(other.config[name] == here[name] for name in _DATA_FIELDS)
    same = same and not (here.tokenizer or other.config.tokenizer)
    config = other.config.copy_and_resolve_references()
    config.update(data_dir=here.data_dir, cache_dir=here.cache_dir)
    other = dataclasses.replace(other, config=config.lock())
    return other.problem(problem.splits if same else None)


@contextlib.contextmanager
def _naming(field: str) -> Iterator[None]:
    """Puts the name of the config field before the message of an error."""
    try:
        yield
    except errors.RunError as error:
        raise errors.RunError(f"config.{field}: {error}") from error


def _check_shapes(found: Any, like: Any, folder: pathlib.Path) -> None:
    there, here = (
        fits.shapes({"params": params, **model_state})
        for params, model_state in (found, like)
    )
    paths = [path for path in {**here, **there} if here.get(path) != there.get(path)]
    if not paths:
        return
    lines = [
        f"  {path}: {there.get(path, 'absent')} there, {here.get(path, 'absent')} here"
        for path in paths[:10]
    ]
    if len(paths) > len(lines):
        lines.append(f"  and {len(paths) - len(lines)} more")
    listing = "\n".join(lines)
    raise errors.RunError(
        f"the network of {folder} is not that of this run:\n{listing}"
    )
