"""The benchmark runs and writes what it says; no time is judged here."""

import re

import numpy as np

from benchmarks import engines


def test_the_page_has_rows_for_every_network(tmp_path, monkeypatch):
    tiny = {"tiny": ("mlp", (8, 8), {"features": (32,)})}
    monkeypatch.setattr(engines, "NETWORKS", tiny)
    out = tmp_path / "results" / "page.md"
    engines.main(
        [f"--out={out}", "--networks", "tiny", "--batches", "1", "3", "--repeats=2"]
    )
    page = out.read_text()
    for start in ("tiny | 1", "tiny | 3", "tiny | ONNX", "tiny | ONNX, fast"):
        assert f"\n| {start} |" in page
    assert page.count("| 0 of 256 |") == 2
    assert "onnxruntime" in page


def test_a_ratio_has_an_interval():
    below = np.array([1.0, 1.0, 1.0])
    assert engines.ratio(2 * below, below) == "2.00 (2.00 to 2.00)"
    rng = np.random.default_rng(0)
    spread = engines.ratio(rng.uniform(1, 3, 100), np.ones(100))
    middle, low, high = map(float, re.findall(r"[\d.]+", spread))
    assert 1 < low < middle < high < 3
