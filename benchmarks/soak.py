"""Kills a run repeatedly at random moments, and compares its end with a whole run.

    python -m benchmarks.soak [--scenes=quickstart,stream,folder,teacher,language_model]
        [--kills=10] [--seed=0] [--out=docs/results/soak.md]

For each scene one run is not interrupted. Another is killed and started again with the
same command, as often as `--kills` says, and then finishes. Both must end with the same
bits: latents, optimiser state, batch-norm statistics, every line of `metrics.jsonl`
that is not about time, and every line of `layers.jsonl`.
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
from PIL import Image

from adaste_jax import datasets
from experiments import errors
from experiments.runs import checkpoints
from experiments.training import restore
from experiments.training.run import Run

_SCENES = flags.DEFINE_list("scenes", None, "Runs to test; default: all.")
_KILLS = flags.DEFINE_integer("kills", 10, "Number of kills of each run.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the moments and of the signals.")
_EPOCHS = flags.DEFINE_integer("epochs", 0, "Epochs; 0 is the default of each scene.")
_SAVE_EVERY = flags.DEFINE_integer("save_every", 7, "Steps between checkpoints.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder; default: a temporary one.")
_OUT = flags.DEFINE_string("out", None, "Also write the report to this file.")

TERM_SHARE = 0.2
START_SHARE = 0.3
"""Share of kills before a life has trained; the others come up to 2 s later."""

SECONDS = 2.0
DEADLINE = 600.0

ROOT = pathlib.Path(__file__).parents[1]


def quickstart(folder):
    """Images on the device."""
    del folder
    return "quickstart.py", 200, []


def stream(folder):
    """Images that are read as they are used."""
    del folder
    return "quickstart.py", 60, ["--config.resident=False"]


def image_folder(folder):
    """Files of images, cut out at random."""
    for split, (images, labels) in datasets.digits().items():
        for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            place = folder / "digits" / split / str(label)
            place.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(pixels[..., 0] * np.uint8(15))
            picture.save(place / f"{number}.png")
    return (
        "quickstart.py",
        20,
        [
            "--config.dataset=folder/digits",
            f"--config.data_dir={folder}",
            "--config.resident=False",
            "--config.image_size=8",
        ],
    )


def teacher(folder):
    """A network that learns from another one."""
    path = folder / "teacher"
    if start(path, folder / "cache", "quickstart.py", 3, []).wait() != 0:
        raise RuntimeError(f"the teacher has failed: {path}.log")
    return "quickstart.py", 60, [f"--config.teacher={path}", "--config.method=ste"]


def language_model(folder):
    """Text."""
    del folder
    return "language_model.py:smoke", 30, ["--config.num_train=480"]


SCENES = {
    "quickstart": quickstart,
    "stream": stream,
    "folder": image_folder,
    "teacher": teacher,
    "language_model": language_model,
}


def start(path, cache, config, epochs, fields):
    """Starts a life of the run, with the same command every time."""
    command = [
        *(sys.executable, "-m", "experiments.main", f"--workdir={path}"),
        f"--config=experiments/configs/{config}",
        f"--config.num_epochs={epochs}",
        f"--config.checkpoint_every_steps={_SAVE_EVERY.value}",
        "--config.tensorboard=False",
        *fields,
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
    """File properties that change when the run has trained."""
    folder = path / "checkpoints"
    return {file.name for file in folder.iterdir()} if folder.exists() else set()


def saving(path):
    """Whether a checkpoint is being written."""
    return any("tmp" in name for name in marks(path))


def wait_for_training(process, path, before):
    """Waits until a life writes its first checkpoint, or ends; returns seconds."""
    begin = time.monotonic()
    while process.poll() is None and not marks(path) - before:
        time.sleep(0.005)
        if time.monotonic() - begin > DEADLINE:
            raise RuntimeError("a life has not started to train")
    return time.monotonic() - begin


def kill_again_and_again(path, rng, begin):
    """Does all kills; returns their number by phase and signal."""
    hits = collections.Counter()
    start_up = 5.0
    while sum(hits.values()) < _KILLS.value:
        early = rng.random() < START_SHARE
        number = signal.SIGTERM if rng.random() < TERM_SHARE else signal.SIGKILL
        delay = rng.random()
        before = marks(path)
        process = begin(path)
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
    run = Run(restore.saved(path).config.lock())
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


def compared(whole, broken):
    """Text on how many arrays and lines are equal, and whether all are."""
    pairs = list(zip(final_arrays(whole), final_arrays(broken), strict=True))
    equal = sum(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)
    first, second = metrics_lines(whole), metrics_lines(broken)
    same = sum(a == b for a, b in zip(first, second, strict=False))
    text = f"{equal} of {len(pairs)} | {same} of {len(first)}"
    return text, equal == len(pairs) and first == second


def soak(name, folder):
    """Runs one scene; its row of the table, and whether everything is equal."""
    folder.mkdir(parents=True, exist_ok=True)
    config, epochs, fields = SCENES[name](folder)
    epochs = _EPOCHS.value or epochs

    def begin(path):
        return start(path, folder / "cache", config, epochs, fields)

    whole, broken = folder / "whole", folder / "broken"
    since = time.monotonic()
    if begin(whole).wait() != 0:
        raise RuntimeError(f"the run that was left alone has failed: {whole}.log")
    print(f"{name}, left alone: {time.monotonic() - since:.0f} s", flush=True)
    hits = kill_again_and_again(broken, random.Random(f"{_SEED.value}{name}"), begin)
    if begin(broken).wait() != 0:
        raise RuntimeError(f"the last life has failed: see {broken}.log")
    text, same = compared(whole, broken)
    counts = " | ".join(
        str(hits[phase, "SIGKILL"] + hits[phase, "SIGTERM"])
        for phase in ("start-up", "training", "saving")
    )
    terms = sum(hits[hit] for hit in hits if hit[1] == "SIGTERM")
    row = f"| {name} | {epochs} | {sum(hits.values())} | {terms} | {counts} | {text} |"
    print(row, flush=True)
    return row, same


def main(argv):
    """Prints the report; exits with status 1 if anything differs."""
    del argv
    logging.set_verbosity(logging.ERROR)
    folder = pathlib.Path(_WORKDIR.value or tempfile.mkdtemp(prefix="soak-"))
    names = list(SCENES) if _SCENES.value is None else _SCENES.value
    rows, outcomes = zip(*[soak(name, folder / name) for name in names], strict=True)
    text = "\n".join(
        [
            f"`python -m benchmarks.soak --scenes={','.join(names)} "
            f"--kills={_KILLS.value} --seed={_SEED.value} "
            f"--save_every={_SAVE_EVERY.value}`, "
            f"{jax.devices()[0].platform}, Python {sys.version.split()[0]}, "
            f"jax {jax.__version__}, "
            f"orbax-checkpoint {metadata.version('orbax-checkpoint')}, "
            f"flax {metadata.version('flax')}, optax {metadata.version('optax')}.",
            "",
            "| run | epochs | kills | of them SIGTERM | in start-up | in training "
            "| while saving | equal arrays | equal lines |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            "Each run is compared with one that was left alone: all arrays of the last "
            "checkpoint, bit for bit, and all lines of metrics.jsonl (but for those "
            "about time) and layers.jsonl.",
            "",
            "Start-up: before the first checkpoint of that life, so with imports, "
            "compilation and the restoring of the last checkpoint. While saving: a "
            "checkpoint was being written. A SIGTERM during start-up may come before "
            "there is a handler for it.",
        ]
    )
    print(text)
    if _OUT.value:
        path = pathlib.Path(_OUT.value)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# Runs that are killed again and again\n\n{text}\n")
    sys.exit(not all(outcomes))


if __name__ == "__main__":
    app.run(main)
