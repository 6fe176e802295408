"""What a config may hold: what no run can have is refused before any data are read.

`FIELDS` has a row for every field of `configs/base.py`, with what may stand in it. Then
come rules for fields that depend on each other.
"""

import difflib
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import ml_collections

from experiments import augmentation, data_source, errors, image_folder, methods, models

DTYPES = ("float32", "bfloat16")


class Rule(NamedTuple):
    """What a field may hold.

    Attributes:
        expected: In words: "a whole number >= 1".
        holds: Whether a value may stand there.
    """

    expected: str
    holds: Callable[[Any], bool]


def whole(least: int, most: int | None = None) -> Rule:
    """Whole numbers from `least` on, up to `most`."""
    words = f"a whole number >= {least}"
    if most is not None:
        words = f"a whole number from {least} to {most}"
    return Rule(
        words,
        lambda value: (
            _is_a(numbers.Integral, value)
            and least <= value
            and (most is None or value <= most)
        ),
    )


def number(interval: str, holds: Callable[[float], bool]) -> Rule:
    """Finite numbers in an interval."""
    return Rule(
        f"a number {interval}",
        lambda value: (
            _is_a(numbers.Real, value) and math.isfinite(value) and holds(value)
        ),
    )


def one_of(choices: Iterable[str]) -> Rule:
    """Names; that which is like a wrong one is in the message."""
    known = sorted(choices)
    return Rule(f"one of {', '.join(known)}", lambda value: value in known)


def text(*, empty: bool = False) -> Rule:
    """Text; where it may be `empty`, None means the same."""
    if empty:
        return Rule("text", lambda value: value is None or isinstance(value, str))
    return Rule("a name", lambda value: isinstance(value, str) and value != "")


FLAG = Rule("True or False", lambda value: isinstance(value, bool))
PATTERNS = Rule(
    "a tuple of regular expressions",
    lambda value: (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(pattern, str) for pattern in value)
    ),
)
TREE = Rule(
    "a ConfigDict", lambda value: isinstance(value, ml_collections.ConfigDict | Mapping)
)

_POSITIVE = number("> 0", lambda value: value > 0)
_SHARE = number("in [0, 1)", lambda value: 0 <= value < 1)

FIELDS: dict[str, Rule] = {
    "seed": whole(0, 2**32 - 1),
    "num_epochs": whole(1),
    "batch_size": whole(1),
    "eval_batch_size": whole(1),
    "warmup_epochs": number(">= 0", lambda value: value >= 0),
    "label_smoothing": _SHARE,
    "dataset": text(),
    "data_dir": text(empty=True),
    "cache_dir": text(empty=True),
    "num_train": whole(0),
    "num_test": whole(0),
    "validation": _SHARE,
    "augment": one_of(augmentation.AUGMENTATIONS),
    "resident": FLAG,
    "image_size": whole(0, 2**14),
    "model": one_of(models.MODELS),
    "model_options": TREE,
    "dtype": one_of(DTYPES),
    "binary_exclude": PATTERNS,
    "method": one_of(methods.METHODS),
    "methods": TREE,
    "real_learning_rate": _POSITIVE,
    "init_from": text(empty=True),
    "teacher": text(empty=True),
    "distill_weight": number("in [0, 1]", lambda value: 0 <= value <= 1),
    "distill_temperature": _POSITIVE,
    "reestimate_batches": whole(0),
    "skip_nonfinite": whole(0),
    "steps_per_call": whole(0),
    "eval_every_epochs": whole(1),
    "checkpoint_every_epochs": whole(1),
    "checkpoint_every_steps": whole(0),
    "keep_checkpoints": whole(1),
    "tensorboard": FLAG,
}
"""Every field, and what may stand in it."""


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses what no run can have; reads no data.

    Args:
        config: As `configs/base.py`.

    Raises:
        RunError: Naming the field, what it must be, and its value.
    """
    for name, rule in FIELDS.items():
        if not rule.holds(config[name]):
            _refuse(name, rule, config[name])
    _check_options(config)
    length = methods.Length(config.num_epochs, 1, config.batch_size)
    methods.create(config.method, config.methods, length)
    models.create(config.model, num_classes=2, **models.options_of(config))
    if config.warmup_epochs >= config.num_epochs:
        raise errors.RunError(
            "config.warmup_epochs must be a number in [0, num_epochs), got "
            f"{config.warmup_epochs} of {config.num_epochs}."
        )
    is_folder = config.dataset.startswith(image_folder.PREFIX)
    if config.resident and is_folder:
        raise errors.RunError(
            f"{config.dataset} is read as it is used: pass --config.resident=False and "
            "a --config.image_size."
        )
    if not is_folder:
        _check_packaged(config.dataset)
    devices = jax.device_count()
    if config.batch_size % devices:
        raise errors.RunError(
            f"config.batch_size is {config.batch_size}: it must be a multiple of the "
            f"{devices} devices."
        )


def meant(wrong: Any, known: Iterable[str]) -> str:
    """The question whether a known name was meant; empty where none is like it."""
    found = difflib.get_close_matches(str(wrong), list(known), n=1, cutoff=0.75)
    return f" Did you mean {found[0]!r}?" if found else ""


def _check_options(config: ml_collections.ConfigDict) -> None:
    """Refuses options of the method that are no such numbers or words as its own.

    Raises:
        RunError: Naming the option.
    """
    defaults = methods.METHODS[config.method].options
    options = config.methods[config.method]
    for name, default in defaults.items():
        rule = _POSITIVE if name == "learning_rate" else _like(default)
        if rule is not None and not rule.holds(options[name]):
            _refuse(f"methods.{config.method}.{name}", rule, options[name])


def _like(default: Any) -> Rule | None:
    """What may stand in the place of a default; None where it says nothing."""
    if isinstance(default, bool):
        return FLAG
    if isinstance(default, int):
        return Rule("a whole number", lambda value: _is_a(numbers.Integral, value))
    if isinstance(default, float):
        return number("that is finite", lambda value: True)
    return text() if isinstance(default, str) else None


def _check_packaged(name: str) -> None:
    """Refuses a name that is nearly that of a data set that needs no download.

    Raises:
        RunError: Naming it.
    """
    question = meant(name, data_source.PACKAGED)
    if name not in data_source.PACKAGED and question:
        raise errors.RunError(f"there is no data set {name!r}.{question}")


def _is_a(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _refuse(name: str, rule: Rule, value: Any) -> NoReturn:
    known = rule.expected.removeprefix("one of ").split(", ")
    question = meant(value, known) if rule.expected.startswith("one of ") else ""
    raise errors.RunError(
        f"config.{name} must be {rule.expected}, got {value!r}.{question}"
    )
