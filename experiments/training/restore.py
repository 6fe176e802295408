"""Runs that stand in a workdir, and what another run takes from them.

A run is rebuilt from its config and filled from a checkpoint: to be exported, to start
another from its parameters, or to teach it.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import ml_collections

from experiments import errors
from experiments.data import fingerprint
from experiments.runs import checkpoints, identity, small_files, workdir
from experiments.training import losses

# Runs that agree in these have the same training and validation images.
_DATA_FIELDS = ("dataset", "resident", "image_size", "num_train", "validation")


@dataclasses.dataclass(frozen=True)
class Saved:
    """A run on the disk.

    Attributes:
        folder: Its workdir.
        config: Its config; fields that are newer than it have their defaults.
        step: Of the checkpoint that was named; None is the latest.
    """

    folder: pathlib.Path
    config: ml_collections.ConfigDict
    step: int | None

    @property
    def fixed(self) -> bool:
        """Whether the state is the same whenever it is read."""
        return self.step is not None or (self.folder / workdir.RESULT).exists()

    def state(self, run: Any) -> Any:
        """The `TrainState` that a checkpoint holds; see `load`."""
        return self.load(run)[0]

    def load(self, run: Any) -> tuple[Any, dict[str, Any]]:
        """What a checkpoint holds, and which one it is.

        Args:
            run: A `Run` of `config`.

        Returns:
            The `TrainState`, and `step` and `checksum` of the checkpoint.

        Raises:
            RunError: If there is no checkpoint, or it cannot be read.
        """
        state = run.init()
        store = checkpoints.Checkpoints(
            self.folder / workdir.CHECKPOINTS,
            keep=self.config.keep_checkpoints,
            read_only=True,
        )
        like = {"state": state, "tally": run.start_tally(state)}
        try:
            found = store.restore(like, step=self.step)
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
        The run; of its checkpoints nothing is read yet.

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
    cure = "Put it back from a copy, or name another run."
    found = small_files.read(file, cure=cure)
    try:
        config = identity.config_of(found)
    except ValueError as error:
        raise errors.RunError(f"cannot read {file}: {error}. {cure}") from error
    return Saved(folder, config, step)


class Start(NamedTuple):
    """What another run has in store for a first state.

    Attributes:
        params: Its parameters.
        model_state: Its batch-norm statistics.
        same_method: Whether they are of the same method.
        source: `step` and `checksum` of its checkpoint.
    """

    params: Any
    model_state: Any
    same_method: bool
    source: dict[str, Any]


def start(run: Any, state: Any, drawn: Any, *, step: int | None = None) -> Start:
    """What `config.init_from` of a run has in store for it.

    Args:
        run: A `Run`.
        state: Its first state.
        drawn: Shapes of parameters and model state as the layers draw them: what a run
            of another method is compared with.
        step: Of the checkpoint, where the config names none: the one that the run
            started from before. None is the latest.

    Raises:
        RunError: If they cannot be read, or have other paths or shapes.
    """
    with _naming("init_from"):
        other = saved(run.config.init_from)
        if other.step is None:
            other = dataclasses.replace(other, step=step)
        same = other.config.method == run.config.method
        found, source = other.load(_rebuilt(other, run))
        _check_shapes(
            (found.params, found.model_state),
            (state.params, state.model_state) if same else drawn,
            other.folder,
        )
    return Start(found.params, found.model_state, same, source)


def teacher(run: Any) -> losses.Teacher:
    """The network that `config.teacher` of a run names, deployed.

    Args:
        run: A `Run`.

    Returns:
        The network.

    Raises:
        RunError: If it cannot be read, is not finished, or knows other data.
    """
    with _naming("teacher"):
        other = saved(run.config.teacher)
        if not other.fixed:
            raise errors.RunError(
                f"{other.folder} is not finished, so its network may change: wait, or "
                "name a checkpoint (WORKDIR/checkpoints/STEP)."
            )
        differing = [
            f"{name}: {other.config[name]} there, {run.config[name]} here"
            for name in _DATA_FIELDS
            if other.config[name] != run.config[name]
        ]
        if differing:
            raise errors.RunError(
                f"{other.folder} has learned from other images "
                f"({'; '.join(differing)}). A teacher needs the same."
            )
        _check_data(other, run)
        rebuilt = _rebuilt(other, run)
        state, source = other.load(rebuilt)
    forward = rebuilt.forward

    def logits(variables: Any, inputs: jax.Array) -> jax.Array:
        return forward(*variables, inputs, train=False, key=None)[0]

    variables = rebuilt.deployed(state.params), rebuilt.deployed_statistics(state)
    return losses.Teacher(logits, variables, source)


def _check_data(other: Saved, run: Any) -> None:
    """Refuses a run whose training or validation data were not those of `run`.

    Raises:
        RunError: Saying what differs.
    """
    recorded = workdir.origin(other.folder)
    if recorded is None:  # of version 0.1
        return
    there, here = (
        {part: found[part] for part in ("train", "validation") if part in found}
        for found in (recorded["data"], run.splits.identity())
    )
    differing = fingerprint.differences(there, here)
    if differing:
        raise errors.RunError(
            f"{other.folder} has learned from other data ({'; '.join(differing)}). A "
            "teacher needs the same."
        )


def _rebuilt(other: Saved, run: Any) -> Any:
    """The run of another config, on the data of `run` if they are the same."""
    same = all(other.config[name] == run.config[name] for name in _DATA_FIELDS)
    config = other.config.copy_and_resolve_references()
    config.update(data_dir=run.config.data_dir, cache_dir=run.config.cache_dir)
    return type(run)(config.lock(), splits=run.splits if same else None)


@contextlib.contextmanager
def _naming(field: str) -> Iterator[None]:
    """Puts the field of the config before what went wrong."""
    try:
        yield
    except errors.RunError as error:
        raise errors.RunError(f"config.{field}: {error}") from error


def _check_shapes(found: Any, like: Any, folder: pathlib.Path) -> None:
    there, here = _shapes(found), _shapes(like)
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


def _shapes(trees: Any) -> dict[str, tuple[int, ...]]:
    """By path; `trees` are parameters and model state."""
    params, model_state = trees
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            {"params": params, **model_state}
        )
    }
