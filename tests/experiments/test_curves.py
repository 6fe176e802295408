"""The picture of several runs."""

import json

import pytest
from matplotlib import image

from experiments.studies import curves


def test_a_picture_is_drawn_of_runs_of_different_length(tmp_path):
    runs = []
    for length, name in enumerate(("one", "two"), start=2):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        records = [
            {"split": split, "epoch": epoch, "loss": 1 / epoch}
            for epoch in range(1, length)
            for split in ("train", "validation", "timing")
        ]
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)))
        runs.append(f"{name}={folder}")
    curves.main([f"--out={tmp_path / 'curves.png'}", *runs])
    drawn = image.imread(tmp_path / "curves.png")
    assert drawn.shape[1] == 1200
    for colour in ("#000000", "#D55E00"):
        wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert (abs(drawn[..., :3] - wanted).max(axis=-1) < 0.01).sum() > 20


def test_a_run_without_a_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        curves.main(["--out=x.png", "runs/one"])
    assert "NAME=WORKDIR; got 'runs/one'" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        curves.main([f"--out={tmp_path / 'x.png'}", f"one={tmp_path}"])
    assert "is not the workdir of a run" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
