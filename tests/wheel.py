"""Builds the wheel, installs it into environments of its own, and uses it there.

`make wheel` runs it: `python tests/wheel.py dist` leaves the wheel in that folder. It
needs pip and nothing else, and imports nothing of the project.
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile

ROOT = pathlib.Path(__file__).parents[1]
NEEDED = {
    "adaste_jax/__init__.py",
    "adaste_jax/py.typed",
    "adaste_jax/datasets/digits.npz",
    "adaste_jax/export/c/functions.h",
    "adaste_jax/export/c/main.c",
    "adaste_jax/export/c/network.h",
    "experiments/__main__.py",
    "experiments/configs/quickstart.py",
    "experiments/report/report.css",
}
# The library alone, without any extra: training, and what to install for layers.
PLAIN = """
import importlib.util
import adaste_jax, jax.numpy as jnp
from adaste_jax import datasets, methods, train

present = [name for name in ("flax", "safetensors") if importlib.util.find_spec(name)]
assert not present, present
images, labels = datasets.digits()["train"]

def network(params, model_state, inputs, *, train, key):
    return inputs.reshape(-1, 64) @ params["kernel"] / 64, model_state

method = methods.adaste(steps=50)
state = train.init(network, method, None, params={"kernel": jnp.zeros((64, 10))})
step = train.make_train_step(network, method)
for batch in datasets.batches(images, labels, batch_size=64, steps=50):
    state, report = step(state, *batch)
assert report["loss"] < 3, report
assert set(adaste_jax.deploy(state.params)["kernel"].ravel().tolist()) == {-1, 1}
try:
    adaste_jax.nn
except ImportError as error:
    assert "[flax]" in str(error), error
else:
    raise AssertionError("adaste_jax.nn does without Flax")
"""

# The programs, and a comparison on a network and data of one's own.
COMMANDS = """
adaste --help
adaste train --help
adaste train quickstart:smoke --workdir=run
adaste train quickstart:smoke --workdir=run
adaste compare quickstart:smoke --methods=ste,adaste --seeds=2 --workdir=compared
adaste export --workdir=run --out=run.safetensors
adaste predict --model=run.safetensors
adaste predict --model=run.safetensors --images pictures --top=1
adaste hub --push=./hub --model=run.safetensors --workdir=run --licence=mit
adaste hub --pull=./hub --out=pulled
adaste report --workdir run --out=page.html
"""
PICTURES = """
import pathlib
from adaste_jax import datasets
from PIL import Image

images, labels = datasets.digits()["test"]
pathlib.Path("pictures").mkdir()
for number in range(3):
    picture = Image.fromarray((images[number, ..., 0] * 15.9).astype("uint8"))
    picture.save(f"pictures/{number}.png")
"""
OWN = """
from adaste_jax import datasets, methods
from experiments.compare import compare
from flax import linen as nn

def slow(steps, *, learning_rate=1e-3, **run):
    return methods.adaste(steps, learning_rate=learning_rate, **run)

layers = [nn.Dense(32), nn.LayerNorm(), nn.relu, nn.Dense(10), nn.LayerNorm()]
network = nn.Sequential(layers)
digits = datasets.digits()
data = {split: (x.reshape(-1, 64) / 16, y) for split, (x, y) in digits.items()}
options = dict(num_epochs=10, seeds=2, learning_rates=(1.0,), knobs=False)
rows = compare(
    network, data, {"ste": "ste", "slow": slow}, "own", batch_size=64, **options
)
found = {row["method"]: row["mean"] for row in rows}
assert found.keys() == {"ste", "slow"} and min(found.values()) > 0.5, rows
"""

# A notebook as it is opened elsewhere: alone, with the address of the package.
NOTEBOOK = """
import sys, nbclient, nbformat
file, source = sys.argv[1:]
book = nbformat.read(file, as_version=4)
[install] = [cell for cell in book.cells if 'SOURCE = ""' in cell.source]
install.source = install.source.replace('SOURCE = ""', f"SOURCE = {source!r}")
[size] = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", ())]
size.source = 'SIZE = "smoke"'
nbclient.NotebookClient(book, timeout=900).execute()
"""


def build(folder: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """The wheel, from a copy of the files that may go into it."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    for package in (
        "adaste_jax",
        "experiments",
        "tests",
    ):  # of the last, and of notebooks, nothing goes in
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", out, source]
    subprocess.run(build, check=True)
    (wheel,) = sorted(out.glob("adaste_jax-*.whl"))
    return wheel


