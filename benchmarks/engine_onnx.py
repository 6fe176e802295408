"""ONNX Runtime, and its form for browsers, among the engines of `engine_list.py`."""

import json
import pathlib
import shutil
import subprocess
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

from adaste_jax import export
from benchmarks.engine import Built, UnfitError
from benchmarks.engine_networks import LAYER, Case
from docs import browser

REST = 0.01
"""Seconds after which threads of ONNX Runtime no longer spin."""


def model(case: Case, *, fast: bool = False) -> bytes:
    """The ONNX model, which several engines run."""
    if fast not in case.models:
        case.models[fast] = export.to_onnx(
            case.module, case.weights, case.state, fast=fast, **case.exporting
        )
    return case.models[fast]


def session(
    data: bytes | str, *, spinning: bool = False, **options: Any
) -> onnxruntime.InferenceSession:
    """A model in ONNX Runtime.

    Its threads do not spin while they wait, as they do by default: they would take the
    processors from the others of the row, which run in the same process.
    """
    chosen = onnxruntime.SessionOptions()
    chosen.add_session_config_entry(
        "session.intra_op.allow_spinning", str(int(spinning))
    )
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


def onnx_spinning(case: Case, build: Callable[[Case], bytes]) -> Built:
    """ONNX Runtime as it comes: threads of a call still spin at the next one.

    So the second of two calls is timed, and the others of the row wait until the
    threads have come to rest.
    """
    if case.name != LAYER:
        raise UnfitError("calls in a row, with threads that spin: one layer only")
    data = build(case)
    found = session(data, spinning=True)

    def run(x: np.ndarray) -> np.ndarray:
        outputs: np.ndarray = found.run(None, {"input": x})[0]
        return outputs

    def clock(x: np.ndarray) -> float:
        run(x)
        start = time.perf_counter()
        run(x)
        taken = time.perf_counter() - start
        time.sleep(REST)
        return taken

    return Built(run, len(data), clock)


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
