"""Small files are written whole and read with care."""

import json
import os
import stat

import pytest

from experiments import errors
from experiments.runs import small_files


def test_numbers_that_json_does_not_have_become_null():
    text = small_files.dumps({"a": float("nan"), "b": [-float("inf"), (1.5, 2)]})
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": None,
        "b": [None, [1.5, 2]],
    }


@pytest.mark.parametrize(
    "text", ["NaN", "-Infinity", "1e400", "-1e999", "1" + "0" * 5000, str(2**63)]
)
def test_numbers_beyond_the_range_of_readers_are_read_as_none(tmp_path, text):
    file = tmp_path / "metrics.jsonl"
    file.write_text(f'{{"step": 3, "loss": {text}}}\n')
    assert small_files.read_lines(file, step=int).records == [{"step": 3, "loss": None}]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'"text"', "expected a JSON object"),
        (b'{"data": 3}', "expected 'data' to be of type dict, found 3"),
        (b"{}", "expected 'data' to be of type dict, found nothing"),
        (b"[" * 100_000, "cannot read"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it_and_the_cure(tmp_path, data, reason):
    file = tmp_path / "origin.json"
    file.write_bytes(data)
    with pytest.raises(errors.RunError) as caught:
        small_files.read(file, cure="Put it back.", data=dict)
    assert str(file) in str(caught.value)
    assert reason in str(caught.value)
    assert str(caught.value).endswith("Put it back.")


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(errors.RunError, match="no such file"):
        small_files.read(tmp_path / "fifo", cure="")
    with pytest.raises(errors.RunError, match="not a regular file"):
        small_files.read_lines(tmp_path / "fifo")


def test_bad_lines_are_told_apart_from_one_that_a_kill_has_cut_short(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(
        b'{"step": 1}\n\x00\xff\n{"step": "two"}\n\n[3]\n{"step": 4}\n{"step": 5'
    )
    found = small_files.read_lines(file, step=int)
    assert [record["step"] for record in found.records] == [1, 4]
    assert sorted(found.bad) == [2, 3, 5]


def test_a_whole_last_line_without_its_end_counts(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}')
    assert len(small_files.read_lines(file, step=int).records) == 2


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_new_file_has_the_mode_of_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        small_files.write(tmp_path / "new", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode


def test_links_and_modes_stay(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    small_files.write(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_name_as_long_as_names_can_be(tmp_path):
    file = tmp_path / ("ü" * 127)
    small_files.write(file, "text")
    assert file.read_text() == "text"
    assert len(list(tmp_path.iterdir())) == 1
