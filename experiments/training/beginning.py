"""Everything before the first step: opens the workdir and checks what is read."""

import os
import platform
from importlib import metadata
from typing import Any, NamedTuple

import ml_collections
import rich.console

import adaste_jax
from experiments import console as consoles
from experiments.runs import identity, kept, processes, workdir
from experiments.training.run import Run


class Prepared(NamedTuple):
    """A run whose workdir is open."""

    run: Run
    state: Any
    folder: workdir.Workdir


def prepare(
    config: ml_collections.ConfigDict,
    path: str | os.PathLike[str],
    console: rich.console.Console,
) -> Prepared | dict[str, Any]:
    """Does everything before the first step; returns the result of a finished run."""
    stored = identity.stored(config)
    with processes.agreeing():
        if processes.is_primary():
            workdir.check(path, stored, upgrade=identity.upgraded)
    result = workdir.finished(path)
    if result is not None:
        text = f"{workdir.absolute(path)} holds a finished run; there is nothing to do."
        consoles.say(console, text)
        return result
    recorded = workdir.origin(path) or {}
    begun = kept.exist(workdir.absolute(path) / workdir.CHECKPOINTS)
    started = recorded.get("init_from") or {}
    run = Run(config, initial_step=started.get("step"))
    state = run.init()
    if not begun:
        state = run.warm_started(state)
        started = None if run.initial is None else run.initial.source
    origin = {
        "data": run.splits.identity(),
        "init_from": started or None,
        "teacher": run.teacher and run.teacher.source,
    }
    processes.agree_on(
        "what is read", origin, "Give all processes the same data and the same files."
    )
    folder = None
    with processes.agreeing():
        folder = workdir.Workdir(
            path, stored, writes=processes.is_primary(), upgrade=identity.upgraded
        )
        messages = folder.settle_origin(origin, begun=begun)
    assert folder is not None
    for message in messages:
        consoles.say(console, message)
    return Prepared(run, state, folder)


def versions() -> dict[str, str]:
    """Versions of the packages that the results depend on."""
    own = {"python": platform.python_version(), "adaste_jax": adaste_jax.__version__}
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return own | {name: metadata.version(name) for name in packages}
