"""What a user mistypes is answered in a few lines, without a traceback."""

import argparse
import pathlib
import subprocess
import sys

import pytest

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
