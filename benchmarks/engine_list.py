"""The engines of `benchmarks.engines`: each makes a function of a trained network.

A new engine is a function from a `Case` to a `Built`, and a row in `ENGINES`.
"""

import contextlib
import ctypes
import functools
import io
import logging
import shutil
import subprocess
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx

from adaste_jax import export
from benchmarks import engine_onnx
from benchmarks.engine import Built, Engine, UnfitError
from benchmarks.engine_networks import Case
from experiments.deployment import c_sources as sources


def jax_float32(case: Case) -> Built:
    """`jax.jit` of the network with its weights in float32.

    They are arrays of JAX: of NumPy, as `export.load` gives them, each call would copy
    them.
    """
    network = jax.jit(functools.partial(case.module.apply, train=False))
    variables = jax.device_put({"params": case.weights, **case.state})
    return Built(lambda x: np.asarray(network(variables, x)), 4 * case.count)


def jax_float64(case: Case) -> Built:
    """The same in float64: how much of a difference is rounding."""
    module = case.module.clone(dtype=jnp.float64)
    network = jax.jit(functools.partial(module.apply, train=False))

    def wide(array: Any) -> jax.Array:
        return jnp.asarray(array, jnp.float64 if array.dtype.kind == "f" else None)

    def run(x: np.ndarray) -> np.ndarray:
        with jax.enable_x64(True):
            variables = {"params": case.weights, **case.state}
            return np.asarray(network(jax.tree.map(wide, variables), wide(x)))

    return Built(run, 0)


def program(case: Case) -> Built:
    """The program of `to_stablehlo`, which holds packed weights."""

    def forward(params: Any, state: Any, x: Any) -> Any:
        return case.module.apply({"params": params, **state}, x, train=False)

    data = export.to_stablehlo(
        forward,
        case.weights,
        case.state,
        deploy=lambda weights: weights,
        **case.exporting,
    )
    run = jax.jit(jax.export.deserialize(bytearray(data)).call)
    return Built(lambda x: np.asarray(run(x)), len(data))


_LIBRARY = """#include "network.h"
void run(const network_input *inputs, network_output *outputs, long count) {
  for (long i = 0; i < count; ++i)
    network(inputs + i * NETWORK_INPUTS, outputs + i * NETWORK_OUTPUTS);
}
"""


def c_sources(case: Case) -> Built:
    """The C sources of `to_c`, one example at a time; bytes are those of its arrays."""
    compiler = sources.compiler()
    if compiler is None:
        raise UnfitError("a C compiler is needed")
    folder = case.folder / "c"
    try:
        written = export.to_c(
            case.module, case.weights, case.state, path=folder, **case.exporting
        )
    except ValueError as error:
        raise UnfitError(str(error)) from error
    (folder / "library.c").write_text(_LIBRARY)
    flags = ["-std=c11", "-O2", "-march=native", "-shared", "-fPIC", "library.c"]
    subprocess.run([*compiler, *flags, "-o", "library.so"], cwd=folder, check=True)
    library = ctypes.CDLL(str((folder / "library.so").resolve()))
    network = functools.partial(case.module.apply, train=False)
    variables = {"params": case.weights, **case.state}
    shape = jax.eval_shape(network, variables, case.inputs[:1]).shape[1:]

    def run(x: np.ndarray) -> np.ndarray:
        inputs = np.ascontiguousarray(x)
        outputs = np.empty((len(x), *shape), np.float32)
        pointers = [
            array.ctypes.data_as(ctypes.c_void_p) for array in (inputs, outputs)
        ]
        library.run(*pointers, ctypes.c_long(len(x)))
        return outputs

    return Built(run, sources.flash(written["network.h"]))


def _qonnx(case: Case) -> tuple[Any, int]:
    """A QONNX model as its tools read it, and its bytes."""
    try:
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.util import cleanup
    except ImportError as error:
        raise UnfitError('not installed: pip install "adaste_jax[fpga]"') from error
    if case.count > 100_000 or case.inputs.dtype != np.float32:
        raise UnfitError("simulated one example at a time: run for the digits only")
    data = export.to_qonnx(
        case.module,
        case.weights,
        case.state,
        input_shape=(np.prod(case.inputs.shape[1:]),),
    )
    return cleanup.cleanup_model(ModelWrapper(onnx.load_from_string(data))), len(data)


def qonnx(case: Case) -> Built:
    """The executor of qonnx."""
    found, size = _qonnx(case)
    from qonnx.core import onnx_exec

    def run(x: np.ndarray) -> np.ndarray:
        rows = x.reshape(len(x), 1, -1)
        given = [onnx_exec.execute_onnx(found, {"global_in": row}) for row in rows]
        return np.concatenate([outputs["global_out"] for outputs in given])

    return Built(run, size)


def hls4ml(case: Case) -> Built:
    """The C simulation of hls4ml, in fixed point with 16 bits after the point."""
    found, _ = _qonnx(case)
    if not shutil.which("g++"):
        raise UnfitError("g++ is needed")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        import hls4ml as tools

        config = tools.utils.config_from_onnx_model(
            found,
            granularity="name",
            backend="Vitis",
            default_precision="ap_fixed<32,16>",
        )
        folder = case.folder / "hls4ml"
        simulated = tools.converters.convert_from_onnx_model(
            found,
            output_dir=str(folder),
            io_type="io_parallel",
            backend="Vitis",
            hls_config=config,
        )
        simulated.compile()
    logging.getLogger().setLevel(logging.WARNING)
    flat = lambda x: np.ascontiguousarray(x.reshape(len(x), -1))
    return Built(lambda x: np.asarray(simulated.predict(flat(x))), 0)


ENGINES: dict[str, Engine] = {
    "JAX, float32": Engine(jax_float32),
    "JAX, float64": Engine(jax_float64, most=300, timed=False),
    "JAX, program": Engine(program, "JAX, float32"),
    "ONNX Runtime, float32": Engine(engine_onnx.onnx_float32),
    "ONNX Runtime, one bit": Engine(engine_onnx.onnx_one_bit, "ONNX Runtime, float32"),
    "ONNX Runtime, fast": Engine(
        engine_onnx.onnx_fast, "ONNX Runtime, float32", floats=False
    ),
    "ONNX Runtime, float32, spinning": Engine(
        functools.partial(
            engine_onnx.onnx_spinning,
            build=lambda case: engine_onnx.unpacked(case).read_bytes(),
        )
    ),
    "ONNX Runtime, fast, spinning": Engine(
        functools.partial(
            engine_onnx.onnx_spinning,
            build=functools.partial(engine_onnx.model, fast=True),
        ),
        "ONNX Runtime, float32, spinning",
        floats=False,
    ),
    "onnxruntime-web, float32": Engine(engine_onnx.web_float32, most=400),
    "onnxruntime-web, one bit": Engine(
        engine_onnx.web_one_bit, "onnxruntime-web, float32", most=400
    ),
    "C": Engine(c_sources, most=360),
    "qonnx": Engine(qonnx, timed=False),
    "hls4ml": Engine(hls4ml, timed=False, floats=False),
}
"""In the order of the table; the first is what the others are compared with."""
