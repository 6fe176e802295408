"""What a run computes, as JSON: by it a workdir knows its own run again.

The identity of a run is its config with the options of its own method alone, without
the fields that do not change a bit of what is computed. So a new method, a new field
with its default, or another default of a method that is not used leave every workdir
as it is.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from experiments.configs import base

SCHEMA = 1
"""Number of the form of what `computed` gives; absent in files of version 0.1."""

FREE_FIELDS = (
    "cache_dir",
    "checkpoint_every_epochs",
    "checkpoint_every_steps",
    "data_dir",
    "keep_checkpoints",
    "tensorboard",
)
"""Fields that change no bit of what is computed: where data lie, and what is kept."""


def computed(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as JSON, with the options of its own method alone.

    Args:
        config: Config of a run.

    Returns:
        All fields, in `methods` only those of `config.method`, without the folders in
        which data lie; tuples are lists. `config_of` undoes it.
    """
    fields = stored(config)
    for name in ("cache_dir", "data_dir"):
        fields.pop(name, None)
    return fields


def published(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What `computed` gives, for files that leave the machine.

    Other runs are named by the last part of their path alone: the workdir, or
    `WORKDIR/checkpoints/STEP`.
    """
    fields = computed(config)
    for name in ("init_from", "teacher"):
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
    """What a workdir keeps: `computed`, with the folders in which data lie."""
    fields = json.loads(json.dumps(config.to_dict(), default=_as_json))
    for name in ("init_from", "teacher"):
        fields[name] = fields.get(name) or ""
    return {"schema": SCHEMA, **_of_one_method(fields)}


def config_of(found: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The config that a file holds; fields that it lacks have their defaults.

    Args:
        found: What `computed` or `stored` gave, or a whole config of version 0.1.

    Raises:
        ValueError: If it is of a newer schema, or a field is of another type than it
            should be.
    """
    schema = found.get("schema", 0)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise ValueError(
            f"it is of schema {schema!r}, where at most {SCHEMA} is known: use the "
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
    """What `stored` gives today for the config in a file, of this version or older.

    Raises:
        ValueError: If `config_of` refuses it.
    """
    return stored(config_of(found))


def different(
    there: Mapping[str, Any], here: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Leaves that differ, without `FREE_FIELDS`: both values by name."""
    there, here = dict(flat(there)), dict(flat(here))
    return {
        name: (there.get(name, "absent"), here.get(name, "absent"))
        for name in sorted(there.keys() | here.keys())
        if there.get(name, "absent") != here.get(name, "absent")
        and name not in FREE_FIELDS
    }


def listing(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """What `different` has found, a line each."""
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
    """Numbers of NumPy as numbers, all else as text."""
    return value.item() if isinstance(value, np.generic) else str(value)


def _of_one_method(fields: dict[str, Any]) -> dict[str, Any]:
    method, options = fields.get("method"), fields.get("methods", {})
    return {**fields, "methods": {method: options.get(method, {})}}
