"""Records every binary layer over time: flips, saturation, histogram of the latents.

The histogram has the latents in units of their root mean square, since a layer whose
latents grow together has not changed its signs. Its bins are `EDGES`; values beyond
count in the outermost bins.
"""

from typing import Any

import jax
import numpy as np

from adaste_jax import metrics, train
from experiments.runs.lines import EDGES as EDGES
from experiments.training.run import Run


class Watch:
    """Measures the layers of one run; compiled once."""

    def __init__(self, run: Run):
        """Nothing is computed yet."""
        self._run = run
        self._shares = jax.jit(self._measure)

    def records(
        self, state: train.TrainState, epoch: int, signs: list[jax.Array] | None
    ) -> list[dict[str, Any]]:
        """A line of `layers.jsonl` for each binary layer.

        Args:
            state: State after the last step of the epoch.
            epoch: Number of finished epochs; 0 is before the first step.
            signs: Signs of the latents at the start of the epoch, from
                `metrics.pack_signs`; None in full precision.

        Returns:
            By layer: `step`, `epoch`, `layer` (its path), `flips_per_epoch` (share of
            weights whose sign changed in the epoch; absent in epoch 0), `saturated`
            (share of the training weights that have their largest magnitude), `rms` of
            the latents, and `latents`, their histogram. Empty in full precision.
        """
        if signs is None:
            return []
        shares = jax.device_get(self._shares(state, signs))
        if epoch == 0:
            del shares["flips_per_epoch"]
        return [
            {
                "step": int(state.step),
                "epoch": epoch,
                "layer": path,
                **{name: float(found[path]) for name, found in shares.items()},
                **_histogram(latent),
            }
            for path, latent in self._run.latents(state).items()
        ]

    def _measure(
        self, state: train.TrainState, signs: list[jax.Array]
    ) -> dict[str, dict[str, jax.Array]]:
        method, where = self._run.method, self._run.where
        weights = method.weights(
            state.params, state.step, state.key if method.random else None
        )
        saturated = metrics.by_path(metrics.saturated_share, weights, where=where)
        chosen = metrics.by_path(lambda leaf, where: leaf, state.params, where=where)
        return {
            "flips_per_epoch": {
                path: metrics.flip_rate_since([bits], leaf, where=True)
                for bits, (path, leaf) in zip(signs, chosen.items(), strict=True)
            },
            "saturated": saturated,
        }


def _histogram(latent: np.ndarray) -> dict[str, Any]:
    """Root mean square and counts; a tenth of a second for ten million latents."""
    values = latent[np.isfinite(latent)].astype(np.float32, copy=False)
    mean = np.mean(np.square(values), dtype=np.float64) if values.size else 0.0
    rms = float(np.sqrt(mean))
    last, width = len(EDGES) - 2, (EDGES[-1] - EDGES[0]) / (len(EDGES) - 1)
    bins = values / np.float32(width * (rms or 1.0)) - np.float32(EDGES[0] / width)
    counts = np.bincount(np.clip(bins, 0, last).astype(np.uint8), minlength=last + 1)
    return {"rms": rms, "latents": counts.tolist()}
