"""A network as one program that holds packed weights and needs no Python model."""

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from adaste_jax import _paths, methods
from adaste_jax.export import _apply_packed, _encode, _file, _packed

PLATFORMS = ("cpu", "cuda", "tpu")


def packed_forward(
    forward: Callable[..., Any],
    params: Any,
    model_state: Any = None,
    *,
    method: methods.Method | None = None,
    where: _paths.Where | None = None,
    deploy: _encode.Deploy | None = None,
) -> Callable[[jax.Array], Any]:
    """A function of the inputs alone that holds one bit for each binary weight.

    Its constants are the bytes of `pack` and the real leaves. It unpacks whenever it
    runs, and multiplies by large kernels in parts; see `apply_packed`.

    Args:
        forward: `forward(params, inputs)`, or `forward(params, model_state, inputs)`
            where a model state is given. In evaluation mode, pure.
        params: Latents. `forward` sees the weights that are shipped.
        model_state: Anything else that `forward` needs, for example batch statistics.
        method: The method that trained the network. It knows which leaves are latents,
            and what is shipped of them.
        where: Without a method: which leaves are latents, by regular expressions on the
            path, a tree of booleans, or a function from the tree to one. Default: all
            leaves called `kernel`.
        deploy: Without a method: from the latents of a leaf to the weights that are
            shipped. Default: their signs.

    Returns:
        The function.

    Raises:
        TypeError: If a selected leaf is not floating point, or a method comes with
            `where` or `deploy`.
        ValueError: If nothing is binary, the weights are not of few levels (see
            `save`), or a leaf or a weight is not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import export
        >>> params = {"kernel": jnp.array([[0.3, -2.0], [-0.1, 0.0]])}
        >>> f = export.packed_forward(lambda params, x: x @ params["kernel"], params)
        >>> f(jnp.array([[1.0, 3.0]]))
        Array([[-2.,  2.]], dtype=float32)
    """
    _encode.require_finite(params=params, model_state=model_state)
    structure = jax.tree.structure(params)
    leaves = _encode.leaves(
        params, _paths.distinct(params), where=where, deploy=deploy, method=method
    )
    stored = [
        _packed.by_columns(leaf) if _packed.is_packed(leaf) else jnp.asarray(leaf)
        for leaf in leaves
    ]
    trees: tuple[Any, ...] = (jax.tree.unflatten(structure, stored),)
    if model_state is not None:
        trees = (*trees, jax.tree.map(np.asarray, model_state))
    return functools.partial(_apply_packed.apply_packed, forward, *trees)


def to_stablehlo(
    forward: Callable[..., Any],
    params: Any,
    model_state: Any = None,
    *,
    input_shape: Sequence[int],
    input_dtype: DTypeLike = jnp.float32,
    method: methods.Method | None = None,
    where: _paths.Where | None = None,
    deploy: _encode.Deploy | None = None,
    platforms: Sequence[str] = PLATFORMS,
    path: str | os.PathLike[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> bytes:
    """Serialises a network by `jax.export`: packed weights, any batch size.

    To run the program, only JAX is needed:

        program = jax.export.deserialize(bytearray(file.read()))
        logits = program.call(images)

    JAX reads such programs for six months, and older releases do not read those of
    newer ones: one written by jax 0.12 does not load in 0.10. Keep the file of `save`
    as well; it does not age.

    Args:
        forward: `forward(params, inputs)`, or `forward(params, model_state, inputs)`
            where a model state is given. In evaluation mode, pure.
        params: Latents. `forward` sees the weights that are shipped.
        model_state: Anything else that `forward` needs, for example batch statistics.
        input_shape: Shape of one example. The batch is one axis more, at the front.
        input_dtype: Dtype of the inputs.
        method: The method that trained the network.
        where: Without a method: which leaves are latents; see `packed_forward`.
        deploy: Without a method: from latents to weights; see `packed_forward`.
        platforms: Where the program shall run. Their devices need not be here.
        path: If given, the program is also written there, as `save` writes, and beside
            it, at `path` + ".json", what is needed to use it: versions, platforms,
            shapes, dtypes, its checksum, and `metadata`.
        metadata: What to write into that second file besides, as JSON.

    Returns:
        The serialised program.

    Raises:
        ImportError: If flatbuffers is not installed.
        TypeError: For the reasons of `packed_forward`, or if `metadata` is not JSON.
        ValueError: For the reasons of `packed_forward`.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise ImportError(
            'serialised programs need flatbuffers: pip install "adaste_jax[export]"'
        )
    program = jax.jit(
        packed_forward(
            forward, params, model_state, method=method, where=where, deploy=deploy
        )
    )
    (batch,) = jax.export.symbolic_shape("batch")
    struct: Any = jax.ShapeDtypeStruct
    inputs = struct((batch, *input_shape), input_dtype)
    exported = jax.export.export(program, platforms=tuple(platforms))(inputs)
    data = bytes(exported.serialize())
    if path is not None:
        description = {
            "adaste_jax": importlib.metadata.version("adaste_jax"),
            "jax": jax.__version__,
            "calling_convention_version": exported.calling_convention_version,
            "platforms": list(exported.platforms),
            "input": [str(x) for x in exported.in_avals],
            "output": [str(x) for x in exported.out_avals],
            "sha256": hashlib.sha256(data).hexdigest(),
            "metadata": dict(metadata or {}),
        }
        text = json.dumps(description, indent=2, allow_nan=False) + "\n"
        _file.write_file(path, data)
        _file.write_file(f"{os.fspath(path)}.json", text.encode())
    return data
