"""What `adaste-jax-cpu` gains over XLA on this machine, in one process, alternating.

    pip install ./native
    python -m benchmarks.native [--rounds=9] [--networks=vgg_small] [--dtypes=float32]

Convolutions first, then whole steps of AdaSTE. It prints milliseconds of the clock and
of CPU time, which says more on a busy machine; the ratio of steps has a 95 % bootstrap
interval.
"""

import os
import time

from absl import app, flags

from experiments import _allocator

_allocator.keep_memory()  # before JAX is imported

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from adaste_jax import nn  # noqa: E402
from benchmarks import steps  # noqa: E402

_ROUNDS = flags.DEFINE_integer("rounds", 9, "Timed calls of each.")
_NETWORKS = flags.DEFINE_list("networks", ["vgg_small", "resnet18"], "Of whole steps.")
_DTYPES = flags.DEFINE_list("dtypes", ["float32", "bfloat16"], "Of the activations.")

BATCH = 128
# Size of the images, channels in and out, size of the kernel, stride.
CONVOLUTIONS = (
    (32, 3, 32, 3, 1),
    (32, 32, 32, 3, 1),
    (16, 64, 64, 3, 1),
    (8, 128, 128, 3, 1),
    (16, 128, 128, 3, 1),
    (32, 64, 128, 1, 2),
)
METHOD = "AdaSTE, recommended"


def alternate(first, second, rounds):
    """Milliseconds [rounds, 2, 2] of two functions, by the clock and of CPU time."""
    found = np.empty((rounds, 2, 2))
    for function in (first, second):
        function()
    for number, line in enumerate(found):
        for column in (0, 1) if number % 2 else (1, 0):
            clock, busy = time.perf_counter(), time.process_time()
            (first, second)[column]()
            line[column] = time.perf_counter() - clock, time.process_time() - busy
    return 1e3 * found


def products(function, arrays, stride):
    """Outputs and both gradients of a convolution, each a function that waits."""
    x, w, y = arrays

    def apply(x, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        return function(x, w, (stride, stride), "SAME", dimension_numbers=numbers)

    run = {
        "outputs": lambda x, w, y: jax.vjp(lambda w: apply(x, w), w)[0],
        "inputs": lambda x, w, y: jax.vjp(lambda x: apply(x, w), x)[1](y)[0],
        "kernel": lambda x, w, y: jax.vjp(lambda w: apply(x, w), w)[1](y)[0],
    }
    for name, product in run.items():
        compiled = jax.jit(product).lower(x, w, y).compile()
        yield name, lambda call=compiled: jax.block_until_ready(call(x, w, y))


def convolution(case, dtype):
    """Prints a line for each product of a convolution."""
    size, channels, features, kernel, stride = case
    rng = np.random.default_rng(0)
    shapes = (
        (BATCH, size, size, channels),
        (kernel, kernel, channels, features),
        (BATCH, size // stride, size // stride, features),
    )
    arrays = [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]
    plain = products(jax.lax.conv_general_dilated, arrays, stride)
    native = products(nn.conv_general_dilated, arrays, stride)
    for (name, before), (_, after) in zip(plain, native, strict=True):
        (clock, busy), (clock_after, busy_after) = np.median(
            alternate(before, after, _ROUNDS.value), axis=0
        )
        print(
            f"{case} {dtype} {name}: clock {clock:.1f} to {clock_after:.1f} ms, "
            f"CPU {busy:.1f} to {busy_after:.1f} ms, {busy / busy_after:.1f} times",
            flush=True,
        )


def step(network, dtype):
    """Prints the lines of a network."""
    os.environ["ADASTE_NATIVE"] = "0"
    before = steps.make(network, METHOD, dtype=dtype)
    before()  # traced with XLA's convolutions
    del os.environ["ADASTE_NATIVE"]
    after = steps.make(network, METHOD, dtype=dtype)
    times = alternate(before, after, _ROUNDS.value)
    for column, name in enumerate(("clock", "CPU")):
        xla, native = np.median(times[:, :, column], axis=0)
        low_high = "{:.2f} ({:.2f} to {:.2f})".format(
            *steps.ratio(times[:, :, column], 1, 0)
        )
        print(f"{network} {dtype} {name}: {xla:.1f} to {native:.1f} ms, {low_high}")


def main(argv):
    """Prints the measurements."""
    del argv
    import adaste_jax_cpu  # optional, and `--help` is to work without

    bits, version = adaste_jax_cpu.vector_bits(), adaste_jax_cpu.__version__
    print(f"jax {jax.__version__}, adaste-jax-cpu {version}, vectors of {bits} bits")
    for dtype in _DTYPES.value:
        for case in CONVOLUTIONS:
            convolution(case, dtype)
    for dtype in _DTYPES.value:
        for network in _NETWORKS.value:
            step(network, dtype)


if __name__ == "__main__":
    app.run(main)
