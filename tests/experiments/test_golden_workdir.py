"""A workdir that version 0.1 has left in the middle of a run goes on as it would have.

`workdir_0.1.tar.gz` holds a run of 48 steps, stopped at step 28, the final state of the
run that was never stopped, and the lines of its metrics; made by version 0.1 with jax
0.10.2 on an x86-64 with AVX-512. On such a processor it ended with the same bits.
"""

import json
import os
import subprocess
import sys
import tarfile

import jax
import numpy as np
import pytest

from experiments.runs import identity
from tests.experiments import test_identity, test_loop

PROGRAM = """
import json, sys
from experiments import console
from experiments.runs import identity
from experiments.training import loop
with open(f"{sys.argv[1]}/config.json", encoding="utf-8") as file:
    config = identity.config_of(json.load(file)).lock()
loop.train_and_evaluate(config, sys.argv[1], console=console.create(width=300))
"""


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """The run, resumed on one device; the arrays and lines that it should end with."""
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(test_identity.GOLDEN) as archive:
        archive.extractall(folder, filter="data")
    config = identity.config_of(test_identity.golden_config()).lock()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder / "workdir")],
        env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
        cwd=test_loop.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / "expected.npz") as stored:
        expected = dict(stored)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return folder / "workdir", config, expected, lines, done.stdout


def test_it_resumes(golden):
    path, _, _, lines, log = golden
    assert "resuming at step 28" in log
    assert "did not record its data" in log
    found = test_loop.records(path)
    expected = [json.loads(line) for line in lines]
    assert [(r["step"], r["split"]) for r in found] == [
        (r["step"], r["split"]) for r in expected
    ]
    for one, other in zip(found, expected, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.05)


def test_it_ends_where_the_run_that_was_not_stopped_did(golden):
    """Another processor rounds otherwise: latents differed by 0.0024 of their RMS."""
    path, config, expected, *_ = golden
    found = {
        jax.tree_util.keystr(key, simple=True, separator="/"): np.asarray(leaf)
        for key, leaf in jax.tree_util.tree_leaves_with_path(
            test_loop.final_state(path, config)
        )
    }
    # Version 0.1 counted the steps of the latents once more.
    latents = "opt_state/inner_states/latent/inner_state"
    del expected[f"{latents}/1/step"]
    expected[f"{latents}/1/count"] = expected.pop(f"{latents}/2/count")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        if np.issubdtype(array.dtype, np.floating):
            scale = np.sqrt(np.mean(np.square(array)))
            np.testing.assert_allclose(
                found[name], array, rtol=0, atol=0.01 * scale, err_msg=name
            )
        else:
            np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_the_config_is_that_of_the_old_file(golden):
    path, config, *_ = golden
    text = json.loads((path / "config.json").read_text())
    assert identity.different(identity.upgraded(text), identity.stored(config)) == {}
