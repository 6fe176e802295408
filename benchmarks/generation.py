"""Tokens a second of a decoder, as `experiments.generate` and llama.cpp write them.

    pip install "adaste_jax[llama]"
    python -m benchmarks.generation [--width=256 --depth=4] [--workdir=runs/qwen3] \
        [--rounds=15] [--tokens=256] [--threads=2] [--out=TABLE.md]

One sequence, the most probable token each time, after a prompt of 16 tokens; what is
timed are the tokens after the first, without the prompt. All rows have the same
weights: those of a run, or of an untrained network in the shape of `:qwen3` with groups
of 128. Each row has a process of its own, which waits until it is told to go on; in a
round all rows write a text, in random order. Ratios are those of the medians over
rounds, with a 95 % bootstrap interval: above 1, a row is faster than F16 in llama.cpp.
CPU time, of all threads of a row, says more on a busy machine.
"""

import argparse
import contextlib
import importlib.metadata
import itertools
import multiprocessing
import os
import pathlib
import platform
import tempfile
import time

import jax
import numpy as np

from adaste_jax import export, methods
from benchmarks import llama_cpp, steps
from experiments import models
from experiments.models import hugging_face, sampling
from experiments.training import restore, states

PROMPT = list(b"The statement is")
MOST_TOKENS = 512 - len(PROMPT)  # the context that llama.cpp takes by default
OURS, BASE = "JAX, float32", "llama.cpp, F16"
ROWS = (OURS, BASE, "llama.cpp, Q1_0")
HEADER = (
    "engine, weights",
    "bytes of the file",
    "tokens a second",
    "times F16 (95 %)",
    "tokens a second of CPU time",
    "times F16 (95 %)",
    "first tokens as in JAX",
)


def network_of(arguments):
    """The decoder and the weights that it ships."""
    if arguments.workdir:
        saved = restore.saved(arguments.workdir)
        problem = saved.problem()
        method = states.method_of(problem)
        state, _ = saved.load(problem, method)
        options = models.options_of(saved.config)
        network = models.create("decoder", problem.num_classes, **options)
        return network, method.deploy(state.params)
    network = models.create(
        "decoder",
        256,
        width=arguments.width,
        depth=arguments.depth,
        heads=arguments.width // 64,
        kv_heads=max(1, arguments.width // 128),
    )
    method = methods.scaled_sign(steps=1, group=128)
    params = network.init(jax.random.key(0), np.zeros((1, 1), np.uint8), train=False)
    return network, jax.jit(method.deploy)(params["params"])


def writer(row, arguments, file):
    """A function that begins a text of a row: an iterator over tokens."""
    network, weights = network_of(arguments)
    if row == OURS:
        return lambda: sampling.generate(
            network,
            weights,
            PROMPT,
            count=arguments.tokens,
            temperature=0,
            key=jax.random.key(0),
        )
    config = hugging_face.config_of(network, context=4096)
    tensors = hugging_face.tensors(network, weights)
    export.to_gguf(file, tensors, config, packed=row != BASE)
    model = llama_cpp.Model(file, network.num_classes)
    return lambda: model.generate(PROMPT, threads=arguments.threads)


def serve(connection, row, arguments):
    """Writes a text when told to, and sends its seconds: the program of a process."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "m.gguf"
        begin_text = writer(row, arguments, file)
        connection.send(file.stat().st_size if file.exists() else None)
        while connection.recv():
            with contextlib.closing(begin_text()) as text:
                found = [next(text)]
                begin = np.array([time.perf_counter(), time.process_time()])
                found += itertools.islice(text, arguments.tokens - 1)
                seconds = np.array([time.perf_counter(), time.process_time()]) - begin
            connection.send((seconds, found))


def measure(arguments):
    """Bytes of files, a text of each row, and seconds [rounds, rows, 2]: both times."""
    context = multiprocessing.get_context("spawn")
    workers = []
    for row in ROWS:
        ours, theirs = context.Pipe()
        given = theirs, row, arguments
        context.Process(target=serve, args=given, daemon=True).start()
        workers.append(ours)
    sizes = [worker.recv() for worker in workers]

    def take(number):
        workers[number].send(True)
        return workers[number].recv()

    texts = [take(number)[1] for number in range(len(ROWS))]  # what compiles
    seconds = np.empty((arguments.rounds, len(ROWS), 2))
    rng = np.random.default_rng(0)
    for line in seconds:
        for number in rng.permutation(len(ROWS)):
            line[number], text = take(number)
            assert text == texts[number], "a row does not repeat its text"
    for worker in workers:
        worker.send(False)
    return sizes, texts, seconds


def table(arguments, sizes, texts, seconds):
    """The table in Markdown, with what it was measured on."""
    count, base = arguments.tokens - 1, ROWS.index(BASE)
    lines = [f"| {' | '.join(HEADER)} |", f"|{' --- |' * len(HEADER)}"]
    for number, row in enumerate(ROWS):
        speeds = []
        for times in np.moveaxis(seconds, -1, 0):
            ratio, low, high = steps.ratio(times, base, number)
            speeds.append(f"{count / np.median(times[:, number]):,.0f}")
            speeds.append(
                "1" if row == BASE else f"{ratio:.2f} ({low:.2f} to {high:.2f})"
            )
        pairs = zip(texts[0], texts[number], strict=True)
        same = len(list(itertools.takewhile(_equal, pairs)))
        cells = (
            row,
            f"{sizes[number]:,}" if sizes[number] else "",
            *speeds,
            f"{same} of {len(texts[0])}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    where = (
        f"the network of {arguments.workdir}"
        if arguments.workdir
        else f"an untrained network of width {arguments.width}, depth {arguments.depth}"
    )
    version = importlib.metadata.version("xllamacpp")
    told = (
        f"`python -m benchmarks.generation`: {where}; {arguments.tokens} tokens, "
        f"{arguments.rounds} rounds, {arguments.threads} threads; jax "
        f"{jax.__version__}, llama.cpp of xllamacpp {version}; {platform.machine()}."
    )
    return "\n".join([told, "", *lines, ""])


def _equal(pair):
    return pair[0] == pair[1]


def main(argv=None):
    """Prints the table, and writes it."""
    parser = argparse.ArgumentParser(description="Tokens a second of a decoder.")
    parser.add_argument("--workdir", help="a run; default: an untrained network")
    parser.add_argument("--width", type=int, default=256, help="a multiple of 128")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument(
        "--tokens", type=int, default=256, help=f"at most {MOST_TOKENS}"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", help="file to write")
    arguments = parser.parse_args(argv)
    if not 2 <= arguments.tokens <= MOST_TOKENS:
        parser.error(f"--tokens must be from 2 to {MOST_TOKENS}")
    text = table(arguments, *measure(arguments))
    print(text)
    if arguments.out:
        pathlib.Path(arguments.out).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
