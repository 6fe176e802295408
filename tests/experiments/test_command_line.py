"""What a user mistypes is answered in a few lines, without a traceback."""

import pathlib
import subprocess
import sys

import pytest

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
