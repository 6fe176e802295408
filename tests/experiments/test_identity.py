"""A workdir knows its own run again, and does not mind what computes nothing else."""

import json
import pathlib
import tarfile

import ml_collections
import numpy as np
import pytest

from experiments import methods
from experiments.configs import base, language_model, quickstart
from experiments.runs import identity

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "workdir_0.1.tar.gz"


def golden_config():
    with tarfile.open(GOLDEN) as archive:
        return json.load(archive.extractfile("workdir/config.json"))


@pytest.mark.parametrize("config", [quickstart, language_model])
def test_a_config_is_found_again_in_what_a_workdir_keeps(config):
    config = config.get_config()
    stored = json.loads(json.dumps(identity.stored(config)))
    assert set(stored["methods"]) == {config.method}
    assert identity.different(identity.upgraded(stored), identity.stored(config)) == {}


def test_a_config_of_version_0_1_is_of_the_same_run():
    stored = golden_config()
    assert len(stored["methods"]) == 35
    config = identity.config_of(stored)
    assert config.num_epochs == 6
    assert list(config.model_options.features) == [12]
    assert set(identity.upgraded(stored)["methods"]) == {"adaste"}


def test_new_fields_methods_and_defaults_leave_old_workdirs_alone(monkeypatch):
    stored = json.loads(json.dumps(identity.stored(quickstart.get_config())))
    plain = base.get_config

    def later():
        config = plain()
        config.sharpness_awareness = 0.0
        config.methods.a_new_one = {"learning_rate": 1.0}
        config.methods.bop.tau = 1e-3
        config.methods.adaste.units = "layer"
        return config

    monkeypatch.setattr(base, "get_config", later)
    now = identity.stored(quickstart.get_config())
    assert now["sharpness_awareness"] == 0.0
    assert identity.different(identity.upgraded(stored), now) == {}
    changed = {**now, "sharpness_awareness": 0.1}
    assert list(identity.different(identity.upgraded(stored), changed)) == [
        "sharpness_awareness"
    ]


def test_numbers_of_numpy_are_numbers():
    fields = quickstart.get_config().to_dict()
    config = ml_collections.ConfigDict(fields, type_safe=False)
    config.real_learning_rate, config.seed = np.float32(0.5), np.int64(7)
    stored = identity.stored(config)
    assert (stored["real_learning_rate"], stored["seed"]) == (0.5, 7)


def test_what_changes_a_bit_differs():
    one, other = quickstart.get_config(), quickstart.get_config()
    other.methods.adaste.learning_rate *= 2
    other.eval_batch_size = 7
    other.keep_checkpoints = 9
    other.methods.ste.learning_rate = 0.5
    found = identity.different(identity.stored(one), identity.stored(other))
    assert set(found) == {"methods.adaste.learning_rate", "eval_batch_size"}


@pytest.mark.parametrize(
    "stored",
    [
        {"schema": identity.SCHEMA + 1},
        {"schema": "1"},
        {"num_epochs": "many"},
        {"methods": 3},
        {"methods": {"adaste": {"learning_rate": []}}},
    ],
    ids=str,
)
def test_what_is_no_config_is_refused(stored):
    with pytest.raises(ValueError, match=r"schema|fields"):
        identity.config_of(stored)


def test_what_leaves_the_machine_has_no_paths_of_it():
    config = quickstart.get_config()
    config.data_dir = config.cache_dir = "/home/me/data"
    config.teacher = "/home/me/runs/teacher"
    text = json.dumps(identity.published(config))
    assert "/home" not in text
    assert identity.published(config)["teacher"] == "teacher"
    assert len(methods.METHODS) > len(identity.published(config)["methods"])
