"""The engines of `benchmarks.engines`: each makes a function of a trained network.

A new engine is a function from a `Case` to a `Built`, and a row in `ENGINES`.
"""

import contextlib
import ctypes
import functools
import io
import json
import logging
import pathlib
import shutil
import subprocess
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime

from adaste_jax import export
from benchmarks.engine_networks import Case
from docs import browser
from experiments.deployment import c_sources as sources


class UnfitError(Exception):
    """An engine does not run a network, or is not here; the message says why."""


class Built(NamedTuple):
    """A network in an engine."""

    run: Callable[[np.ndarray], np.ndarray]  # a batch of inputs to logits
    size: int  # bytes that are shipped
    clock: Callable[[np.ndarray], float] | None = None
    """Seconds of one run, where the engine takes the time itself."""

    def seconds(self, inputs: np.ndarray) -> float:
        """The time of one run."""
        if self.clock is not None:
            return self.clock(inputs)
        start = time.perf_counter()
        self.run(inputs)
        return time.perf_counter() - start


class Engine(NamedTuple):
    """How a network comes into an engine."""

    build: Callable[[Case], Built]
    beside: str = ""  # the engine that runs the same with float32 weights
    most: int = 0  # test examples that it runs; 0 is all
    timed: bool = True


def jax_float32(case: Case) -> Built:
    """`jax.jit` of the network with its weights in float32."""
    network = jax.jit(functools.partial(case.module.apply, train=False))
    variables = {"params": case.weights, **case.state}
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


def model(case: Case, *, fast: bool = False) -> bytes:
    """The ONNX model, which several engines run."""
    if fast not in case.models:
        case.models[fast] = export.to_onnx(
            case.module, case.weights, case.state, fast=fast, **case.exporting
        )
    return case.models[fast]


def session(data: bytes | str, **options: Any) -> onnxruntime.InferenceSession:
    """A model in ONNX Runtime.

    Its threads do not spin while they wait: they would take the processors from the
    others of the row, which run in the same process.
    """
    chosen = onnxruntime.SessionOptions()
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, value in options.items():
        setattr(chosen, name, value)
    return onnxruntime.InferenceSession(
        data, chosen, providers=["CPUExecutionProvider"]
    )


def unpacked(case: Case) -> pathlib.Path:
    """The model with its weights in float32: ONNX Runtime computes what is constant."""
    path = case.folder / "float32.onnx"
    basic = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session(
        model(case), optimized_model_filepath=str(path), graph_optimization_level=basic
    )
    return path


def _in_onnxruntime(data: bytes) -> Built:
    found = session(data)
    return Built(lambda x: found.run(None, {"input": x})[0], len(data))


def onnx_float32(case: Case) -> Built:
    """ONNX Runtime with weights in float32."""
    return _in_onnxruntime(unpacked(case).read_bytes())


def onnx_one_bit(case: Case) -> Built:
    """ONNX Runtime with the model of `to_onnx`."""
    return _in_onnxruntime(model(case))


def onnx_fast(case: Case) -> Built:
    """The same with `fast=True`."""
    data = model(case, fast=True)
    if data == model(case):
        raise UnfitError("no dense layer has 65,536 weights, so `fast` changes nothing")
    return _in_onnxruntime(data)


class Web:
    """onnxruntime-web in a process of node, which also takes the time."""

    def __init__(self, data: bytes, folder: pathlib.Path) -> None:
        """Raises `UnfitError` where there is no node, or no onnxruntime-web."""
        node = shutil.which("node")
        if node is None or not browser.engine():
            raise UnfitError(
                "node and onnxruntime-web are needed; `make docs` fetches it"
            )
        stored = folder / "web.onnx"
        stored.write_bytes(data)
        self.files = folder / "web.in", folder / "web.out"
        script = pathlib.Path(__file__).with_name("engine_web.mjs")
        self.process = subprocess.Popen(
            [node, script, browser.FOLDER, stored, *self.files],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        weakref.finalize(self, self.process.kill)

    def ask(self, x: np.ndarray) -> tuple[np.ndarray, float]:
        """Outputs, and the seconds they took."""
        self.files[0].write_bytes(np.ascontiguousarray(x).tobytes())
        asked = json.dumps({"dtype": str(x.dtype), "shape": x.shape})
        self.process.stdin.write(asked + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        found = np.frombuffer(self.files[1].read_bytes(), np.float32)
        return found.reshape(answer["shape"]), answer["seconds"]


def _in_web(case: Case, data: bytes) -> Built:
    web = Web(data, case.folder)
    return Built(lambda x: web.ask(x)[0], len(data), lambda x: web.ask(x)[1])


def web_float32(case: Case) -> Built:
    """onnxruntime-web with weights in float32."""
    return _in_web(case, unpacked(case).read_bytes())


def web_one_bit(case: Case) -> Built:
    """onnxruntime-web with the model of `to_onnx`."""
    return _in_web(case, model(case))


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
    "ONNX Runtime, float32": Engine(onnx_float32),
    "ONNX Runtime, one bit": Engine(onnx_one_bit, "ONNX Runtime, float32"),
    "ONNX Runtime, fast": Engine(onnx_fast, "ONNX Runtime, float32"),
    "onnxruntime-web, float32": Engine(web_float32, most=400),
    "onnxruntime-web, one bit": Engine(
        web_one_bit, "onnxruntime-web, float32", most=400
    ),
    "C": Engine(c_sources, most=360),
    "qonnx": Engine(qonnx, timed=False),
    "hls4ml": Engine(hls4ml, timed=False),
}
"""In the order of the table; the first is what the others are compared with."""