def check_contents(wheel: pathlib.Path) -> None:
    """The package with its data and licence, and nothing of the repository besides."""
    names = set(zipfile.ZipFile(wheel).namelist())
    assert names >= NEEDED, f"missing in the wheel: {NEEDED - names}"
    assert any(re.search(r"\.dist-info/.*LICENSE$", name) for name in names), names
    ours = (
        r"adaste_jax/(.*)(\.py|\.npz|\.md|\.[ch]|py\.typed)|experiments/(?!notebooks).*\.(py|css)|"
        r"adaste_jax-[^/]*\.dist-info/.*"
    )
    other = {name for name in names if not re.fullmatch(ours, name)}
    assert not other, f"not of the package: {other}"
    packages = ("adaste_jax", "experiments")
    files = [file for name in packages for file in (ROOT / name).rglob("*.py")]
    kept = {str(file.relative_to(ROOT)) for file in files}
    assert kept <= names, f"missing in the wheel: {kept - names}"


def install(folder: pathlib.Path, *requirements: str) -> None:
    """Makes an environment that has no more than this."""
    environment = folder / "venv"
    venv.create(environment, with_pip=True, clear=True)
    python = environment / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, *requirements], check=True)


def run(folder: pathlib.Path, command: str, *arguments: str) -> str:
    """What a command of the environment prints, in a folder outside of the clone."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [folder / "venv" / "bin" / command, *arguments],
        cwd=elsewhere,
        env={**clean, "JAX_PLATFORMS": "cpu"},
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    return done.stdout


def use_library(folder: pathlib.Path, wheel: pathlib.Path) -> float:
    """Uses the library alone, then the README's program; returns its accuracy."""
    python = ("python", "-W", "error::DeprecationWarning:__main__", "-c")
    install(folder, str(wheel))
    run(folder, *python, PLAIN)
    readme = (ROOT / "README.md").read_text("utf-8")
    first = re.search(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    install(folder, f"{wheel}[flax,export]")
    printed = run(folder, *python, first[1])
    accuracy = float(re.search(r"'accuracy': ([\d.]+)", printed)[1])
    assert accuracy > 0.9, printed
    assert (folder / "elsewhere" / "digits.safetensors").stat().st_size < 10_000
    return accuracy


def use_programs(folder: pathlib.Path, wheel: pathlib.Path) -> None:
    """Trains, compares, exports, predicts and reports, without the clone."""
    install(folder, f"{wheel}[train]")
    run(folder, "python", "-c", PICTURES)
    commands = COMMANDS.strip().splitlines()
    said = {command: run(folder, *shlex.split(command)) for command in commands}
    (answers,) = (text for command, text in said.items() if "--images" in command)
    assert re.findall(r"(\d)\.png: \d [\d.]+ %", answers) == ["0", "1", "2"], answers
    printed = said[commands[-1]]
    found = folder / "elsewhere"
    assert "wrote page.html" in printed, printed
    result = json.loads((found / "run" / "result.json").read_text("utf-8"))
    assert result["test_accuracy"] > 0.8, result
    assert "ste" in (found / "compared" / "table.md").read_text("utf-8")
    run(folder, "python", "-c", OWN)


def use_notebook(folder: pathlib.Path, wheel: pathlib.Path) -> None:
    """Runs a notebook outside of the clone, which installs the wheel itself."""
    install(folder, "ipykernel", "nbclient")
    for name in ("own_loop", "binarise_and_ship"):
        book = folder / "elsewhere" / f"{name}.ipynb"
        shutil.copy(ROOT / "experiments" / "notebooks" / book.name, book)
        run(folder, "python", "-c", NOTEBOOK, str(book), str(wheel))


def main(out: str) -> None:
    """Builds, checks and uses the wheel."""
    target = pathlib.Path(out).resolve()
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        wheel = build(folder, target)
        check_contents(wheel)
        accuracy = use_library(folder, wheel)
        use_programs(folder, wheel)
        use_notebook(folder, wheel)
    print(f"{wheel.name}: built, installed and used; accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
