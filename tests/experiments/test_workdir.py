"""A workdir belongs to one config, and survives a kill at any moment."""

import json

import pytest

from experiments import errors, workdir

CONFIG = {"seed": 0, "methods": {"ste": {"learning_rate": 0.1}}, "data_dir": "here"}


def test_it_is_made_and_opened_again(tmp_path):
    folder = workdir.Workdir(tmp_path / "a" / "run", CONFIG)
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


def test_rewinding_drops_what_a_resumed_run_writes_again(tmp_path):
    folder = workdir.Workdir(tmp_path / "run", CONFIG)
    for step in (10, 20, 30):
        folder.append({"step": step, "loss": 0.5})
    with open(folder.metrics_file, "a") as file:
        file.write('{"step": 40, "lo')  # a kill in the middle of a line
    folder.rewind(20)
    assert [record["step"] for record in folder.records()] == [10, 20]
    folder.append({"step": 30, "loss": 0.25})
    assert folder.records()[-1] == {"step": 30, "loss": 0.25}


def test_writing_atomically_keeps_the_old_file_when_it_fails(tmp_path):
    file = tmp_path / "file"
    workdir.write_atomically(file, "old")
    with pytest.raises(UnicodeEncodeError):
        workdir.write_atomically(file, "\ud800")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
