"""What a config may hold: numbers that no run can have are refused at the start."""

import jax
import ml_collections

from experiments import data, errors, image_folder

_LEAST = {
    "num_epochs": 1,
    "batch_size": 1,
    "eval_batch_size": 1,
    "num_train": 0,
    "num_test": 0,
    "reestimate_batches": 0,
    "steps_per_call": 0,
    "eval_every_epochs": 1,
    "checkpoint_every_epochs": 1,
    "checkpoint_every_steps": 0,
    "keep_checkpoints": 1,
    "skip_nonfinite": 0,
}

DTYPES = ("float32", "bfloat16")


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses what no run can have.

    Args:
        config: As `configs/base.py`.

    Raises:
        RunError: Naming the field, its value and what it must be.
    """
    for name, smallest in _LEAST.items():
        if config[name] < smallest:
            raise errors.RunError(
                f"config.{name} must be at least {smallest}, got {config[name]}."
            )
    shares = {
        "validation": 0 <= config.validation < 1,
        "label_smoothing": 0 <= config.label_smoothing < 1,
    }
    for name, is_share in shares.items():
        if not is_share:
            raise errors.RunError(
                f"config.{name} must lie in [0, 1), got {config[name]}."
            )
    if not 0 <= config.warmup_epochs < config.num_epochs:
        raise errors.RunError(
            "config.warmup_epochs must lie in [0, num_epochs), got "
            f"{config.warmup_epochs} of {config.num_epochs}."
        )
    if not 0 <= config.distill_weight <= 1:
        raise errors.RunError(
            f"config.distill_weight must lie in [0, 1], got {config.distill_weight}."
        )
    if not config.distill_temperature > 0:
        raise errors.RunError(
            f"config.distill_temperature must be > 0, got {config.distill_temperature}."
        )
    if config.augment not in data.AUGMENTATIONS:
        raise errors.RunError(
            f"there is no augmentation {config.augment!r}; there are "
            f"{', '.join(data.AUGMENTATIONS)}."
        )
    if config.dtype not in DTYPES:
        raise errors.RunError(
            f"config.dtype must be one of {', '.join(DTYPES)}, got {config.dtype!r}."
        )
    if config.resident and config.dataset.startswith(image_folder.PREFIX):
        raise errors.RunError(
            f"{config.dataset} is read as it is used: pass --config.resident=False and "
            "a --config.image_size."
        )
    devices = jax.device_count()
    if config.batch_size % devices:
        raise errors.RunError(
            f"config.batch_size is {config.batch_size}: it must be a multiple of the "
            f"{devices} devices."
        )
