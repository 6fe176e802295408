"""C sources: what is refused, names, files, the program, and how small they are."""

import re
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from adaste_jax import export, methods
from experiments import errors
from experiments import export as command
from experiments.configs import base
from experiments.deployment import c_sources
from experiments.training import loop
from tests.experiments import test_loop
from tests.export import compilers

WEIGHTS = np.where(np.arange(2048).reshape(64, 32) % 3 > 0, 1.0, -1.0).astype(
    np.float32
)


def product(weights, x):
    return x @ weights


REFUSED = {
    "latents": (product, np.linspace(-1, 1, 2048, dtype=np.float32).reshape(64, 32),
                {}, "'params'.*64, 32.* 1024 magnitudes.*latents"),
    "random weights": (
        lambda w, x: x @ (w * jax.random.rademacher(jax.random.key(0), w.shape, float)
                          * jax.random.uniform(jax.random.key(x.shape[1]), ())),
        WEIGHTS, {}, "random"),
    "erf": (
        lambda w, x: nn.gelu(x @ w, approximate=False), WEIGHTS, {}, "'gelu'.*libm"),
    "power": (lambda w, x: (x @ w) ** 1.5, WEIGHTS, {}, "'pow'.*libm"),
    "sort": (lambda w, x: jnp.sort(x @ w), WEIGHTS, {}, "'sort'"),
    "division of integers": (
        lambda w, x: x @ w + (x.astype(jnp.int32) // 3)[:, :1], WEIGHTS, {}, "whole"),
    "two outputs": (lambda w, x: (x @ w, x), WEIGHTS, {}, "2 outputs"),
    "nothing": (lambda w, x: (x @ w)[:, :0], WEIGHTS, {}, "no numbers"),
    "not a number": (product, WEIGHTS * np.nan, {}, "finite"),
    "infinite": (product, WEIGHTS * np.inf, {"method": methods.ste(steps=1)}, "finite"),
    "half precision": (product, WEIGHTS, {"input_dtype": jnp.bfloat16}, "bfloat16"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_c_cannot_have_is_refused_before_anything_is_written(name, tmp_path):
    network, params, options, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        export.to_c(network, params, input_shape=(64,), path=tmp_path / "c", **options)
    assert not list(tmp_path.iterdir())


@compilers.needs_gcc
def test_names_in_a_network_end_nothing_in_c(tmp_path):
    hostile = (
        "*/ int main(void) {", 'a"\\', "while", "network", "??/", "#error\n#error", "ü",
        "a" * 300, "memory_float", "sum",
    )  # fmt: skip
    params = {name: np.roll(WEIGHTS[:32], i, 0) for i, name in enumerate(hostile)}

    def network(params, x):
        for name in sorted(params):
            with jax.named_scope(name.replace("\n", " ")):
                x = nn.relu(x @ params[name])
        return x

    x = np.random.default_rng(0).normal(size=(2, 32)).astype(np.float32)
    sources = export.to_c(network, params, input_shape=(32,))
    _, found = compilers.outputs(sources, x, tmp_path)
    np.testing.assert_allclose(found, network(params, x), rtol=1e-4)
    assert max(map(len, sources["network.h"].splitlines())) < 200


def test_sources_are_the_same_each_time_and_written_whole(tmp_path, monkeypatch):
    given = {"input_shape": (64,), "path": tmp_path / "a" / "b"}
    sources = export.to_c(product, WEIGHTS, **given)
    assert sources == export.to_c(product, WEIGHTS, input_shape=(64,))
    written = {p.name: p.read_text() for p in (tmp_path / "a" / "b").iterdir()}
    assert written == sources

    def full(descriptor):
        raise OSError("no space")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        export.to_c(product, -WEIGHTS, **given)
    assert {p.name: p.read_text() for p in (tmp_path / "a" / "b").iterdir()} == sources


def test_a_file_in_the_place_of_the_folder_stays(tmp_path):
    place = tmp_path / "file"
    place.write_text("mine")
    with pytest.raises(OSError, match="file"):
        export.to_c(product, WEIGHTS, input_shape=(64,), path=place)
    assert place.read_text() == "mine"


@compilers.needs_gcc
def test_the_program_reads_a_file_or_stdin_and_whole_examples(tmp_path):
    sources = export.to_c(product, WEIGHTS, input_shape=(64,), input_dtype=np.float32)
    program = compilers.compiled(sources, tmp_path)
    x = np.random.default_rng(0).integers(-9, 9, (3, 64)).astype(np.float32)

    def run(*arguments, given=b""):
        return subprocess.run(
            [program, *arguments], input=given, capture_output=True, check=False
        )

    wanted = [[np.argmax(row), *row] for row in x @ WEIGHTS]
    found = run(given=x.tobytes())
    rows = [list(map(float, line.split())) for line in found.stdout.splitlines()]
    assert (found.returncode, rows) == (0, wanted)
    (tmp_path / "x.bin").write_bytes(x.tobytes())
    assert run(tmp_path / "x.bin").stdout == found.stdout
    short = run(given=x.tobytes()[:-1])
    assert short.returncode == 1
    assert short.stdout.splitlines() == found.stdout.splitlines()[:2]
    assert b"256 bytes" in short.stderr
    missing = run(tmp_path / "nothing")
    assert missing.returncode == 1
    assert b"No such file" in missing.stderr
    assert run().stdout == b""


def test_nothing_but_stdint_is_needed():
    """By `network.h`; not even by a network with norms and a softmax."""
    network = nn.Sequential([nn.Dense(32), nn.LayerNorm(), nn.gelu, nn.softmax])
    params = {
        "layers_0": {"kernel": WEIGHTS, "bias": np.zeros(32, np.float32)},
        "layers_1": {name: np.ones(32, np.float32) for name in ("scale", "bias")},
    }
    header = export.to_c(network, params, input_shape=(64,))["network.h"]
    assert re.findall("#include.*", header) == ["#include <stdint.h>"]
    code = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    assert not re.search(r"\b(malloc|double|expf?|sqrtf?|tanhf?|memcpy)\b", code)


def quickstart():
    """The network of `experiments/configs/quickstart.py`, with random weights."""
    rng = np.random.default_rng(0)

    def network(layers, images):
        x = images.astype(jnp.float32) / 16 - 0.3
        x = x.reshape(x.shape[0], -1)
        for number, (kernel, scale, shift) in enumerate(layers):
            x = x @ kernel * scale[None] + shift[None]
            x = nn.relu(x) if number < 2 else x
        return x

    layers = [
        (
            rng.choice([-1.0, 1.0], (inputs, outputs)).astype(np.float32),
            *rng.uniform(0.1, 1, (2, outputs)).astype(np.float32),
        )
        for inputs, outputs in ((64, 128), (128, 128), (128, 10))
    ]
    return export.to_c(network, layers, input_shape=(8, 8, 1), input_dtype=np.uint8)


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        pytest.param("gcc", (), marks=compilers.needs_gcc),
        *(
            pytest.param(
                "arm-none-eabi-gcc", (f"-mcpu={cpu}", "-mthumb"),
                marks=compilers.needs_arm,
            )
            for cpu in ("cortex-m0", "cortex-m4")
        ),
    ],
)  # fmt: skip
def test_the_network_of_the_quickstart_fits_in_6200_bytes_of_flash(
    compiler, flags, tmp_path
):
    """5,360 of them are weights and norms."""
    flash, memory = compilers.sizes(quickstart(), tmp_path, compiler, *flags)
    assert 5360 < flash <= 6200
    assert memory == 4 * (64 + 128 + 128)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "run"
    config = base.get_config()
    config.update(num_epochs=1, num_train=200, batch_size=64, method="ste")
    config.model_options.features = (16,)
    with test_loop.undrawn():
        loop.train_and_evaluate(config.lock(), folder)
    return folder


@compilers.needs_gcc
def test_the_command_compiles_and_compares(finished_run, tmp_path, capsys):
    folder = tmp_path / "c"
    command.main([f"--workdir={finished_run}", f"--c={folder}"])
    said = capsys.readouterr().out
    assert {p.name for p in folder.iterdir()} == {"main.c", "network.h"}
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    (row,) = [line for line in said.splitlines() if line.startswith("C sources  ")][1:]
    *_, difference, changed = row.split()
    assert float(difference) < 1e-4
    assert changed == "0"


def test_the_command_says_that_there_is_no_compiler(
    finished_run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(c_sources, "COMPILERS", ())
    monkeypatch.delenv("CC", raising=False)
    arguments = [f"--workdir={finished_run}", f"--c={tmp_path / 'c'}", "--num_test=5"]
    command.main(arguments)
    assert "no C compiler" in capsys.readouterr().out
    assert (tmp_path / "c" / "network.h").exists()


def test_a_compiler_that_fails_is_named(tmp_path):
    with pytest.raises(errors.RunError, match="false"):
        c_sources.network(tmp_path, [shutil.which("false")])


def test_the_command_wants_something_to_write(finished_run, capsys):
    with pytest.raises(SystemExit):
        command.main([f"--workdir={finished_run}"])
    assert "--onnx" in capsys.readouterr().err
