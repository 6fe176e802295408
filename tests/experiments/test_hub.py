"""A file goes to a hub with its card, and comes back; no network is used.

The client of Hugging Face reads its cache when it is offline, so that a repository in
that cache is fetched as one of the hub would be.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from experiments import errors, hub, predict
from experiments import export as command
from experiments.configs import base
from experiments.deployment import model_card
from experiments.training import loop

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run, and the file that is made of it."""
    folder = tmp_path_factory.mktemp("hub") / "run"
    config = base.get_config()
    config.update(num_epochs=1, num_train=200, batch_size=64, tensorboard=False)
    config.model_options.features = (16,)
    loop.train_and_evaluate(config.lock(), folder)
    command.export_run(folder, folder.parent / "m.safetensors", num_test=5)
    return folder, folder.parent / "m.safetensors"


def test_a_file_goes_to_a_folder_and_comes_back(run, tmp_path, capsys, monkeypatch):
    folder, file = run
    monkeypatch.chdir(tmp_path)
    there = ["--push=./there", f"--model={file}", f"--workdir={folder}"]
    hub.main([*there, "--licence=mit"])
    assert sorted(os.listdir("there")) == ["README.md", "m.safetensors"]
    assert 'license: "mit"' in pathlib.Path("there/README.md").read_text()
    hub.main([*there, "--licence=mit"])  # again: the same
    hub.main(["--pull=./there", "--out=back"])
    assert "adaste predict --model=back/m.safetensors" in capsys.readouterr().out
    for name in ("README.md", "m.safetensors"):
        sent, back = pathlib.Path("there", name), pathlib.Path("back", name)
        assert sent.read_bytes() == back.read_bytes()
    result = json.loads((folder / "result.json").read_text())
    found = predict.evaluate("back/m.safetensors")
    assert found["accuracy"] == pytest.approx(result["test_accuracy"])


def test_what_is_no_one_bit_file_is_neither_sent_nor_fetched(run, tmp_path):
    folder, file = run
    with pytest.raises(errors.RunError, match="as a one-bit file"):
        hub.push(f"{tmp_path}/a", folder / "result.json", folder, licence="mit")
    with pytest.raises(errors.RunError, match=r"no result\.json"):
        hub.push(f"{tmp_path}/a", file, tmp_path, licence="mit")
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("# Mine\n")
    with pytest.raises(errors.RunError, match="is not a card"):
        hub.push(f"{tmp_path}/mine", file, folder, licence="mit")
    assert os.listdir(tmp_path / "mine") == ["README.md"]
    (tmp_path / "b").mkdir()
    with pytest.raises(errors.RunError, match="it holds none"):
        hub.pull(f"{tmp_path}/b", tmp_path / "out")
    (tmp_path / "b" / "x.safetensors").write_bytes(b"no weights")
    with pytest.raises(errors.RunError, match="as a one-bit file"):
        hub.pull(f"{tmp_path}/b", tmp_path / "out")
    shutil.copy(file, tmp_path / "b" / "y.safetensors")
    with pytest.raises(errors.RunError, match=r"it holds x\.safetensors, y"):
        hub.pull(f"{tmp_path}/b", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_flags_of_the_other_direction_are_refused(capsys):
    for flags, message in (
        (["--pull=a/b"], "--pull needs --out"),
        (["--push=a/b", "--model=m"], "--push needs --workdir"),
        (["--pull=a/b", "--out=c", "--licence=mit"], "--licence does not go with"),
        ([], "one of the arguments --push --pull is required"),
    ):
        with pytest.raises(SystemExit):
            hub.main(flags)
        assert message in capsys.readouterr().err


def test_without_the_client_it_says_what_to_install(run, monkeypatch, tmp_path):
    folder, file = run
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(errors.RunError, match=r'pip install "adaste_jax\[hub\]"'):
        hub.pull("name/digits", tmp_path)
    with pytest.raises(errors.RunError, match=r'pip install "adaste_jax\[hub\]"'):
        hub.push("name/digits", file, folder, licence="mit")


def test_the_client_of_hugging_face_fetches_a_repository(run, tmp_path):
    """From its cache, laid out as it lays it out, with the network switched off."""
    pytest.importorskip(
        "huggingface_hub", reason='needs huggingface_hub: pip install ".[hub]"'
    )
    folder, file = run
    repository = tmp_path / "cache" / "models--name--digits"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    model_card.write(folder, shutil.copy(file, snapshot), licence="mit")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "cache")}

    def adaste(*flags):
        return subprocess.run(
            [sys.executable, "-m", "experiments", "hub", *flags],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, **offline},
            capture_output=True,
            text=True,
            check=False,
        )

    found = adaste("--pull=name/digits", "--out=back")
    assert found.returncode == 0, found.stdout + found.stderr
    assert (tmp_path / "back" / file.name).read_bytes() == file.read_bytes()
    assert (tmp_path / "back" / "README.md").exists()
    found = adaste("--pull=name/letters", "--out=letters")
    assert (found.returncode, found.stdout[:7]) == (1, "error: ")
    assert "name/letters" in found.stdout
    assert not (tmp_path / "letters").exists()
    sent = [f"--model={file}", f"--workdir={folder}", "--licence=mit"]
    found = adaste("--push=name/digits", *sent)
    assert (found.returncode, found.stdout[:7]) == (1, "error: ")
    assert "offline" in found.stdout.lower()
