"""Names of version 0.1 still work, and say what to write instead."""

import importlib
import importlib.util
import sys

import pytest

from experiments import _moved
from experiments.configs import base

USED = [
    ("run", "Run"),
    ("restore", "saved"),
    ("loop", "train_and_evaluate"),
    ("progress", "Log.write"),
    ("plots", "draw_all"),
    ("records", "read"),
    ("workdir", "Workdir"),
    ("image_folder", "files"),
    ("image_folder", "ImageFiles"),
    ("checks", "check"),
    ("deployed", "describe"),
    ("data_stream", "open_splits"),
    ("data_source", "source"),
    ("data_identity", "differences"),
    ("tfds_records", "Records"),
    ("seeds", "keys_of"),
]


@pytest.fixture
def imported(monkeypatch):
    """Imports a module as if for the first time."""

    def imported(name):
        monkeypatch.delitem(sys.modules, f"experiments.{name}", raising=False)
        return importlib.import_module(f"experiments.{name}")

    return imported


@pytest.mark.parametrize(("old", "name"), USED)
def test_a_name_that_others_use_is_found_under_its_old_path(imported, old, name):
    new = f"experiments.{_moved.MOVED[old]}"
    with pytest.warns(DeprecationWarning, match=f"experiments.{old} is now {new};"):
        found = imported(old)
    here = importlib.import_module(new)
    for part in name.split("."):
        found, here = getattr(found, part), getattr(here, part)
    assert found is here


def test_every_old_name_leads_to_a_module():
    for new in _moved.MOVED.values():
        assert importlib.util.find_spec(f"experiments.{new}") is not None, new


def test_names_of_packages_that_were_modules():
    from experiments import data, predict, report

    assert callable(report.page)
    assert callable(predict.evaluate)
    with pytest.warns(DeprecationWarning, match="is now experiments.data.datasets"):
        splits = data.load("digits", num_train=100)
    assert len(splits.train) == 100
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = data.nothing


def test_a_workdir_opens_with_a_whole_config_as_in_version_0_1(imported, tmp_path):
    config = base.get_config().to_dict()
    with pytest.warns(DeprecationWarning, match=r"now experiments\.runs\.workdir"):
        workdir = imported("workdir")
    for _ in range(2):
        with workdir.Workdir(tmp_path, config) as folder:
            assert folder.result() is None
