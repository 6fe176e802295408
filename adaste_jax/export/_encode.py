"""What is stored of a tensor of latents: packed signs or trits, and their scale."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adaste_jax import _paths, _tree, methods, metrics
from adaste_jax.estimators import _base
from adaste_jax.export import _pack

Deploy = Callable[[jax.Array], jax.Array]
"""From latents to the weights that are shipped."""

PER_BYTE = {"bits": _pack.WEIGHTS_PER_BYTE, "trits": _pack.TRITS_PER_BYTE}


class Encoded(NamedTuple):
    """Weights that are a scale times +1 and -1, or times -1, 0 and +1."""

    encoding: str  # a key of PER_BYTE
    packed: np.ndarray  # uint8
    scale: np.ndarray | None  # of shape [] or [size of the last axis]; None is 1
    shape: tuple[int, ...]
    axes: tuple[int, ...]  # along which is packed
    dtype: np.dtype


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
) -> list[Any]:
    """All leaves as they are shipped: latents encoded, and real ones as they are.

    Args:
        params: Parameters.
        names: Names of their leaves, for messages.
        where: Which leaves are latents.
        deploy: From the latents of a leaf to its weights; None for their signs.
        method: What says both, in their place.

    Raises:
        TypeError: If a method comes with `where` or `deploy`, or latents are not
            floating point.
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
    triples = zip(names, jax.tree.leaves(params), mask, strict=True)
    return [
        encode(leaf, deploy, name=name) if latent else leaf
        for name, leaf, latent in triples
    ]


def encode(
    latent: jax.Array, deploy: Deploy | None, *, name: str = "the tensor"
) -> Encoded:
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
            channel (the last axis), if latents or weights are not finite, or if without
            `deploy` the latents have those levels: then they are weights already.
    """
    try:
        return _encode(_base.check_latent(latent), deploy, name)
    except (TypeError, ValueError) as error:
        error.add_note(f"at the leaf {name!r}")
        raise


def _encode(latent: jax.Array, deploy: Deploy | None, name: str) -> Encoded:
    if deploy is None:
        found = _levels(np.asarray(latent))
        if found is not None and (
            found[0] == "trits" or 1 < found[1].size < latent.size
        ):
            raise ValueError(
                f"{name!r} holds -s, 0 and s, or -s and s with an s for each channel: "
                "these are weights, and as plain signs they would be others. Give "
                "`method=`, with the latents, or `deploy=lambda weights: weights`."
            )
        deploy = functools.partial(_tree.deploy, where=True)
    weights = np.asarray(_base.check_latent(deploy(latent)))
    lost = np.count_nonzero(~np.isfinite(weights))
    if lost:
        raise ValueError(
            f"`deploy` must give finite weights; of {name!r} it gave magnitudes that "
            f"are NaN or infinite, {lost} of {weights.size}."
        )
    found = _levels(weights)
    if found is None:
        raise ValueError(
            "`deploy` must give weights -s and s, or -s, 0 and s, with one s for a "
            f"tensor or for each channel; it gave {len(np.unique(np.abs(weights)))} "
            f"magnitudes in a tensor of shape {weights.shape}."
        )
    encoding, scale = found
    axes = row_axes(weights.shape, PER_BYTE[encoding])
    pack = _pack.pack if encoding == "bits" else _pack.pack_ternary
    return Encoded(
        encoding=encoding,
        packed=np.asarray(pack(weights, axis=axes or None)),
        scale=None if not weights.size or (scale == 1).all() else scale,
        shape=weights.shape,
        axes=axes,
        dtype=weights.dtype,
    )


def _levels(weights: np.ndarray) -> tuple[str, np.ndarray] | None:
    """The encoding and the scale of weights that have few levels; None of others."""
    size = np.abs(weights)
    scales = [size.max(initial=0)]
    if size.ndim > 1:  # a vector has no channels
        scales.append(size.max(axis=tuple(range(size.ndim - 1)), initial=0))
    for encoding, zeros in (("bits", False), ("trits", size == 0)):
        for scale in scales:
            if ((size == scale) | zeros).all():
                return encoding, np.asarray(scale)
    return None


def decode(encoded: Encoded) -> jax.Array:
    """The weights; its arrays may be traced."""
    unpack = _pack.unpack if encoded.encoding == "bits" else _pack.unpack_ternary
    weights = unpack(
        encoded.packed, encoded.shape, axis=encoded.axes or None, dtype=encoded.dtype
    )
    if encoded.scale is None:
        return weights
    scale = jnp.asarray(encoded.scale)
    return weights * jnp.expand_dims(scale, range(weights.ndim - scale.ndim))


def decode_on_host(
    encoding: str,
    packed: np.ndarray,
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    dtype: np.dtype,
) -> np.ndarray:
    """The weights without their scale, by NumPy."""
    first, merged = _pack.merge(shape, axes or None)
    if encoding == "bits":
        bits = np.unpackbits(packed, axis=first, count=merged[first], bitorder="little")
        return np.array([-1, 1], dtype)[bits].reshape(shape)
    per_byte = PER_BYTE[encoding]
    powers = np.array([3**j for j in range(per_byte)], np.uint8)
    trits = np.moveaxis(packed, first, -1)[..., None] // powers % np.uint8(3)
    trits = trits.reshape(*trits.shape[:-2], trits.shape[-2] * per_byte)
    trits = np.moveaxis(trits[..., : merged[first]], -1, first)
    weights: np.ndarray = np.array([-1, 0, 1], dtype)[trits].reshape(shape)
    return weights


def row_axes(shape: tuple[int, ...], per_byte: int) -> tuple[int, ...]:
    """The axes along which to pack: all but the last, if that leaves no byte open.

    For kernels of Flax those are the axes that are summed over, so that the bytes of a
    dense kernel go into `packed_matmul` as they are.
    """
    rows = tuple(range(len(shape) - 1))
    if rows and math.prod(shape[:-1]) % per_byte == 0:
        return rows
    return tuple(range(len(shape)))
