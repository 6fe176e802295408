"""Step time over simulated devices, and what a step with split state sends.

    python -m benchmarks.scaling [--rounds=15] [--out=docs/results/scaling.md]

The devices are simulated by the CPU and share its cores, so a step of n devices does n
times the work on the same cores. The ratio to n steps of one device is the overhead of
splitting. All programs are timed in turn, round by round, so that other load on the
machine affects all of them.
"""

import os

# Before JAX is imported.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import itertools
import math
import pathlib
import platform
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from adaste_jax import estimators, train

_ROUNDS = flags.DEFINE_integer("rounds", 15, "Timed steps of each program.")
_OUT = flags.DEFINE_string("out", None, "Also write the tables to this file.")

PER_DEVICE, SIZES = 64, (784, 512, 512, 512, 10)
COUNTS = (1, 2, 4, 8)
STRATEGIES = ("jit", "shard_map", "pmap")
BYTES = {"pred": 1, "u8": 1, "ui8": 1, "bf16": 2, "f32": 4}


def forward(params, model_state, inputs, *, train, key):
    """A perceptron in plain JAX."""
    del train, key
    hidden = inputs
    for number, name in enumerate(params):
        kernel = params[name]["kernel"]
        hidden = (hidden.astype(kernel.dtype) @ kernel) / kernel.shape[0] ** 0.5
        if number < len(params) - 1:
            hidden = jax.nn.relu(hidden)
    return hidden.astype(jnp.float32), model_state


def make(devices, dtype=jnp.float32, split=False, **options):
    """A step, its state and a batch."""
    rng = np.random.default_rng(0)
    params = {
        f"layer_{i}": {"kernel": jnp.asarray(rng.normal(size=pair) * 0.1, dtype)}
        for i, pair in enumerate(itertools.pairwise(SIZES))
    }
    tx = optax.sgd(0.1, momentum=0.9)
    state = train.TrainState.create(params, tx, key=jax.random.key(0))
    mesh = train.data_mesh(jax.devices()[:devices], fsdp=devices if split else 1)
    sharding = train.state_sharding(state, mesh) if split else None
    placement = train.Placement(mesh=mesh, sharding=sharding, **options)
    step = train.make_train_step(
        forward, tx, estimator=estimators.ste, placement=placement
    )
    size = PER_DEVICE * devices
    batch = {
        "image": rng.normal(size=(size, SIZES[0])).astype(np.float32),
        "label": rng.integers(0, SIZES[-1], size),
    }
    return step, state, batch


def timed(devices, strategy):
    """Seconds of the first call, and a function that takes one step."""
    step, state, batch = make(devices, strategy=strategy)
    begin = time.perf_counter()
    holder = [jax.block_until_ready(step(state, batch))[0]]
    first = time.perf_counter() - begin

    def take():
        holder[0], report = step(holder[0], batch)
        jax.block_until_ready((holder[0], report))

    return first, take


def speed(rounds):
    """Rows of the table of step times."""
    names = [(strategy, count) for strategy in STRATEGIES for count in COUNTS]
    programs = {name: timed(name[1], name[0]) for name in names}
    seconds = {name: [] for name in names}
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for place in rng.permutation(len(names)):
            begin = time.perf_counter()
            programs[names[place]][1]()
            seconds[names[place]].append(time.perf_counter() - begin)
    yield "| strategy | devices | first call, s | ms a step (median) | ratio to n x 1 |"
    yield "| --- | --- | --- | --- | --- |"
    for strategy, count in names:
        median = np.median(seconds[strategy, count])
        ratio = median / (count * np.median(seconds[strategy, 1]))
        yield (
            f"| {strategy} | {count} | {programs[strategy, count][0]:.1f} | "
            f"{1e3 * median:.1f} | {ratio:.2f} |"
        )


def size(shape, dtype):
    """Bytes of an array, of a shape as both kinds of program write it."""
    return BYTES[dtype] * math.prod(int(n) for n in re.findall(r"\d+", shape))


def asked_for(lowered):
    """Bytes of gathered weights and scattered gradients in the lowered program.

    The compiled program differs: the CPU computes and sends bfloat16 as float32.
    """
    text = lowered.as_text()
    gathers = re.findall(r"all_gather.*-> tensor<([\dx]+)x(\w+)>", text)
    scatters = re.findall(
        r"reduce_scatter.*?\}\) : \(tensor<([\dx]+)x(\w+)>", text, flags=re.DOTALL
    )
    return gathers, sum(size(*found) for found in scatters)


def compiled_to(lowered):
    """The same bytes in the compiled program, whose sums are all-reduces.

    An all-reduce moves twice what a reduce-scatter moves.
    """
    text = lowered.compile().as_text()
    gathers = [
        (shape, dtype)
        for dtype, shape in re.findall(r"= (\w+)\[([\d,]+)\]\S* all-gather\(", text)
    ]
    sums = 0
    for types in re.findall(r"= (.*) all-reduce\(", text):
        sums += 2 * sum(size(s, d) for d, s in re.findall(r"(\w+)\[([\d,]+)\]", types))
    return gathers, sums


def traffic():
    """Rows of the table of bytes."""
    weights = sum(a * b for a, b in itertools.pairwise(SIZES))
    yield (
        f"Eight devices share one state of {weights:,} binary weights. Each receives, "
        "in a step, 7/8 of this:"
    )
    yield ""
    yield "| strategy | weights | gathered, kB | bits a weight | gradients, kB |"
    yield "| --- | --- | --- | --- | --- |"
    for strategy, dtype, gather in (
        ("shard_map", "float32", "float"),
        ("shard_map", "bfloat16", "float"),
        ("shard_map", "float32", "packed"),
        ("jit", "float32", "float"),
        ("jit", "float32", "packed"),
    ):
        step, state, batch = make(
            8, jnp.dtype(dtype), split=True, strategy=strategy, gather=gather
        )
        count = asked_for if strategy == "shard_map" else compiled_to
        gathers, gradients = count(step.lower(state, batch))
        gathered = sum(size(*found) for found in gathers)
        kinds = " and ".join(sorted({dtype for _, dtype in gathers}))
        yield (
            f"| {strategy} | {dtype}, `gather={gather!r}` | {gathered / 1e3:.1f} as "
            f"{kinds} | {8 * gathered / weights:.2f} | {gradients / 1e3:.1f} |"
        )


def main(argv):
    """Prints the tables, and writes them."""
    del argv
    lines = [
        f"`python -m benchmarks.scaling --rounds={_ROUNDS.value}`: perceptron "
        f"{'-'.join(map(str, SIZES))}, STE, {PER_DEVICE} examples a device, float32; "
        f"simulated devices on {os.cpu_count()} shared cores, {platform.machine()}, "
        f"jax {jax.__version__}.",
        "",
    ]
    print(lines[0])
    for rows in (traffic(), speed(_ROUNDS.value)):
        for row in rows:
            lines.append(row)
            print(row, flush=True)
        lines.append("")
    if _OUT.value:
        path = pathlib.Path(_OUT.value)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "\n".join(lines)
        path.write_text(f"# Steps over several devices\n\n{text}")


if __name__ == "__main__":
    app.run(main)
