"""From a batch to inputs and labels, inside the compiled step."""

from collections.abc import Callable
from typing import Any

import jax

Prepare = Callable[[Any, Any, Any], tuple[jax.Array, Any]]
"""From a key, a batch and the resident data to (inputs, labels), inside the compiled
step: look-up, augmentation, normalisation. It sees the whole batch."""


def take_image_and_label(
    key: Any, batch: Any, resident: Any
) -> tuple[jax.Array, jax.Array]:
    """`batch["image"]` and `batch["label"]`."""
    del key, resident
    return batch["image"], batch["label"]
