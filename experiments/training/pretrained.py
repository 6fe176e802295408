"""The start of a run from a folder of Hugging Face."""

import pathlib
from typing import Any

from experiments import errors, models
from experiments.models import hugging_face, hugging_face_files
from experiments.training import restore
from experiments.training.problem import Problem


def is_named(init_from: str) -> bool:
    """Whether `config.init_from` names such a folder, and not a workdir."""
    return hugging_face_files.is_checkpoint(pathlib.Path(init_from).expanduser())


def start(problem: Problem) -> restore.Start:
    """The parameters of the folder that `config.init_from` names.

    Args:
        problem: What the run learns.

    Returns:
        What another run would have in store; its `step` is 0.

    Raises:
        RunError: If the folder cannot be read, or describes another network than the
            config does. The message says what differs.
    """
    config = problem.config
    folder = pathlib.Path(config.init_from).expanduser()
    try:
        found = hugging_face_files.read(folder)
    except errors.RunError as error:
        raise errors.RunError(f"config.init_from: {error}") from error
    there = models.create("decoder", found.num_classes, **found.options)
    options = models.options_of(config)
    here = models.create(config.model, problem.num_classes, **options)
    if lines := _differences(there, here):
        raise errors.RunError(
            f"config.init_from: the network of {folder} is not that of this run "
            f"({'; '.join(lines)}): set config.model and config.model_options, and "
            "config.vocabulary_size for a tokenizer of fewer tokens."
        )
    source = {"step": 0, "checksum": found.digest}
    return restore.Start(found.params, {}, same_method=False, source=source)


def _differences(there: Any, here: Any) -> list[str]:
    """What two networks differ in, by the names of `config.json`."""
    if not isinstance(here, models.Decoder):
        return ["a decoder there, another network here"]
    one, other = (hugging_face.config_of(net, context=0) for net in (there, here))
    return [
        f"{name}: {value} there, {other[name]} here"
        for name, value in one.items()
        if value != other[name] and name != "architectures"
    ]
