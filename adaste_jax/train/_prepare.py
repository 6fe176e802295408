"""From a batch to inputs and labels, inside the compiled step."""

from collections.abc import Callable, Mapping
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
    if not isinstance(batch, Mapping) or not {"image", "label"} <= batch.keys():
        found = list(batch) if isinstance(batch, Mapping) else type(batch).__name__
        raise ValueError(
            f"a batch needs the keys 'image' and 'label', got {found}. Otherwise pass "
            "`prepare`, a function from a key, a batch and the resident data to inputs "
            "and labels."
        )
    return batch["image"], batch["label"]


def batch_of(prepare: Prepare | None, batch: Any, resident: Any) -> tuple[Any, Any]:
    """Batch and resident data of `step(state, inputs, labels)`.

    Without `prepare` there are no resident data, so that argument can hold the labels.
    """
    if prepare is None and resident is not None and not isinstance(batch, Mapping):
        return {"image": batch, "label": resident}, None
    return batch, resident
