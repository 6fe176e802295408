"""Kills a run at random moments, again and again, and compares how it ends.

    python -m benchmarks.soak [--kills=50] [--seed=0] [--out=docs/results/soak.md]

One run of the quickstart is left alone; another is killed and started again, with the
same command, until the kills are used up, and then finishes. Both must end with the
same bits: latents, optimiser state, batch-norm statistics, every line of
`metrics.jsonl` that is not about time, and every line of `layers.jsonl`.
"""

import collections
import dataclasses
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from importlib import metadata

import jax
import numpy as np
from absl import app, flags, logging

from experiments import checkpoints, errors
from experiments.configs import quickstart
from experiments.run import Run

_KILLS = flags.DEFINE_integer("kills", 50, "How often the run is killed.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments and of the signals.")
_EPOCHS = flags.DEFINE_integer("epochs", 200, "Length of the run.")
_SAVE_EVERY = flags.DEFINE_integer("save_every", 7, "Steps between checkpoints.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Default: a temporary folder.")
_OUT = flags.DEFINE_string("out", None, "Also write the report to this file.")

TERM_SHARE = 0.2
START_SHARE = 0.3
"""Of kills that fall before a life has trained; the others come up to 2 s later."""

SECONDS = 2.0
DEADLINE = 600.0

ROOT = pathlib.Path(__file__).parents[1]


def start(path, cache):
    """A life of the run: the same command every time."""
    command = [
        *(sys.executable, "-m", "experiments.main", f"--workdir={path}"),
        "--config=experiments/configs/quickstart.py",
        f"--config.num_epochs={_EPOCHS.value}",
        f"--config.checkpoint_every_steps={_SAVE_EVERY.value}",
        "--config.tensorboard=False",
    ]
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with open(f"{path}.log", "a", encoding="utf-8") as log:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )


def marks(path):
    """What changes when the run has trained."""
    folder = path / "checkpoints"
    return {file.name for file in folder.iterdir()} if folder.exists() else set()


def saving(path):
    """Whether a checkpoint is being written."""
    return any("tmp" in name for name in marks(path))


def wait_for_training(process, path, before):
    """Until a life writes its first checkpoint, or ends; the seconds it took."""
    begin = time.monotonic()
    while process.poll() is None and not marks(path) - before:
        time.sleep(0.005)
        if time.monotonic() - begin > DEADLINE:
            raise RuntimeError("a life has not begun to train")
    return time.monotonic() - begin


def kill_again_and_again(path, cache, rng):
    """Uses up the kills; what they hit, by phase and signal."""
    hits = collections.Counter()
    start_up = 5.0
    while sum(hits.values()) < _KILLS.value:
        early = rng.random() < START_SHARE
        number = signal.SIGTERM if rng.random() < TERM_SHARE else signal.SIGKILL
        delay = rng.random()
        before = marks(path)
        process = start(path, cache)
        if early:
            time.sleep(delay * start_up)
        else:
            start_up = wait_for_training(process, path, before)
            time.sleep(delay * SECONDS)
        phase = "start-up" if not marks(path) - before else "training"
        if phase == "training" and saving(path):
            phase = "saving"
        process.send_signal(number)
        status = process.wait(DEADLINE)
        if status == 0:
            print("the run was finished before its kills were used up: more --epochs")
            break
        # A SIGTERM before there is a handler ends the program as it always does.
        if status not in (-number, errors.STOPPED) or (
            status == errors.STOPPED and number == signal.SIGKILL
        ):
            raise RuntimeError(f"a life ended with status {status}: see {path}.log")
        hits[phase, number.name] += 1
        steps = sorted(int(name) for name in marks(path) if name.isdigit())
        latest = steps[-1] if steps else None
        print(
            f"{sum(hits.values()):3} {number.name} during {phase}, status {status}, "
            f"latest checkpoint {latest}",
            flush=True,
        )
    return hits


def final_arrays(path):
    """Everything in the last checkpoint."""
    config = quickstart.get_config()
    config.num_epochs = _EPOCHS.value
    run = Run(config)
    state = run.init()
    with checkpoints.Checkpoints(path / "checkpoints", read_only=True) as store:
        found = store.restore({"state": state, "tally": run.start_tally(state)})
    assert found is not None
    arrays = found[0]
    key = jax.random.key_data(arrays["state"].key)
    arrays["state"] = dataclasses.replace(arrays["state"], key=key)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(arrays)]


def metrics_lines(path):
    """Lines that are not about time."""
    lines = (path / "metrics.jsonl").read_text("utf-8").splitlines()
    kept = [line for line in lines if json.loads(line)["split"] != "timing"]
    return kept + (path / "layers.jsonl").read_text("utf-8").splitlines()


def report(hits, whole, broken):
    """The report, and whether all is the same."""
    pairs = list(zip(final_arrays(whole), final_arrays(broken), strict=True))
    equal = sum(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)
    first, second = metrics_lines(whole), metrics_lines(broken)
    rows = [
        f"| {phase} | {hits[phase, 'SIGKILL']} | {hits[phase, 'SIGTERM']} |"
        for phase in ("start-up", "training", "saving")
    ]
    device = jax.devices()[0]
    lines = [
        f"`python -m benchmarks.soak --kills={_KILLS.value} --seed={_SEED.value} "
        f"--epochs={_EPOCHS.value} --save_every={_SAVE_EVERY.value}`, "
        f"{device.platform}, Python {sys.version.split()[0]}, jax {jax.__version__}, "
        f"orbax-checkpoint {metadata.version('orbax-checkpoint')}, "
        f"flax {metadata.version('flax')}, optax {metadata.version('optax')}.",
        "",
        "| killed during | SIGKILL | SIGTERM |",
        "| --- | --- | --- |",
        *rows,
        "",
        f"{sum(hits.values())} kills. Against the run that was left alone: "
        f"{equal} of {len(pairs)} arrays of the last checkpoint are equal bit for bit; "
        f"{sum(a == b for a, b in zip(first, second, strict=False))} of {len(first)} "
        f"lines of metrics.jsonl and layers.jsonl are equal ({len(second)} in the "
        "killed run; lines about time left out).",
        "",
        "start-up: before the first checkpoint of that life, so with imports, "
        "compilation and the restoring of the last checkpoint. saving: a checkpoint "
        "was being written. A SIGTERM during start-up may come before there is a "
        "handler for it.",
    ]
    return "\n".join(lines) + "\n", equal == len(pairs) and first == second


def main(argv):
    """Prints the report; status 1 where anything differs."""
    del argv
    logging.set_verbosity(logging.ERROR)
    folder = pathlib.Path(_WORKDIR.value or tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    cache, whole, broken = (folder / n for n in ("cache", "whole", "broken"))
    begin = time.monotonic()
    if start(whole, cache).wait() != 0:
        raise RuntimeError(f"the run that was left alone has failed: {whole}.log")
    print(f"left alone: {time.monotonic() - begin:.0f} s", flush=True)
    hits = kill_again_and_again(broken, cache, random.Random(_SEED.value))
    if start(broken, cache).wait() != 0:
        raise RuntimeError(f"the last life has failed: see {broken}.log")
    text, same = report(hits, whole, broken)
    print(text)
    if _OUT.value:
        path = pathlib.Path(_OUT.value)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# A run that is killed again and again\n\n{text}")
    sys.exit(not same)


if __name__ == "__main__":
    app.run(main)
