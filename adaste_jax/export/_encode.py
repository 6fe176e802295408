"""What is stored of a tensor of latents: packed signs or trits, and their scale."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from adaste_jax import _paths, _tree, methods, metrics
from adaste_jax.estimators import _base
from adaste_jax.export import _pack, _packed, _scales

Deploy = Callable[[jax.Array], jax.Array]
"""From latents to the weights that are shipped."""


def require_finite(**trees: Any) -> None:
    """Refuses trees that hold NaN or infinity: a network that is lost.

    Args:
        **trees: By their names, which the paths in the message begin with.

    Raises:
        ValueError: If a leaf is not finite. It names the first ones and their counts.
    """
    found = metrics.nonfinite(trees)
    if found:
        shown = [f"{path!r} ({count})" for path, count in list(found.items())[:5]]
        more = f" and {len(found) - 5} more leaves" if len(found) > 5 else ""
        raise ValueError(
            "the numbers to export must be finite, and there is NaN or infinity in "
            f"{', '.join(shown)}{more}; in brackets, how many entries. Training has "
            "diverged: take a checkpoint from before."
        )


def leaves(
    params: Any,
    names: Sequence[str],
    *,
    where: _paths.Where | None,
    deploy: Deploy | None,
    method: methods.Method | None,
    half_scales: bool = False,
) -> list[Any]:
    """All leaves as they are shipped: latents encoded, and real ones as they are.

    Args:
        params: Parameters.
        names: Names of their leaves, for messages.
        where: Which leaves are latents.
        deploy: From the latents of a leaf to its weights; None for their signs.
        method: What says both, in their place.
        half_scales: Whether scales are rounded to float16.

    Raises:
        TypeError: If a method comes with `where` or `deploy`, latents are not floating
            point, or their dtype does not hold float16.
        ValueError: If nothing is binary, or the weights cannot be encoded.
    """
    if method is not None and (where is not None or deploy is not None):
        raise TypeError(
            "a method comes with `where` or `deploy`: those are the method's own. "
            "Leave them out, or leave out `method`."
        )
    mask = jax.tree.leaves(_paths.select(params, where, method))
    if not any(mask):
        raise ValueError(
            "this method trains in full precision: no leaf is binary, so that there is "
            "nothing to pack. Write real parameters by `safetensors` or a checkpoint."
        )
    if method is not None:
        params, deploy = method.deploy(params), lambda weights: weights
    shipped = []
    for name, leaf, latent in zip(names, jax.tree.leaves(params), mask, strict=True):
        if latent:
            leaf = encode(leaf, deploy, name=name)
            leaf = half_precision(leaf, name) if half_scales else leaf
        shipped.append(leaf)
    return shipped


def encode(
    latent: jax.Array, deploy: Deploy | None, *, name: str = "the tensor"
) -> _packed.Packed:
    """Packs the weights of a tensor of latents.

    Args:
        latent: Latents.
        deploy: From latents to weights; None for their signs.
        name: Name of the leaf, for messages.

    Returns:
        The weights, without loss.

    Raises:
        TypeError: If latents or weights are not floating point.
        ValueError: If `deploy` gives more levels than -s, 0 and s, with one s for each
            channel (the last axis) or for each group of weights, if latents or weights
            are not finite, or if without `deploy` the latents have those levels: then
            they are weights already.
    """
    try:
        return _encode(_base.check_latent(latent), deploy, name)
    except (TypeError, ValueError) as error:
        error.add_note(f"at the leaf {name!r}")
        raise


def _encode(latent: jax.Array, deploy: Deploy | None, name: str) -> _packed.Packed:
    if deploy is None:
        found = _scales.levels(np.asarray(latent))
        if found is not None and (
            found[0] == "trits" or 1 < found[1].size < latent.size
        ):
            raise ValueError(
                f"{name!r} holds -s, 0 and s, or -s and s with an s for each channel "
                "or group: these are weights, and as plain signs they would be others. "
                "Give `method=`, with the latents, or `deploy=lambda weights: weights`."
            )
        deploy = functools.partial(_tree.deploy, where=True)
    weights = np.asarray(_base.check_latent(deploy(latent)))
    lost = np.count_nonzero(~np.isfinite(weights))
    if lost:
        raise ValueError(
            f"`deploy` must give finite weights; of {name!r} it gave magnitudes that "
            f"are NaN or infinite, {lost} of {weights.size}."
        )
    found = _scales.levels(weights)
    if found is None:
        raise ValueError(
            "`deploy` must give weights -s and s, or -s, 0 and s, with one s for a "
            "tensor, for each channel, or for groups of at least "
            f"{_scales.LEAST_GROUP} weights; it gave "
            f"{len(np.unique(np.abs(weights)))} magnitudes in a tensor of shape "
            f"{weights.shape}."
        )
    encoding, scale, group = found
    axes = row_axes(weights.shape, _packed.PER_BYTE[encoding])
    pack = _pack.pack if encoding == "bits" else _pack.pack_ternary
    return _packed.Packed(
        encoding=encoding,
        packed=np.asarray(pack(weights, axis=axes or None)),
        scale=None if not weights.size or (scale == 1).all() else scale,
        shape=weights.shape,
        axes=axes,
        dtype=weights.dtype,
        group=group,
    )


def is_new(encoded: _packed.Packed) -> bool:
    """Whether version 1 of the format cannot hold it."""
    half = encoded.scale is not None and encoded.scale.dtype != encoded.dtype
    return half or encoded.group is not None


def half_precision(encoded: _packed.Packed, name: str) -> _packed.Packed:
    """The weights of the nearest scales of float16, halves to even.

    Raises:
        TypeError: If the dtype of the weights does not hold all numbers of float16.
        ValueError: If a scale would become 0 or infinite.
    """
    if encoded.scale is None or encoded.dtype == np.float16:
        return encoded
    if encoded.dtype not in (np.float32, np.float64):
        raise TypeError(
            f"{name!r} is of dtype {encoded.dtype}, which does not hold all numbers of "
            "float16: leave out `scale_dtype`, or take weights of float32."
        )
    with np.errstate(over="ignore"):
        scale = encoded.scale.astype(np.float16)
    lost = ~np.isfinite(scale) | ((scale == 0) & (encoded.scale != 0))
    if lost.any():
        raise ValueError(
            f"{name!r} has {np.count_nonzero(lost)} scales that are 0 or infinite in "
            f"float16, as {encoded.scale[lost].flat[0]:g}: it goes from 6e-8 to 65504. "
            "Leave out `scale_dtype`."
        )
    return dataclasses.replace(encoded, scale=scale)


def row_axes(shape: tuple[int, ...], per_byte: int) -> tuple[int, ...]:
    """The axes along which to pack: all but the last, if that leaves no byte open.

    For kernels of Flax those are the axes that are summed over, so that the bytes of a
    dense kernel go into `packed_matmul` as they are.
    """
    rows = tuple(range(len(shape) - 1))
    if rows and math.prod(shape[:-1]) % per_byte == 0:
        return rows
    return tuple(range(len(shape)))
