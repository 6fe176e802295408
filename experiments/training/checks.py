"""Checks of a config, before a run starts.

Everything that can be checked without the data is checked here, before data are read.
"""

import os
import pathlib
from typing import Any

import jax
import ml_collections

from experiments import errors, fields, methods, models
from experiments.data import datasets, image_folder, sources

DTYPES = models.DTYPES

_UNIT = fields.Number(0, 1, below=True)
_PATH = fields.Text(optional=True)

FIELDS: dict[str, fields.Kind | None] = {
    "seed": fields.whole(0, 2**32 - 1),  # JAX takes the lowest 32 bits of larger ones
    "num_epochs": fields.whole(1),
    "batch_size": fields.whole(1),
    "eval_batch_size": fields.whole(1),
    "warmup_epochs": fields.Number(0),
    "label_smoothing": _UNIT,
    "dataset": fields.Text(),
    "data_dir": _PATH,
    "cache_dir": _PATH,
    "num_train": fields.whole(),
    "num_test": fields.whole(),
    "validation": _UNIT,
    "augment": fields.Choice(datasets.AUGMENTATIONS, "augmentation"),
    "resident": fields.Flag(),
    "image_size": fields.whole(0, 4096),
    "model": None,  # and its options: models.OPTIONS
    "model_options": None,
    "dtype": fields.Choice(DTYPES),
    "flax_api": fields.Choice(models.FLAX_APIS),
    "binary_exclude": fields.Several(fields.Pattern()),
    "method": None,  # and its options: methods.options_of
    "methods": None,
    "real_learning_rate": fields.positive(),
    "init_from": _PATH,
    "teacher": _PATH,
    "distill_weight": fields.Number(0, 1),
    "distill_temperature": fields.positive(),
    "reestimate_batches": fields.whole(),
    "skip_nonfinite": fields.whole(),
    "steps_per_call": fields.whole(),
    "eval_every_epochs": fields.whole(1),
    "checkpoint_every_epochs": fields.whole(1),
    "checkpoint_every_steps": fields.whole(),
    "keep_checkpoints": fields.whole(1),
    "tensorboard": fields.Flag(),
}
"""The kind of every field of `configs/base.py`."""


def check(config: ml_collections.ConfigDict) -> None:
    """Checks a config.

    Args:
        config: A config with the fields of `configs/base.py`.

    Raises:
        RunError: If a field is wrong. The message names the field, what it must be and
            its value.
    """
    check_common(config)
    method, options = _value(config, "method"), _value(config, "methods")
    methods.create(method, options, steps=config.num_epochs)


def check_common(config: ml_collections.ConfigDict) -> None:
    """Checks a config without its method.

    Args:
        config: A config with the fields of `configs/base.py`. Its `method` and
            `methods` are ignored.

    Raises:
        RunError: If a field is wrong. The message names the field, what it must be and
            its value.
    """
    _check_fields(config)
    options = fields.mapping(_value(config, "model_options"), "config.model_options")
    models.check(_value(config, "model"), options)
    _check_dataset(config)
    _check_together(config)


def check_own(config: ml_collections.ConfigDict) -> None:
    """Checks a config without its method, network and data.

    Args:
        config: A config with the fields of `configs/base.py`; its fields of network and
            data are ignored.

    Raises:
        RunError: If a field is wrong. The message names the field, what it must be and
            its value.
    """
    _check_fields(config)
    _check_together(config)


def check_name(name: str) -> None:
    """Checks that a config has a field of this name.

    Raises:
        RunError: If there is none. The message suggests a field.
    """
    if name not in FIELDS:
        raise errors.RunError(
            f"config has no field {name!r}{fields.guess(name, FIELDS)}; all fields are "
            "described in experiments/configs/base.py."
        )


def _check_fields(config: ml_collections.ConfigDict) -> None:
    """Checks for unknown and missing fields, and values out of range."""
    for name in config:
        check_name(name)
    if missing := sorted(set(FIELDS) - set(config)):
        raise errors.RunError(
            f"config lacks the field {missing[0]!r}: start from base.get_config() of "
            "experiments/configs/base.py."
        )
    values = {name: _value(config, name) for name in FIELDS}
    kinds = {name: kind for name, kind in FIELDS.items() if kind is not None}
    fields.check(values, kinds)


