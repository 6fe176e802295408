"""What a user mistypes is answered in a few lines, without a traceback."""

import argparse
import importlib
import os
import pathlib
import subprocess
import sys

import pytest

from experiments import __main__ as adaste
from experiments import command_line, export, predict

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (
            ["--config=experiments/configs/quickstart.py", "--config.learning_rate=1"],
            "no field 'learning_rate'\nDid you mean \"real_learning_rate\"",
        ),
        (
            ["--config=experiments/configs/quickstrat.py"],
            "No such file or directory: 'experiments/configs/quickstrat.py'",
        ),
        (
            ["--config=experiments/configs/quickstart.py:smok"],
            "variant must be full or smoke, got 'smok' (did you mean 'smoke'?).\n",
        ),
        (
            ["--config=experiments/configs/quickstart.py", "--config.seed=-1"],
            "error: config.seed must be a whole number in [0, 4294967295], got -1.",
        ),
        (
            [
                "--config=experiments/configs/quickstart.py",
                "--config.dataset=fashion_mnits",
            ],
            "there is no data set 'fashion_mnits' (did you mean 'fashion_mnist'?)",
        ),
        (
            ["--config=experiments/configs/quickstart.py", "--config.seed=one"],
            "--config.seed=one: invalid literal for int() with base 10: 'one'\n",
        ),
    ],
)
def test_a_mistyped_config(arguments, answer, tmp_path):
    command = [sys.executable, "-m", "experiments.main", f"--workdir={tmp_path}/run"]
    found = subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert found.stdout.startswith("error: ")
    assert answer in found.stdout
    assert "Traceback" not in found.stdout + found.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["-3", "2.5", "all", "", "1e3", "99999999999"])
def test_a_whole_number_of_a_flag_is_refused_by_what_it_must_be(text, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=command_line.whole(2))
    with pytest.raises(SystemExit):
        parser.parse_args([f"--most={text}"])
    expected = f"argument --most: must be a whole number >= 2, got '{text}'"
    assert expected in capsys.readouterr().err
    assert parser.parse_args(["--most=2"]).most == 2


@pytest.mark.parametrize("program", [export, predict])
def test_programs_refuse_a_negative_number_of_examples(program, capsys):
    options = {"workdir": "w", "out": "o"} if program is export else {"model": "m"}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    with pytest.raises(SystemExit) as caught:
        program.main([*arguments, "--num_test=-2"])
    assert caught.value.code == 2
    assert "--num_test: must be a whole number >= 0" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--seeds=0", "--together=-1"])
def test_a_comparison_refuses_numbers_that_mean_nothing(flag, tmp_path):
    command = [sys.executable, "-m", "experiments.compare", f"--workdir={tmp_path}/c"]
    config = "--config=experiments/configs/quickstart.py"
    found = subprocess.run(
        [*command, config, flag], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert found.stdout.startswith(f"error: flag {flag}")
    assert "Traceback" not in found.stdout + found.stderr


def run(*arguments, folder):
    """The command `adaste` in a folder that is not the clone."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "experiments", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_config_is_found_by_its_name_from_any_folder(tmp_path, monkeypatch):
    there = ROOT / "experiments" / "configs" / "quickstart.py"
    monkeypatch.chdir(tmp_path)
    for name in ("quickstart", "experiments/configs/quickstart.py"):
        assert command_line.config_file(f"{name}:smoke") == f"{there}:smoke"
    own = tmp_path / "quickstart.py"
    own.write_text("")
    assert command_line.config_file("quickstart.py") == "quickstart.py"
    with pytest.raises(ValueError, match=r"no config 'vit'; there are cifar100_"):
        command_line.config_file("vit")


def test_configs_that_are_listed_can_be_read():
    for name in command_line.config_names():
        importlib.import_module(f"experiments.configs.{name}").get_config("smoke")


def test_adaste_says_what_there_is(tmp_path):
    found = run(folder=tmp_path)
    assert found.returncode == 0, found.stderr
    for name in (*adaste.COMMANDS, "cifar10_resnet18"):
        assert name in found.stdout
    found = run("trian", folder=tmp_path)
    assert found.returncode == 1
    assert "no command 'trian' (did you mean 'train'?)" in found.stdout


@pytest.mark.parametrize("command", ["train", "compare", "export"])
def test_help_lists_the_flags_and_is_no_failure(command, tmp_path):
    found = run(command, "--help", folder=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "--workdir" in found.stdout
    assert max(map(len, found.stdout.splitlines())) <= 100
    if command != "export":
        assert "config.batch_size = 128  # over all devices" in found.stdout


def test_adaste_takes_a_config_by_its_name(tmp_path):
    found = run("train", "quickstrat", "--workdir=run", folder=tmp_path)
    assert found.returncode == 1
    assert "no config 'quickstrat' (did you mean 'quickstart'?)" in found.stdout
    wrong = "--config.methods.adaste.learning_rte=1"
    found = run("train", "quickstart:smoke", "--workdir=run", wrong, folder=tmp_path)
    assert found.returncode == 1
    assert "did you mean" in found.stdout.lower()
    assert not (tmp_path / "run").exists()


def test_a_mistyped_flag_is_guessed(capsys):
    with pytest.raises(SystemExit):
        export.main(["--workdir=w", "--out=o", "--nmu_test=3"])
    assert "--nmu_test=3 (did you mean --num_test?)" in capsys.readouterr().err
