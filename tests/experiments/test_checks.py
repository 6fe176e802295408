"""Every field of a config is checked before any data are read."""

import ml_collections
import numpy as np
import pytest

from experiments import checks, errors, run
from experiments.configs import base
from experiments.run import Run
from tests.experiments import test_loop


def untyped():
    """The defaults, in a config that takes values of every type."""
    return ml_collections.ConfigDict(base.get_config().to_dict(), type_safe=False)


def test_every_field_has_a_row_and_no_row_is_of_no_field():
    assert set(checks.FIELDS) == set(base.get_config().keys())


def test_the_defaults_are_allowed():
    checks.check(base.get_config())


NAN, INF = float("nan"), float("inf")
WRONG = {
    "whole": (None, -1, 1.0, NAN, True, "3"),
    "number": (None, NAN, INF, -INF, -1.0, "0.1"),
    "text": (3, ("digits",)),
    "flag": (None, 1, "True"),
}
KINDS = {
    "whole": [
        *("seed", "num_epochs", "batch_size", "eval_batch_size", "num_train"),
        *("num_test", "image_size", "reestimate_batches", "skip_nonfinite"),
        *("steps_per_call", "eval_every_epochs", "checkpoint_every_epochs"),
        *("checkpoint_every_steps", "keep_checkpoints"),
    ],
    "number": [
        *("warmup_epochs", "label_smoothing", "validation", "real_learning_rate"),
        *("distill_weight", "distill_temperature"),
    ],
    "text": [
        *("dataset", "data_dir", "cache_dir", "init_from", "teacher", "augment"),
        *("model", "dtype", "method"),
    ],
    "flag": ["resident", "tensorboard"],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for kind, names in KINDS.items()
        for name in names
        for value in WRONG[kind]
    ]
    + [
        *(("seed", 2**32), ("num_epochs", 0), ("image_size", 60_000)),
        *(("real_learning_rate", 0.0), ("label_smoothing", 1.0), ("dataset", "")),
        *(("model_options", 3), ("methods", None), ("binary_exclude", "head")),
        *(("dataset", None), ("distill_temperature", 0), ("validation", 1)),
    ],
    ids=str,
)
def test_a_value_that_no_run_can_have_is_refused_by_name(name, value):
    config = untyped()
    config[name] = value
    with pytest.raises(
        errors.RunError, match=rf"config\.{name}( must |: there is no )"
    ):
        checks.check(config)


def test_all_fields_are_of_a_kind_that_is_tested():
    tested = [name for names in KINDS.values() for name in names]
    assert set(tested) | {"model_options", "methods", "binary_exclude"} == set(
        checks.FIELDS
    )


def test_numbers_of_numpy_and_empty_names_are_allowed():
    config = untyped()
    config.seed, config.num_train = np.int64(3), np.uint8(200)
    config.real_learning_rate = np.float32(0.1)
    config.data_dir = config.init_from = config.teacher = None
    checks.check(config)


@pytest.mark.parametrize("value", [NAN, INF, None, "fast"])
@pytest.mark.parametrize("option", ["learning_rate", "mu_end", "alpha"])
def test_options_of_the_method_are_numbers_and_those_of_others_do_not_count(
    option, value
):
    config = untyped()
    config.methods.ste.learning_rate = value
    checks.check(config)
    config.methods.adaste[option] = value
    with pytest.raises(errors.RunError, match=f"config.methods.adaste.{option} must"):
        checks.check(config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "adastee"}, "did you mean 'adaste'"),
        ({"model": "resnet_18"}, "did you mean 'resnet18'"),
        ({"dataset": "digit"}, "no data set 'digit' .did you mean 'digits'"),
        ({"augment": "pad_crop_flipp"}, "did you mean 'pad_crop_flip'"),
        ({"model_options": {"featurs": (3,)}}, "no option 'featurs'"),
        ({"methods": {"adaste": {"mu_init": -1.0}}}, "mu_init"),
    ],
)
def test_a_wrong_name_is_refused_before_data_are_read(monkeypatch, fields, message):
    monkeypatch.setattr(run, "load", lambda config: pytest.fail("it reads data"))
    config = test_loop.small_config()
    config.unlock()
    config.update(fields)
    with pytest.raises(errors.RunError, match=message):
        Run(config)
