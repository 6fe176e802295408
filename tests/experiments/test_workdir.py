"""A workdir belongs to one config, and survives a kill at any moment."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from experiments import errors
from experiments.runs import small_files, workdir

CONFIG = {"seed": 0, "methods": {"ste": {"learning_rate": 0.1}}, "data_dir": "here"}


def test_it_is_made_and_opened_again(tmp_path):
    with workdir.Workdir(tmp_path / "a" / "run", CONFIG) as folder:
        assert json.loads((folder.path / "config.json").read_text()) == CONFIG
    assert workdir.Workdir(folder.path, CONFIG).result() is None


def test_another_config_is_refused_and_its_differences_named(tmp_path):
    path = workdir.Workdir(tmp_path / "run", CONFIG).path
    before = (path / "config.json").read_bytes()
    other = {**CONFIG, "methods": {"ste": {"learning_rate": 0.2}}, "batch_size": 3}
    with pytest.raises(errors.RunError) as caught:
        workdir.Workdir(path, other)
    assert "methods.ste.learning_rate: 0.1 there, 0.2 here" in str(caught.value)
    assert "batch_size: absent there, 3 here" in str(caught.value)
    assert "seed" not in str(caught.value)
    assert (path / "config.json").read_bytes() == before


def test_where_the_data_lies_may_change(tmp_path):
    path = workdir.Workdir(tmp_path / "run", CONFIG).path
    workdir.Workdir(path, {**CONFIG, "data_dir": "there"})


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("text")
    with pytest.raises(errors.RunError, match="holds files"):
        workdir.Workdir(tmp_path, CONFIG)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(errors.RunError, match="cannot use"):
        workdir.Workdir(tmp_path / "run", CONFIG)


def test_a_config_that_is_not_json_is_refused(tmp_path):
    path = workdir.Workdir(tmp_path / "run", CONFIG).path
    (path / "config.json").write_text('{"seed": ')
    with pytest.raises(errors.RunError, match="not JSON"):
        workdir.Workdir(path, CONFIG)


@pytest.mark.parametrize("file", [workdir.METRICS, workdir.LAYERS])
def test_rewinding_drops_what_a_resumed_run_writes_again(tmp_path, file):
    folder = workdir.Workdir(tmp_path / "run", CONFIG)
    lines = [{"step": step, "loss": 0.5} for step in (0, 10, 20, 30)]
    folder.append(*lines, file=file)
    with open(folder.path / file, "a") as opened:
        opened.write('{"step": 40, "lo')  # a kill in the middle of a line
    folder.rewind(20)
    assert [record["step"] for record in folder.records(file)] == [0, 10, 20]
    folder.append({"step": 30, "loss": 0.25}, file=file)
    assert folder.records(file)[-1] == {"step": 30, "loss": 0.25}
    folder.rewind(-1)
    assert folder.records(file) == []


def test_writing_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    file = tmp_path / "file"
    small_files.write(file, "old")

    def full(descriptor):
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        small_files.write(file, "new")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_bad_lines_are_kept_aside_and_said(tmp_path):
    folder = workdir.Workdir(tmp_path / "run", CONFIG)
    folder.append({"step": 0}, {"step": 1}, {"step": 2})
    file = folder.path / workdir.METRICS
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], "garb\x00age", *lines[1:]]) + "\n")
    (message,) = folder.rewind(1)
    assert "metrics.jsonl cannot be read (lines 2)" in message
    assert [record["step"] for record in folder.records()] == [0, 1]
    assert "garb" in (folder.path / "damaged_metrics.jsonl").read_text()
    assert folder.rewind(1) == []


def test_an_epoch_that_is_to_be_reported_again_loses_its_lines(tmp_path):
    folder = workdir.Workdir(tmp_path / "run", CONFIG)
    folder.append({"step": 9, "split": "train"}, {"step": 18, "split": "train"})
    folder.rewind(18, to_report=True)
    assert [record["step"] for record in folder.records()] == [9]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_was_taken_away_is_not_written_to(tmp_path, replaced):
    with workdir.Workdir(tmp_path / "run", CONFIG) as folder:
        folder.append({"step": 0})
        folder.path.rename(tmp_path / "elsewhere")
        if replaced:
            workdir.Workdir(tmp_path / "run", CONFIG)
        for write in (
            lambda: folder.append({"step": 1}),
            lambda: folder.write("summary.txt", "text"),
            folder.check_place,
        ):
            with pytest.raises(errors.RunError, match="removed or replaced"):
                write()
    assert (tmp_path / "run").exists() == replaced


ORIGIN = {
    "data": {"train": {"examples": 3, "digest": "a", "source": "arrays"}},
    "init_from": {"step": 7, "checksum": "b"},
    "teacher": None,
}


def test_what_a_run_began_with_is_recorded_and_held(tmp_path):
    folder = workdir.Workdir(tmp_path / "run", CONFIG)
    assert folder.settle_origin(ORIGIN, begun=False) == []
    assert workdir.origin(folder.path) == ORIGIN
    assert folder.settle_origin(ORIGIN, begun=True) == []
    other = {**ORIGIN, "init_from": {"step": 9, "checksum": "c"}}
    assert folder.settle_origin(other, begun=True) == []  # it has its own state now
    with pytest.raises(errors.RunError, match="init_from: step 7 then, step 9 now"):
        folder.settle_origin(other, begun=False)
    data = {"train": {"examples": 4, "digest": "d", "source": "arrays"}}
    with pytest.raises(errors.RunError, match="3 examples then, 4 now"):
        folder.settle_origin({**ORIGIN, "data": data}, begun=True)
    teacher = {"step": 1, "checksum": "e"}
    with pytest.raises(errors.RunError, match="teacher: none then, step 1 now"):
        folder.settle_origin({**ORIGIN, "teacher": teacher}, begun=True)


def test_rewinding_drops_the_test_line_of_a_run_killed_before_its_result(tmp_path):
    folder = workdir.Workdir(tmp_path / "run", CONFIG)
    folder.append({"step": 20, "split": "train"})
    folder.append({"step": 20, "split": "test"})
    folder.rewind(20)
    assert [record["split"] for record in folder.records()] == ["train"]


def test_the_second_program_is_refused_at_once_and_told_who_is_there(tmp_path):
    first = workdir.Workdir(tmp_path / "run", CONFIG)
    with first, pytest.raises(errors.RunError, match=f"process {os.getpid()} on "):
        workdir.Workdir(tmp_path / "run", CONFIG)
    workdir.Workdir(tmp_path / "run", CONFIG)


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path):
    program = (
        "import sys, time; from experiments.runs import workdir\n"
        f"folder = workdir.Workdir({str(tmp_path / 'run')!r}, {CONFIG!r})\n"
        "print('here', flush=True); time.sleep(100)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "here\n"
        with pytest.raises(errors.RunError, match=f"process {process.pid} "):
            workdir.Workdir(tmp_path / "run", CONFIG)
        process.send_signal(signal.SIGKILL)
    workdir.Workdir(tmp_path / "run", CONFIG)


def test_a_finished_run_is_not_locked(tmp_path):
    with workdir.Workdir(tmp_path / "run", CONFIG) as folder:
        folder.finish({"test_accuracy": 0.5})
    first = workdir.Workdir(tmp_path / "run", CONFIG)
    second = workdir.Workdir(tmp_path / "run", CONFIG)
    assert first.result() == second.result() == {"test_accuracy": 0.5}


def test_what_a_kill_leaves_before_there_is_a_config_is_no_obstacle(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / workdir.LOCK).write_text("process 1 on nowhere, since ever\n")
    (path / ".config.json.abc.tmp").write_text('{"se')
    workdir.Workdir(path, CONFIG)
    assert {file.name for file in path.iterdir()} == {workdir.LOCK, "config.json"}


def test_a_full_disk_is_an_error_that_says_what_is_safe(tmp_path):
    folder = workdir.Workdir(tmp_path / "run", CONFIG)
    (folder.path / workdir.METRICS).symlink_to("/dev/full")
    expected = re.compile("cannot write to .*No space left.*same command", re.DOTALL)
    with pytest.raises(errors.RunError, match=expected):
        folder.append({"step": 1})


def test_a_process_that_does_not_write_changes_nothing(tmp_path):
    folder = workdir.Workdir(tmp_path / "run", CONFIG, writes=False)
    folder.append({"step": 1})
    folder.rewind(0)
    folder.write("summary.txt", "text")
    folder.finish({})
    assert list(tmp_path.iterdir()) == []
