"""The benchmark runs and writes what it says; no time is judged here."""

import pathlib
import re
import shutil

import numpy as np
import pytest

from adaste_jax import export, methods
from benchmarks import engine, engine_list, engine_networks, engine_onnx, engines
from docs import browser

DEMO = pathlib.Path(__file__).parents[2] / "docs" / "demo"


def test_the_page_has_rows_for_every_network_and_engine(tmp_path, monkeypatch):
    """Including one that is added here, and gives wrong answers."""
    monkeypatch.setattr(engine_networks, "NETWORKS", {"tiny": ("quickstart", {}, 64)})
    (tmp_path / "tiny").mkdir()  # trained already
    shutil.copy(DEMO / "digits.safetensors", tmp_path / "tiny" / "network.safetensors")

    def wrong(case):
        built = engine_onnx.onnx_one_bit(case)
        return built._replace(run=lambda x: -built.run(x))

    monkeypatch.setitem(engine_list.ENGINES, "wrong", engine.Engine(wrong))
    out = tmp_path / "results" / "page.md"
    right = [
        *("JAX, float32", "JAX, program", "ONNX Runtime, float32"),
        "ONNX Runtime, one bit",
    ]
    arguments = [f"--out={out}", f"--workdir={tmp_path}", "--seconds=0", "--engines"]
    engines.main(
        [*arguments, *right, "wrong", "ONNX Runtime, fast", "--batches", "1", "3"]
    )
    page = out.read_text()
    for name in (*right, "wrong"):
        for batch in (1, 3):
            assert f"\n| tiny | {batch} | {name} |" in page
    equal = dict(re.findall(r"\| tiny \| ([^|]+) \| (\d+) of 64 \|", page))
    assert [equal[name] for name in right] == ["64"] * 4
    assert int(equal["wrong"]) < 32
    rows = re.findall(r"(?m)^\| tiny \| ([^|]+) \|.* \| ([\d.]+) \|$", page)
    bits = {name: float(number) for name, number in rows}
    assert bits["JAX, float32"] == 32
    assert bits["ONNX Runtime, float32"] > 32
    assert 1 < bits["ONNX Runtime, one bit"] < 3
    assert "\n- ONNX Runtime, fast: " in page


def test_a_layer_alone_is_timed_with_threads_that_spin(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_networks, "LAYER_SIZE", 256)  # the least for `fast`
    layer, fast = engine_networks.LAYER, "ONNX Runtime, fast, spinning"
    out = tmp_path / "page.md"
    arguments = [f"--out={out}", f"--workdir={tmp_path}", "--num_test=9", "--seconds=0"]
    engines.main([*arguments, "--engines", fast, "--batches=2", f"--networks={layer}"])
    page = out.read_text()
    assert f"\n| {layer} | not trained: 256 x 256 random signs | 65,536 |  |" in page
    assert re.search(rf"\n\| {layer} \| {fast} \| \d of 9 \|", page)
    assert f"\n| {layer} | 2 | {fast} |" in page


@pytest.mark.skipif(not browser.engine(), reason="no onnxruntime-web: make docs")
def test_the_engine_of_browsers_runs_in_node(tmp_path):
    weights = np.ones((4, 3), np.float32)

    method = methods.full_precision(steps=1)
    model = export.to_onnx(
        lambda weights, x: x @ weights, weights, input_shape=(4,), method=method
    )
    try:
        web = engine_onnx.Web(model, tmp_path)
    except engine.UnfitError as error:
        pytest.skip(str(error))
    for batch in (1, 5):
        x = np.arange(4 * batch, dtype=np.float32).reshape(batch, 4)
        found, seconds = web.ask(x)
        np.testing.assert_allclose(found, x @ weights)
        assert 0 < seconds < 60


def test_a_ratio_has_an_interval():
    below = np.array([1.0, 1.0, 1.0])
    assert engines.ratio(2 * below, below) == "2.00 (2.00 to 2.00)"
    rng = np.random.default_rng(0)
    spread = engines.ratio(rng.uniform(1, 3, 100), np.ones(100))
    middle, low, high = map(float, re.findall(r"[\d.]+", spread))
    assert 1 < low < middle < high < 3
