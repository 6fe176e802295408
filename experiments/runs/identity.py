"""The identity of a run, as JSON, by which a workdir recognises its own run.

The identity of a run is its config with the options of its own method only, without the
fields that do not change any bit of the result. So a new method, a new field with its
default, or a new default of an unused method change no identity.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from experiments.configs import base

SCHEMA = 1
"""Version of the form of `computed`; absent in files of version 0.1."""

FREE_FIELDS = (
    "cache_dir",
    "checkpoint_every_epochs",
    "checkpoint_every_steps",
    "data_dir",
    "keep_checkpoints",
    "tensorboard",
)
"""Fields that change no bit of the result: folders of data, and what is kept."""

_PATHS = ("init_from", "teacher", "tokenizer")
"""Fields that are paths and count."""


def computed(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as JSON, with the options of its own method only.

    Args:
        config: Config of a run.

    Returns:
        All fields without the folders of the data; `methods` has only the options of
        `config.method`; tuples are lists. `config_of` reverses it.
    """
    fields = stored(config)
    for name in ("cache_dir", "data_dir"):
        fields.pop(name, None)
    return fields


def published(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The result of `computed` for files that leave the machine.

    Other runs are named by the last part of their path only: the workdir, or
    `WORKDIR/checkpoints/STEP`. So is a tokenizer.
    """
    fields = computed(config)
    for name in _PATHS:
        parts = pathlib.PurePath(fields[name]).parts
        last = 3 if len(parts) > 2 and parts[-2] == "checkpoints" else 1
        fields[name] = "/".join(parts[-last:])
    return fields


def changed(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What `published` gives, without fields that have their defaults.

    `config_of` gives the rest again, in a version with the same defaults.
    """
    usual = base.get_config()
    usual.method = config.method
    here = published(config)
    kept = {name: here[name] for name in ("schema", "method")}
    return kept | _unusual(here, published(usual))


def _unusual(here: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that differ, in fields of fields as well."""
    found = {}
    for name, value in here.items():
        if name in usual and isinstance(value, dict):
            value = _unusual(value, usual[name])
            if value:
                found[name] = value
        elif name not in usual or value != usual[name]:
            found[name] = value
    return found


def stored(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The form that a workdir stores: `computed`, with the folders of the data."""
    fields = json.loads(json.dumps(config.to_dict(), default=_as_json))
    for name in _PATHS:
        fields[name] = fields.get(name) or ""
    return {"schema": SCHEMA, **_of_one_method(fields)}


def config_of(found: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The config in a file; missing fields have their defaults.

    Args:
        found: The result of `computed` or `stored`, or a whole config of version 0.1.

    Raises:
        ValueError: If the config has a newer schema, or a field has a wrong type.
    """
    schema = found.get("schema", 0)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise ValueError(
            f"it is of schema {schema!r}, but this version knows schemas up to "
            f"{SCHEMA}: use the "
            "version of adaste_jax that wrote it, or a newer one"
        )
    config = base.get_config()
    fields = {name: value for name, value in found.items() if name != "schema"}
    try:
        config.update(fields)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"its fields are not those of a config ({error})") from error
    return config


def upgraded(found: Mapping[str, Any]) -> dict[str, Any]:
    """Today's form of the stored config in a file, of this version or older.

    Raises:
        ValueError: If the config has a newer schema, or a field has a wrong type.
    """
    return stored(config_of(found))


def different(
    there: Mapping[str, Any], here: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Fields that differ, without `FREE_FIELDS`: both values by name."""
    there, here = dict(flat(there)), dict(flat(here))
    return {
        name: (there.get(name, "absent"), here.get(name, "absent"))
        for name in sorted(there.keys() | here.keys())
        if there.get(name, "absent") != here.get(name, "absent")
        and name not in FREE_FIELDS
    }


def listing(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """The result of `different`, one line each."""
    return "\n".join(
        f"  {name}: {there} there, {here} here"
        for name, (there, here) in changes.items()
    )


def flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Leaves of nested dicts, with names joined by dots."""
    pairs: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            pairs += flat(value, f"{prefix}{name}.")
        else:
            pairs.append((prefix + name, value))
    return pairs


def _as_json(value: Any) -> Any:
    """NumPy numbers as numbers, everything else as text."""
    return value.item() if isinstance(value, np.generic) else str(value)


def _of_one_method(fields: dict[str, Any]) -> dict[str, Any]:
    method, options = fields.get("method"), fields.get("methods", {})
    return {**fields, "methods": {method: options.get(method, {})}}
