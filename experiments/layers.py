"""What every binary layer does over time: flips, saturation, and where its latents lie.

The histogram is that of the latents in units of their root mean square, which is what
signs depend on: a layer whose latents grow together has not changed. Its bins are
`EDGES`; what lies beyond counts in the outermost.
"""

from typing import Any

import jax
import numpy as np

from adaste_jax import metrics, train
from experiments.run import Run

EDGES = np.linspace(-4, 4, 41)


def records(
    run: Run, state: train.TrainState, epoch: int, signs: list[jax.Array] | None = None
) -> list[dict[str, Any]]:
    """A line of `layers.jsonl` for each binary layer.

    Args:
        run: The run.
        state: After the last step of the epoch.
        epoch: Epochs that are done; 0 is before the first step.
        signs: Of the latents when the epoch began, as `metrics.pack_signs` gives them.

    Returns:
        By layer: `step`, `epoch`, `layer` (its path), `flips_per_epoch` (share of
        weights of another sign than at the start of the epoch; absent without
        `signs`), `saturated` (share of the training weights that annealing holds at
        their largest magnitude), `rms` of the latents, and `latents`, their histogram.
        Empty in full precision.
    """
    if run.where is None:
        return []
    saturated = metrics.by_path(
        metrics.saturated_share, run.weights(state), where=run.where
    )
    latents = run.latents(state)
    flips = [
        {"flips_per_epoch": metrics.flip_rate_since([bits], latent, where=True)}
        for bits, latent in zip(signs or (), latents.values(), strict=signs is not None)
    ]
    shares = [
        {**changed, "saturated": share}
        for changed, share in zip(
            flips or [{}] * len(latents), saturated.values(), strict=True
        )
    ]
    return [
        {
            "step": int(state.step),
            "epoch": epoch,
            "layer": path,
            **{name: float(value) for name, value in found.items()},
            **_histogram(latent),
        }
        for (path, latent), found in zip(
            latents.items(), jax.device_get(shares), strict=True
        )
    ]


def _histogram(latent: np.ndarray) -> dict[str, Any]:
    """Root mean square and counts; 10 ms for a million latents."""
    values = latent[np.isfinite(latent)].astype(np.float64)
    rms = float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
    per_unit = (len(EDGES) - 1) / (EDGES[-1] - EDGES[0])
    bins = np.floor((values / (rms or 1.0) - EDGES[0]) * per_unit)
    index = np.clip(bins, 0, len(EDGES) - 2).astype(np.intp)
    counts = np.bincount(index, minlength=len(EDGES) - 1)
    return {"rms": rms, "latents": counts.tolist()}
