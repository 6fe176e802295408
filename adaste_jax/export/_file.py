"""One file for one trained network: a bit for each binary weight."""

import collections
import hashlib
import importlib.metadata
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from adaste_jax import _paths, methods
from adaste_jax.export import _encode, _format, _packed, _read
from adaste_jax.export._write_file import write_file as write_file


class Loaded(NamedTuple):
    """What `load` returns. Leaves are NumPy arrays, which JAX takes as they are."""

    params: Any  # binary leaves are exactly +1 and -1, or the scaled weights
    model_state: Any  # as given to `save`; an empty dictionary where it was None
    metadata: dict[str, Any]  # as given to `save`
    header: dict[str, Any]  # versions; how each tensor is stored


def save(
    path: str | os.PathLike[str],
    params: Any,
    *,
    method: methods.Method | None = None,
    where: _paths.Where | None = None,
    deploy: _encode.Deploy | None = None,
    model_state: Any = None,
    metadata: Mapping[str, Any] | None = None,
    scale_dtype: DTypeLike | None = None,
    compact: bool = False,
) -> None:
    """Writes a network as one safetensors file, with one bit for each binary weight.

    n binary weights take exactly ceil(n / 8) bytes, and n ternary ones ceil(n / 5);
    where they have a scale, there is one number more for a tensor, for each channel or
    for each group, which is found in the weights. They are packed along all axes but
    the last where that leaves no byte partly filled, and along all axes elsewhere.
    Other leaves keep their dtype. The file appears under its name only when it is
    complete and on the disk: it is written under another name in the same folder,
    synchronised, and renamed. The format is that of `docs/format.md`, which has a
    reader of one page in plain NumPy.

    Args:
        path: File to write. An existing file is replaced.
        params: Latents, or weights +1 and -1: any tree. Where a key has a slash, the
            file is of version 2 of the format, which escapes it; so is it where scales
            are those of groups, or of float16.
        method: The method that trained the network. It knows which leaves are latents,
            and what is shipped of them.
        where: Without a method: which leaves are latents, by regular expressions on the
            path, a tree of booleans, or a function from the tree to one. Default: all
            leaves called `kernel`.
        deploy: Without a method: from the latents of a leaf to the weights that are
            shipped, for example `estimators.ternary_absmean`; or
            `lambda weights: weights` where `params` are those weights already. Default:
            the signs. Weights are s, -s and 0, with one s for a tensor, for each
            channel (the last axis) or for each group (of at least 8, as
            `estimators.per_group` makes them), and may have another shape than the
            latents.
        model_state: What else the network needs, stored as it is: in Flax Linen
            `{"batch_stats": ...}`.
        metadata: What a reader needs to know, as JSON: `architecture` and `config` to
            build the network again, `estimator`, `commit` of the training code.
        scale_dtype: `jnp.float16` rounds all scales to it, halves to even, which is
            what llama.cpp stores: 1.125 bits a weight in groups of 128, and not 1.25.
            The weights in the file are exactly those of the rounded scales. Default:
            the dtype of the weights, which changes nothing.
        compact: Whether to write version 3 of the format, whose header takes half the
            bytes: it says of packed tensors alone what they are, and has one checksum
            for all data. Releases before 0.2 do not read it.

    Raises:
        ImportError: If safetensors is not installed.
        TypeError: If a method comes with `where` or `deploy`, a selected leaf is not
            floating point, a leaf is of a dtype that the format does not have, the
            metadata cannot be written as JSON, or `scale_dtype` is another one than
            float16, or the weights are of a dtype that does not hold it.
        ValueError: If a leaf or a weight is not finite, nothing is binary, the weights
            are not of the levels above, `params` have those levels and neither
            `method` nor `deploy` says what they are, a name cannot be the name of a
            tensor, a scale is 0 or infinite in float16, or the header would be larger
            than the format allows.

    Example:
        >>> import os, tempfile
        >>> import jax.numpy as jnp
        >>> from adaste_jax import export
        >>> params = {"kernel": jnp.linspace(-1.0, 1.0, 96).reshape(8, 12)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "model.safetensors")
        ...     export.save(path, params, metadata={"architecture": "demo"})
        ...     loaded = export.load(path)
        >>> loaded.metadata, loaded.params["kernel"].sum()
        ({'architecture': 'demo'}, np.float32(0.0))
    """
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            'writing one-bit files needs safetensors: pip install "adaste_jax[export]"'
        ) from error

    if scale_dtype is not None and np.dtype(scale_dtype) != np.float16:
        raise TypeError(f"`scale_dtype` must be float16 or None, got {scale_dtype!r}.")
    _encode.require_finite(params=params, model_state=model_state)
    names = _names("params", params, _version(params, model_state, leaves=()))
    leaves = _encode.leaves(
        params,
        names,
        where=where,
        deploy=deploy,
        method=method,
        half_scales=scale_dtype is not None,
    )
    version = _version(params, model_state, leaves=leaves)
    version = _format.COMPACT if compact else version
    entries: dict[str, tuple[np.ndarray, dict[str, Any]]] = {}
    names = _names("params", params, version)
    for name, leaf in zip(names, leaves, strict=True):
        if not _packed.is_packed(leaf):
            entries[name] = _real(name, leaf)
            continue
        entries[name] = leaf.packed, _description(leaf.packed, leaf)
        if leaf.scale is not None:
            scale = _format.scale_name(name)
            entries[scale] = _real(scale, leaf.scale)
    names = _names("model_state", model_state, version)
    for name, leaf in zip(names, jax.tree.leaves(model_state), strict=True):
        entries[name] = _real(name, leaf)
    header: dict[str, Any] = {
        "format": version,
        "adaste_jax": importlib.metadata.version("adaste_jax"),
        "jax": jax.__version__,
        "metadata": dict(metadata or {}),
        "tensors": {name: description for name, (_, description) in entries.items()},
    }
    arrays = {name: stored for name, (stored, _) in entries.items()}
    separators = None
    if compact:
        header |= _short(header["tensors"], safetensors.numpy.save(arrays))
        separators = (",", ":")
    try:
        text = json.dumps(header, allow_nan=False, separators=separators)
    except (TypeError, ValueError) as error:
        error.add_note("`metadata` must be JSON, without NaN and infinity")
        raise
    data = safetensors.numpy.save(arrays, metadata={_format.KEY: _format.seal(text)})
    length = int.from_bytes(data[:8], "little")
    if length > _format.HEADER_LIMIT:
        raise ValueError(
            f"the header takes {length} bytes, and the format allows "
            f"{_format.HEADER_LIMIT}: shorten `metadata`."
        )
    write_file(path, data)


