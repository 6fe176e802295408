"""A network as a QONNX model, for tools that build hardware."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from adaste_jax import methods
from adaste_jax.export import (
    _graph,
    _graph_ops,
    _onnx,
    _onnx_nodes,
    _onnx_weights,
    _onnx_writer,
)

_DOMAIN = "qonnx.custom_op.general"


def to_qonnx(
    network: Any,
    params: Any,
    model_state: Any = None,
    *,
    input_shape: Sequence[int],
    input_dtype: DTypeLike = jnp.float32,
    batch_size: int = 1,
    method: methods.Method | None = None,
    path: str | os.PathLike[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> bytes:
    """Writes a network as a QONNX model, for hls4ml, FINN and other tools for FPGAs.

    QONNX is ONNX with operations that say how many bits a number has. Weights on two
    levels, s and -s, are the output of a `BipolarQuant` node with the scale s; those on
    -s, 0 and s that of a `Quant` node of two bits, narrow and signed. Both read them in
    float32 from the file, so that it is as large as one in full precision: it is a step
    on the way to hardware, not what is shipped. Activations stay in float32; the tools
    choose their fixed-point types.

    Arguments and errors are those of `to_onnx`, and the names of input and outputs, but
    all shapes are fixed. Neither needs `qonnx` to be installed.

    Source: A. Pappalardo et al., "QONNX: Representing Arbitrary-Precision Quantized
    Neural Networks", 2022, https://arxiv.org/abs/2206.07527.

    Args:
        network: A module or a function, as for `to_onnx`.
        params: The latents of `method`; without it the weights that are shipped.
        model_state: What else the network needs.
        input_shape: Shape of one example, without the batch.
        input_dtype: Of the inputs.
        batch_size: Examples in a batch. hls4ml and FINN want 1.
        method: The method that trained the network.
        path: If given, the model is also written there.
        metadata: Stored in the model, as JSON by name.

    Returns:
        The model.

    Raises:
        ImportError: If onnx is not installed.
        TypeError: If `metadata` are not JSON.
        UnsupportedError: If the network has an operation that is not known, or weights
            with a scale for each group of inputs, for which QONNX has no form.
        ValueError: If a number is not finite, `batch_size` is less than 1, or the model
            would be larger than 2 GB.

    Example:
        >>> import jax.numpy as jnp, onnx
        >>> from adaste_jax import export
        >>> weights = jnp.where(jnp.arange(2048).reshape(64, 32) % 3 > 0, 1.0, -1.0)
        >>> data = export.to_qonnx(lambda w, x: x @ w, weights, input_shape=(64,))
        >>> [node.op_type for node in onnx.load_from_string(data).graph.node]
        ['BipolarQuant', 'MatMul']
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    writer = _onnx_writer.Writer()
    graph = _graph.trace(
        network,
        params,
        model_state,
        input_shape=input_shape,
        input_dtype=input_dtype,
        method=method,
    )
    _onnx.warn_of_latents(graph, method)
    graph = _graph_ops.fixed(graph, batch_size)
    nodes = _onnx_nodes.Nodes(graph, writer, constant=constant)
    return _onnx.write_model(graph, writer, nodes, metadata, path)


def constant(writer: _onnx_writer.Writer, name: str, array: np.ndarray) -> str:
    """Adds an array to a model: with its number of bits if it is on few levels.

    Args:
        writer: Of the model.
        name: For the values.
        array: The numbers.

    Returns:
        The name of a value with these numbers.
    """
    found = None if array.dtype == np.bool_ else _onnx_weights.levels(array)
    if found is None or array.ndim < 2:
        return writer.constant(array, name)
    if found.group is not None:
        raise _graph.UnsupportedError(
            f"cannot export the weights {name!r} of shape {array.shape}: they have a "
            f"scale for each group of {found.group}, and QONNX has none for groups of "
            "inputs. Train with a scale for each output or one for all, or write the "
            "network by `to_onnx`."
        )
    signs = writer.constant(np.where(array == 0, array, np.sign(array)), name)
    scale = writer.constant(np.asarray(found.scale, np.float32))
    if found.bits == 1:
        return writer.add("BipolarQuant", signs, scale, domain=_DOMAIN)
    zero, bits = (writer.constant(np.asarray(n, np.float32)) for n in (0, 2))
    return writer.add(
        "Quant",
        *(signs, scale, zero, bits),
        domain=_DOMAIN,
        signed=1,
        narrow=1,
        rounding_mode="ROUND",
    )