def _value(config: ml_collections.ConfigDict, name: str) -> Any:
    """The value of a field; None for a placeholder that was not filled in."""
    try:
        return config[name]
    except ml_collections.config_dict.RequiredValueError:
        return None


def _check_together(config: ml_collections.ConfigDict) -> None:
    """Checks fields that depend on each other."""
    if config.warmup_epochs >= config.num_epochs:
        raise errors.RunError(
            "config.warmup_epochs must lie in [0, num_epochs), got "
            f"{config.warmup_epochs} of {config.num_epochs}."
        )
    if 0 < config.num_train < config.batch_size:
        raise errors.RunError(
            f"batch_size is {config.batch_size}, but there are only "
            f"{config.num_train} training examples: config.num_train."
        )
    patch = config.model_options.get("patch", models.ViT.patch)
    if config.model == "vit" and not config.resident and config.image_size % patch:
        raise errors.RunError(
            f"config.image_size must be a multiple of config.model_options.patch, got "
            f"{config.image_size} and {patch}."
        )
    devices = jax.device_count()
    if config.batch_size % devices:
        raise errors.RunError(
            f"config.batch_size is {config.batch_size}: it must be a multiple of the "
            f"{devices} devices."
        )


def _check_dataset(config: ml_collections.ConfigDict) -> None:
    """Checks that the data set is known and fits the network."""
    name = config.dataset
    packaged = sources.PACKAGED
    if name.startswith(image_folder.PREFIX):
        _check_folder(config)
    elif name not in packaged and not _is_prepared(name, config.data_dir):
        import tensorflow_datasets as tfds  # takes a second, and `digits` does without

        # Names of communities, and what is listed on the network, are left to TFDS.
        known = {*packaged, *tfds.list_builders(with_community_datasets=False)}
        if ":" not in name.split("/")[0] and name.split("/")[0] not in known:
            raise errors.RunError(
                f"config.dataset: there is no data set {name!r}"
                f"{fields.guess(name, known)}. Packaged are {', '.join(packaged)}; "
                "others are names of https://www.tensorflow.org/datasets/catalog, and "
                "folder/NAME, a folder of images."
            )
    is_text = name in packaged and packaged[name].max_value is None
    if is_text and (config.augment != "none" or config.image_size):
        raise errors.RunError(
            f"{name} is text, and config.augment and config.image_size are for images: "
            'leave them "none" and 0.'
        )
    if is_text != (config.model in models.TEXT):
        fitting = [one for one in models.MODELS if (one in models.TEXT) == is_text]
        raise errors.RunError(
            f"{name} is {'text' if is_text else 'a data set of images'}, and the "
            f"network {config.model!r} is not for it: set config.model to one of "
            f"{', '.join(fitting)}."
        )


def _folder(data_dir: str | None) -> pathlib.Path | None:
    """The folder of data sets, if it is given."""
    folder = data_dir or os.environ.get("TFDS_DATA_DIR")
    return pathlib.Path(folder).expanduser() if folder else None


def _is_prepared(name: str, data_dir: str | None) -> bool:
    """Whether the data folder has a folder of the name, whoever prepared it."""
    folder = _folder(data_dir)
    first = name.split("/")[0].split(":")[0]
    return bool(folder and first.strip(".") and (folder / first).is_dir())


def _check_folder(config: ml_collections.ConfigDict) -> None:
    """Checks that a folder of images is there, and inside the data folder."""
    name = config.dataset.removeprefix(image_folder.PREFIX)
    path = pathlib.PurePath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise errors.RunError(
            "config.dataset must be folder/NAME with a folder NAME of the data folder, "
            f"got {config.dataset!r}."
        )
    if config.resident:
        raise errors.RunError(
            f"{config.dataset} is streamed: pass --config.resident=False and a "
            "--config.image_size."
        )
    root = _folder(config.data_dir)
    if root and root.is_dir() and not (root / name).is_dir():
        there = [entry.name for entry in os.scandir(root) if entry.is_dir()]
        if meant := fields.guess(name, there):
            raise errors.RunError(f"there is no folder {root / name}{meant}.")
