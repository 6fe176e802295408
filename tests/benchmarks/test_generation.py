"""The benchmark of generation runs and writes what it says; no time is judged here."""

import re

import pytest

from benchmarks import generation


def test_every_row_writes_the_text_of_jax_at_the_start(tmp_path):
    pytest.importorskip("gguf", reason="gguf is not installed (extra gguf)")
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed (extra llama)")
    out = tmp_path / "table.md"
    sizes = ["--width=128", "--depth=1", "--tokens=4", "--rounds=1"]
    generation.main([f"--out={out}", *sizes])
    rows = dict(re.findall(r"(?m)^\| ([^|]+) \| .* \| (\d+) of 4 \|$", out.read_text()))
    assert list(rows) == list(generation.ROWS)
    assert rows[generation.BASE] == "4"
    assert int(rows["llama.cpp, Q1_0"]) >= 1  # activations are rounded to int8
