"""A network as an ONNX model with packed weights."""

import importlib.metadata
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from adaste_jax import methods
from adaste_jax.export import (
    _file,
    _graph,
    _graph_ops,
    _onnx_nodes,
    _onnx_weights,
    _onnx_writer,
)

OPSET = 18
"""The first with `BitwiseAnd`."""

_IR = 8  # of the files of that opset
_LIMIT = 2**31 - 1
_NEEDED = {"": "onnxruntime 1.14", "com.microsoft": "onnxruntime 1.24"}


def to_onnx(
    network: Any,
    params: Any,
    model_state: Any = None,
    *,
    input_shape: Sequence[int],
    input_dtype: DTypeLike = jnp.float32,
    method: methods.Method | None = None,
    fast: bool = False,
    path: str | os.PathLike[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> bytes:
    """Writes a network as an ONNX model, for ONNX Runtime and other engines.

    The model has one input `"input"` [batch, ...] with any batch, and the outputs of
    the network in evaluation mode: `"output"`, or `"output_0"`, ... if there are
    several. Norms are folded into a scale and a shift.

    Every array on two levels, s and -s, is stored in one bit a number, and one on -s, 0
    and s in two; s is one number, or one for each place on one axis, or for each group
    of inputs (`estimators.per_group`), in float16 where that does not round. Nodes of
    the model (`BitShift`, `BitwiseAnd`) unpack them, which ONNX Runtime does once, at
    load. All others, such as embeddings, or all weights of a method of full precision,
    are stored in float32.

    With `fast`, dense layers of at least 65,536 such weights become `MatMulNBits`, an
    operation of ONNX Runtime alone (1.24 or newer): it reads two bits a weight as it
    runs, and rounds activations to int8 in groups of 128, or of the largest power of
    two that divides the groups of the weights; below 16 the layer stays as it is.
    `docs/engines.md` says what that gains and costs.

    A network in bfloat16 or float16 is exported in float32, so that logits differ by
    the rounding of its activations. An index out of range, which JAX clips or answers
    by NaN, is an error in ONNX.

    Args:
        network: A Linen module, an NNX module, or a function: `forward(params,
            inputs)`, `forward(params, model_state, inputs)` where a model state is
            given, or one that `train.make_train_step` takes. Modules are called in
            evaluation mode.
        params: The latents of `method`; without it the weights that are shipped, for
            example those of `adaste_jax.deploy` or `load`.
        model_state: What else the network needs: in Flax Linen `{"batch_stats": ...}`;
            for an NNX module, by default its own.
        input_shape: Shape of one example, without the batch.
        input_dtype: Of the inputs.
        method: The method that trained the network: it makes latents to weights.
        fast: Whether large dense layers may round their inputs to int8.
        path: If given, the model is also written there, as `save` writes.
        metadata: Stored in the model, as JSON by name.

    Returns:
        The model.

    Raises:
        ImportError: If onnx is not installed.
        TypeError: If `metadata` are not JSON.
        UnsupportedError: If the network has an operation that is not known. It names
            the operation and where it stands.
        ValueError: If a number is not finite, or the model would be larger than 2 GB,
            which ONNX does not allow in one file.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import export
        >>> weights = jnp.where(jnp.arange(2048).reshape(64, 32) % 3 > 0, 1.0, -1.0)
        >>> model = export.to_onnx(
        ...     lambda params, x: x @ params, weights, input_shape=(64,)
        ... )
        >>> len(model) < 1200  # 256 bytes of weights
        True
    """
    writer = _onnx_writer.Writer()
    graph = _graph.trace(
        network,
        params,
        model_state,
        input_shape=input_shape,
        input_dtype=input_dtype,
        method=method,
    )
    warn_of_latents(graph, method)
    nodes = _onnx_nodes.Nodes(graph, writer, fast=fast)
    return write_model(graph, writer, nodes, metadata, path)


def warn_of_latents(graph: _graph_ops.Graph, method: methods.Method | None) -> None:
    """Warns of a network without a method in which nothing is on few levels."""
    if method is None and not any(map(_onnx_weights.levels, graph.constants.values())):
        warnings.warn(
            "no weights are on few levels: the model holds them in float32. If "
            "`params` are latents, give their `method`, or the weights of "
            "`adaste_jax.deploy`.",
            stacklevel=3,
        )


def write_model(
    graph: _graph_ops.Graph,
    writer: _onnx_writer.Writer,
    nodes: _onnx_nodes.Nodes,
    metadata: Mapping[str, Any] | None,
    path: str | os.PathLike[str] | None,
) -> bytes:
    """The bytes of a model, checked and written to a path; see `to_onnx`."""
    for node in graph.nodes:
        nodes.write(node)
    model = _model(graph, writer, [nodes.last(name) for name in graph.outputs])
    for name, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, json.dumps(value, allow_nan=False)
    if model.ByteSize() > _LIMIT:
        raise ValueError(
            f"the model takes {model.ByteSize()} bytes, and a file of ONNX has at most "
            f"{_LIMIT}."
        )
    domain = model.opset_import[-1].domain
    model.doc_string = f"Needs {_NEEDED.get(domain, 'qonnx 1.0')} or newer."
    writer.onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    if path is not None:
        _file.write_file(path, data)
    return data


def _model(
    graph: _graph_ops.Graph, writer: _onnx_writer.Writer, outputs: Sequence[str]
) -> Any:
    """The model: its input and outputs have their names, shapes and dtypes."""
    helper = writer.onnx.helper
    single = len(outputs) == 1
    written = []
    for number, (name, source) in enumerate(zip(graph.outputs, outputs, strict=True)):
        output = "output" if single else f"output_{number}"
        writer.rename(source, output)
        spec = graph.specs.get(name)
        if spec is None:
            array = graph.constants[name]
            spec = _graph_ops.Spec(array.shape, array.dtype)
        written.append(_described(helper, output, spec))
    entered = _described(helper, graph.input, graph.specs[graph.input])
    body = helper.make_graph(
        writer.nodes,
        "network",
        [entered],
        written,
        initializer=list(writer.tensors.values()),
    )
    domains = {node.domain for node in writer.nodes if node.domain}
    opsets = [("", OPSET), *((domain, 1) for domain in sorted(domains))]
    return helper.make_model(
        body,
        producer_name="adaste_jax",
        producer_version=importlib.metadata.version("adaste_jax"),
        opset_imports=[helper.make_opsetid(*opset) for opset in opsets],
        ir_version=_IR,
    )


def _described(helper: Any, name: str, spec: _graph_ops.Spec) -> Any:
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    return helper.make_tensor_value_info(name, dtype, list(spec.shape))
