"""A network as C sources with packed weights."""

import importlib.metadata
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from adaste_jax import methods
from adaste_jax.export import (
    _c_memory,
    _c_nodes,
    _c_rules,
    _c_text,
    _c_weights,
    _file,
    _graph,
    _graph_ops,
)


def to_c(
    network: Any,
    params: Any,
    model_state: Any = None,
    *,
    input_shape: Sequence[int],
    input_dtype: DTypeLike = jnp.float32,
    method: methods.Method | None = None,
    path: str | os.PathLike[str] | None = None,
) -> dict[str, str]:
    """Writes a network as C11, for microcontrollers and whatever has a C compiler.

    `network.h` holds the weights and one function of one example, in evaluation mode:

        static void network(const network_input *input, network_output *output);

    with `NETWORK_INPUTS` and `NETWORK_OUTPUTS` numbers, of the types `network_input`
    and `network_output`, in C order; `NETWORK_CLASSES` is the last axis of the output.
    It needs the header `stdint.h` and nothing else: no heap, no libm, no library. What
    it keeps between layers lies in static arrays, which layers use in turn, of
    `NETWORK_MEMORY` bytes; so one call must end before the next begins. Weights and
    norms take `NETWORK_CONSTANTS` bytes of flash. Include it in one file.

    `main.c`, which is the same for all networks, runs it on a file of examples or on
    stdin: raw numbers of `input_dtype`, one example after another. It prints a line for
    each: the index of the largest output, and the outputs.

    Weights of dense layers and convolutions on two levels, s and -s, take one bit, and
    those on -s, 0 and s two; they stay packed as the network runs. Each sum over them
    is one of float32 numbers with signs. A scale of a tensor, or of each output, is
    multiplied into the norm that follows; those of groups are stored in float32. Norms
    are a scale and a shift. All other numbers, as real kernels, biases and embeddings,
    are stored in float32.

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
        input_dtype: Of the inputs: float32, float64, bool, or integers of 8 to 64 bits.
        method: The method that trained the network: it makes latents to weights.
        path: If given, the folder where the two files are also written, each as `save`
            writes. It is made if there is none.

    Returns:
        The text of `network.h` and of `main.c`, by these names.

    Raises:
        OSError: If the files cannot be written.
        UnsupportedError: If the network has an operation that is not known, or that
            needs libm: erf, sin, cos, log and powers. It names it and where it stands.
        ValueError: If a number is not finite, there are several outputs, the inputs are
            of another dtype, or without a `method` no weights are on few levels.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import export
        >>> weights = jnp.where(jnp.arange(2048).reshape(64, 32) % 3 > 0, 1.0, -1.0)
        >>> sources = export.to_c(
        ...     lambda params, x: x @ params, weights, input_shape=(64,)
        ... )
        >>> "uint32_t c_packed[64]" in sources["network.h"]  # 64 words of 32 weights
        True
    """
    if jnp.dtype(input_dtype).name not in _c_weights.INPUTS:
        raise ValueError(
            f"C has no inputs of dtype {jnp.dtype(input_dtype)}; there are "
            f"{', '.join(_c_weights.INPUTS)}."
        )
    graph = _graph.trace(
        network,
        params,
        model_state,
        input_shape=input_shape,
        input_dtype=input_dtype,
        method=method,
    )
    _check(graph)
    lifted, packed = _c_weights.lift_scales(graph)
    if method is None and not packed:
        _refuse_soft(graph)
    writer = _c_nodes.Writer(lifted, packed, _c_rules.RULES, _c_rules.ROWS)
    writer.write()
    sources = {"network.h": _header(writer), "main.c": _c_text.MAIN}
    if path is not None:
        folder = pathlib.Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("main.c", "network.h"):
            _file.write_file(folder / name, sources[name].encode())
    return sources


def _check(graph: _graph_ops.Graph) -> None:
    """Refuses what C cannot have."""
    if len(graph.outputs) != 1:
        raise ValueError(
            f"the network has {len(graph.outputs)} outputs, and the function in C has "
            "one: export a function that gives one array."
        )
    for node in graph.nodes:
        reason = _c_rules.why_not(graph, node)
        if reason is not None:
            raise _graph.UnsupportedError(
                f"cannot write the operation {node.op!r} in C: {reason}. It stands in "
                f"{node.where or 'the network'!r}. Write it in other operations, or "
                "leave it out of the exported function; docs/engines.md says what is "
                "known."
            )


def _refuse_soft(graph: _graph_ops.Graph) -> None:
    """Refuses a network all of whose weights are real."""
    for name, (shape, count) in _c_weights.magnitudes(graph).items():
        raise ValueError(
            "no weights are on few levels (-s and s, or -s, 0 and s): "
            f"{name or 'params'!r} of shape {shape} has {count} magnitudes. If "
            "`params` are latents, give their `method`, or the weights of "
            "`adaste_jax.deploy`."
        )


def _header(writer: _c_nodes.Writer) -> str:
    """The text of `network.h`."""
    graph = writer.graph
    (output,) = graph.outputs
    shapes = writer.shape[graph.input], writer.shape[output]
    memory = {kind: n for kind, n in writer.memory.items() if n}
    sizes = {"float": 4, "int32_t": 4, "uint8_t": 1}
    numbers = {
        "INPUTS": math.prod(shapes[0]),
        "OUTPUTS": math.prod(shapes[1]),
        "CLASSES": [1, *shapes[1][1:]][-1],
        "CONSTANTS": writer.constants,
        "MEMORY": sum(sizes[kind] * n for kind, n in memory.items()),
    }
    lines = {
        "numbers": [f"#define NETWORK_{name} {n}" for name, n in numbers.items()],
        "tables": writer.tables,
        "memory": [
            f"static {k} {_c_memory.ARRAYS[k]}[{n}];" for k, n in memory.items()
        ],
        "functions": [f for k, f in _c_text.FUNCTIONS.items() if k in writer.called],
        "statements": writer.lines,
    }
    return _c_text.HEADER.substitute(
        {name: "".join(f"{line}\n" for line in found) for name, found in lines.items()},
        version=importlib.metadata.version("adaste_jax"),
        takes=list(shapes[0][1:]),
        gives=list(shapes[1][1:]),
        input=writer.kind(graph.input),
        output=writer.kind(output),
    )