def load(
    path: str | os.PathLike[str],
    *,
    params_like: Any = None,
    model_state_like: Any = None,
    packed: bool = False,
) -> Loaded:
    """Reads a file that `save` wrote. Checks all of it; runs nothing that is in it.

    Args:
        path: The file.
        params_like: A tree of the structure and shapes that the parameters had, of
            arrays or `jax.ShapeDtypeStruct`. Default: nested dictionaries, which is
            what Flax Linen has.
        model_state_like: Such a tree for the model state.
        packed: Whether binary and ternary leaves stay packed: each is a `Packed`, with
            its bytes and scale, for `apply_packed` and `packed_matmul`. Large kernels
            come packed along all axes but the last, however the file has them.

    Returns:
        Parameters, of which binary leaves are the weights that were shipped, model
        state, metadata and header.

    Raises:
        FormatError: If the file is not one of this format, is of another version, or
            is damaged. It is a `ValueError`.
        OSError: If the file cannot be read.
        ValueError: If the file does not fit `params_like` or `model_state_like`.
    """
    tensors, header = _read.read(path, packed=packed)
    version = header["format"]
    tree = _format.nest(tensors, version)
    params, model_state = tree.get("params", {}), tree.get("model_state", {})
    if params_like is not None:
        params = _restore("params", params_like, tensors, version)
    if model_state_like is not None:
        model_state = _restore("model_state", model_state_like, tensors, version)
    return Loaded(params, model_state, header["metadata"], header)


def _version(*trees: Any, leaves: Sequence[Any]) -> int:
    """The version that can name and hold every leaf: 1 wherever that will do."""
    keys = itertools.chain.from_iterable(_paths.keys(trees))
    packed = [leaf for leaf in leaves if _packed.is_packed(leaf)]
    return 1 + (any("/" in key for key in keys) or any(map(_encode.is_new, packed)))


def _names(root: str, tree: Any, version: int) -> list[str]:
    """Names of all leaves, as "params/body/kernel"; no two are alike."""
    names = [_format.tensor_name(root, keys, version) for keys in _paths.keys(tree)]
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise ValueError(f"two leaves have one name, {name!r}.")
    return names


def _real(name: str, leaf: Any) -> tuple[np.ndarray, dict[str, Any]]:
    dtype = jnp.asarray(leaf).dtype if np.isscalar(leaf) else leaf.dtype
    if dtype.name not in _format.DTYPES:
        raise TypeError(
            f"{name!r} is of dtype {dtype}, and a file holds "
            f"{', '.join(_format.DTYPES)}. Store random keys by `jax.random.key_data`."
        )
    stored = np.asarray(leaf, dtype, order="C")
    return stored, _description(stored)


def _description(
    stored: np.ndarray, encoded: _packed.Packed | None = None
) -> dict[str, Any]:
    """What the header says of a tensor: a real one, or what is packed in `stored`."""
    tensor = stored if encoded is None else encoded
    group = (
        {}
        if encoded is None or encoded.group is None
        else {"group": list(encoded.group)}
    )
    return {
        "encoding": "real" if encoded is None else encoded.encoding,
        "dtype": tensor.dtype.name,
        "shape": list(tensor.shape),
        "axes": [] if encoded is None else list(encoded.axes),
        "sha256": hashlib.sha256(stored.tobytes()).hexdigest(),
        **group,
    }


def _short(tensors: dict[str, dict[str, Any]], whole: bytes) -> dict[str, Any]:
    """The fields of a short header: packed tensors, and the checksum of all data."""
    start = 8 + int.from_bytes(whole[:8], "little")
    packed = {
        name: {key: value for key, value in tensor.items() if key != "sha256"}
        for name, tensor in tensors.items()
        if tensor["encoding"] != "real"
    }
    return {"sha256": _format.sha256(whole[start:]), "tensors": packed}


def _restore(root: str, like: Any, tensors: dict[str, Any], version: int) -> Any:
    """The tensors under a root in the structure of another tree."""
    names = _names(root, like, version)
    found = {name for name in tensors if name.split("/")[0] == root}
    if set(names) != found:
        raise ValueError(
            f"the file and `{root}_like` differ in {sorted(found ^ set(names))}."
        )
    for name, leaf in zip(names, jax.tree.leaves(like), strict=True):
        if np.shape(leaf) != tensors[name].shape:
            raise ValueError(
                f"{name!r} has the shape {tensors[name].shape} in the file and "
                f"{np.shape(leaf)} in `{root}_like`."
            )
    return jax.tree.unflatten(jax.tree.structure(like), [tensors[n] for n in names])
