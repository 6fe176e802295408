"""Builds the wheel, installs it into environments of its own, and uses it there.

`make wheel` runs it: `python tests/wheel.py dist` leaves the wheel in that folder. It
needs pip and nothing else, and imports nothing of the project.
"""

import os
import pathlib
import re
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


def build(folder: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """The wheel, from a copy of the files that may go into it."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("adaste_jax", "experiments", "tests"):  # the last two must stay out
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
    ours = r"adaste_jax/(.*)(\.py|\.npz|\.md|py\.typed)|adaste_jax-[^/]*\.dist-info/.*"
    other = {name for name in names if not re.fullmatch(ours, name)}
    assert not other, f"not of the package: {other}"
    kept = {str(f.relative_to(ROOT)) for f in (ROOT / "adaste_jax").rglob("*.py")}
    assert kept <= names, f"missing in the wheel: {kept - names}"


def use(folder: pathlib.Path, requirement: str, program: str) -> str:
    """What a program prints in an environment that has no more than this."""
    environment = folder / "venv"
    venv.create(environment, with_pip=True, clear=True)
    python = environment / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, requirement], check=True)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-W", "error::DeprecationWarning:__main__", "-c", program],
        cwd=elsewhere,
        env={**clean, "JAX_PLATFORMS": "cpu"},
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    return done.stdout


def main(out: str) -> None:
    """Builds, checks and uses the wheel."""
    target = pathlib.Path(out).resolve()
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        wheel = build(folder, target)
        check_contents(wheel)
        use(folder, str(wheel), PLAIN)
        readme = (ROOT / "README.md").read_text("utf-8")
        first = re.search(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
        printed = use(folder, f"{wheel}[flax,export]", first[1])
        accuracy = float(re.search(r"'accuracy': ([\d.]+)", printed)[1])
        assert accuracy > 0.9, printed
        assert (folder / "elsewhere" / "digits.safetensors").stat().st_size < 10_000
    print(f"{wheel.name}: built, installed and used; accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
