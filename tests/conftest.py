"""Eight CPU devices, rank promotion is an error, and no program is compiled twice."""

import os
import tempfile

# Before JAX is imported. Worker processes share the machine: one thread each.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    # Simulated devices wait for each other; on a busy machine longer than 40 seconds,
    # after which XLA would abort the process.
    " --xla_cpu_collective_call_terminate_timeout_seconds=600"
)

# XLA's threads, which on two cores are two: too few for eight devices that wait for
# each other, so that a run can hang.
os.environ.setdefault("NPROC", "16")

# Most of the time of the tests is XLA's. What one worker, or a program that a test
# starts, has compiled is read by all others; it goes with the session. A folder that
# stands in the environment already is used, and kept.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _compiled = tempfile.TemporaryDirectory(prefix="adaste_jax-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import contextlib
import gc
import pathlib

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_finish():
    """What is imported and collected stays: it is not searched for garbage again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def float64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def golden():
    """Loads a file of recorded numbers: `golden("adaste_derived")`."""
    folder = pathlib.Path(__file__).parent / "golden"

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(folder / f"{name}.npz") as arrays:
            return dict(arrays)

    return load


@pytest.fixture
def strict_dtypes():
    """Implicit promotion of dtypes is an error."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.numpy_dtype_promotion("strict"))
        yield
