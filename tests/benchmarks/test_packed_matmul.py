"""The benchmark runs and writes what it says; no time is judged here."""

from benchmarks import packed_matmul


def test_the_page_has_a_row_for_every_size_and_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(packed_matmul, "bandwidth", lambda repeats: 1e9)
    out = tmp_path / "results" / "page.md"
    sizes, batches = ["64", "72"], ["1", "17"]
    packed_matmul.main(
        [f"--out={out}", "--sizes", *sizes, "--batches", *batches, "--repeats=2"]
    )
    page = out.read_text()
    for size in sizes:
        for batch in batches:
            assert page.count(f"\n| {size} | {batch} |") == 2
    assert "jaxlib" in page


def test_shares_and_slower_rows_follow_from_the_times():
    found = {"float32": 2e-3, "bfloat16": 5e-4, "packed": 1e-3, "planes": 1e-3}
    page = packed_matmul.write_report({(1000, 1): found}, 1e9, "command")
    assert "| 1000 | 1 | 2 | 0.5 | 1 | 2.00 | 0.50 |  | 1 |  |" in page
    assert "| 1000 | 1 | 4.01 | 200 % | 2.00 | 401 % | 0.13 | 13 % |" in page
    assert "Slower than float32: nowhere." in page
    assert "Slower than bfloat16: 1000 at batch 1." in page


def test_bandwidth_counts_reading_and_writing(monkeypatch):
    monkeypatch.setattr(packed_matmul, "medians", lambda runs, repeats: {"add": 2.0})
    assert packed_matmul.bandwidth(1, megabytes=1) == 2**20
