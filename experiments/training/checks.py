"""Checks of a config, before a run starts.

Everything that can be checked without the data is checked here, before data are read.
"""

from typing import Any

import jax
import ml_collections

from experiments import errors, fields, methods, models
from experiments.data import datasets, image_folder, places, sources, text, tokens
from experiments.runs import processes
from experiments.training import features

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
    "text_length": fields.whole(2, 2**20),
    "tokenizer": _PATH,
    "vocabulary_size": fields.whole(0, 2**20),
    "model": None,  # and its options: models.OPTIONS
    "model_options": None,
    "dtype": fields.Choice(DTYPES),
    "flax_api": fields.Choice(models.FLAX_APIS),
    "binary_exclude": fields.Several(fields.Pattern()),
    "method": None,  # and its options: methods.options_of
    "methods": None,
    "optimiser": fields.Choice(methods.OPTIMISERS, "optimiser"),
    "momentum": fields.Number(0, 1, below=True),
    "real_learning_rate": fields.positive(),
    "init_from": _PATH,
    "teacher": _PATH,
    "distill_weight": fields.Number(0, 1),
    "distill_temperature": fields.positive(),
    "distill_features": fields.Several(fields.Text(letters=(1, 200))),
    "distill_feature_weight": fields.Number(0),
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
    optimiser = methods.optimiser(config.optimiser, config.momentum)
    methods.create(method, options, steps=config.num_epochs, optimiser=optimiser)


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


def settled(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config, with what it leaves open of a folder of images, or of text.

    Both are always streamed. If the config does not say so, the size of the images
    is chosen too, unless it is given; see `image_folder.choose_size`. A config with
    `resident=False` is left as it is, and so are all other data sets.

    Args:
        config: A config with the fields of `configs/base.py`.

    Raises:
        RunError: If the folder cannot be read, or a field of the config is wrong.
    """
    name = config.dataset
    if not (isinstance(name, str) and places.is_own(name)):
        return config
    if not config.resident:
        return config
    check_common(config)  # what can be found out without reading the folder
    config = config.copy_and_resolve_references()
    config.resident = False
    if not (config.image_size or sources.is_text(name)):
        config.image_size, why = image_folder.choose_size(name, config.data_dir)
        processes.say(f"{name}: {why}")
    return config


def check_name(name: str) -> None:
    """Checks that a config has a field of this name.

    Raises:
        RunError: If there is none. The message suggests a field.
    """
    if name not in FIELDS:
        raise errors.RunError(
            f"config has no field {name!r}{fields.guess(name, FIELDS)}; "
            "`adaste train --help` lists all fields."
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
    if features.pairs(config.distill_features) and not config.teacher:
        raise errors.RunError(
            "config.distill_features needs a network to learn from: give "
            "config.teacher."
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
    if places.is_own(name):
        places.check(name, config.data_dir)
    elif name not in packaged and not _is_prepared(name, config.data_dir):
        import tensorflow_datasets as tfds  # takes a second, and `digits` does without

        # Names of communities, and what is listed on the network, are left to TFDS.
        known = {*packaged, *tfds.list_builders(with_community_datasets=False)}
        if ":" not in name.split("/")[0] and name.split("/")[0] not in known:
            raise errors.RunError(
                f"config.dataset: there is no data set {name!r}"
                f"{fields.guess(name, known)}. Packaged are {', '.join(packaged)}; "
                "others are names of https://www.tensorflow.org/datasets/catalog, and "
                "folder/NAME, a folder of images, and text/NAME, files of text."
            )
    is_text = sources.is_text(name)
    if is_text and (config.augment != "none" or config.image_size):
        raise errors.RunError(
            f"{name} is text, and config.augment and config.image_size are for images: "
            'leave them "none" and 0.'
        )
    if name in packaged and config.text_length != text.LENGTH:
        raise errors.RunError(
            f"config.text_length is for text/NAME, and {name} has examples of one "
            f"size: leave it {text.LENGTH}."
        )
    _check_tokenizer(config)
    if is_text != (config.model in models.TEXT):
        fitting = [one for one in models.MODELS if (one in models.TEXT) == is_text]
        raise errors.RunError(
            f"{name} is {'text' if is_text else 'a data set of images'}, and the "
            f"network {config.model!r} is not for it: set config.model to one of "
            f"{', '.join(fitting)}."
        )


def _check_tokenizer(config: ml_collections.ConfigDict) -> None:
    """Checks that a tokenizer can be read, and is for text of one's own."""
    if config.vocabulary_size and not config.tokenizer:
        raise errors.RunError(
            "config.vocabulary_size is for config.tokenizer; bytes are "
            f"{text.VALUES} tokens: leave it 0."
        )
    if config.tokenizer and not config.dataset.startswith(places.TEXT):
        raise errors.RunError(
            f"config.tokenizer is for text/NAME, and {config.dataset} is no text of "
            'one\'s own: leave it "".'
        )
    tokens.of(config)


def _is_prepared(name: str, data_dir: str | None) -> bool:
    """Whether the data folder has a folder of the name, whoever prepared it."""
    folder = places.data_folder(data_dir)
    first = name.split("/")[0].split(":")[0]
    return bool(folder and first.strip(".") and (folder / first).is_dir())
