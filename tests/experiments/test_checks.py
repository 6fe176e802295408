"""Every field of a config is in the table, and what no run can have is refused."""

import dataclasses
import functools
import re

import ml_collections
import numpy as np
import pytest
from ml_collections import config_dict

from experiments import errors, fields, methods, models
from experiments.configs import base
from experiments.data import datasets
from experiments.training import checks, problem, run


def config_with(path, value):
    """The defaults with one field changed, whatever its type."""
    config = base.get_config()
    *names, last = path.split(".")
    inner = functools.reduce(lambda node, name: node[name], names, config)
    with inner.ignore_type():
        inner[last] = value
    return config


def refusal(path, value):
    with pytest.raises(errors.RunError) as caught:
        checks.check(config_with(path, value))
    return str(caught.value)


def test_the_table_has_every_field_of_base_and_no_other():
    assert checks.FIELDS.keys() == set(base.get_config())
    # Those without a kind have a table of their own.
    own = {name for name, kind in checks.FIELDS.items() if kind is None}
    assert own == {"model", "model_options", "method", "methods"}


def test_the_table_of_networks_has_every_option():
    assert models.OPTIONS.keys() == models.MODELS.keys()
    for name, network in models.MODELS.items():
        attributes = {field.name for field in dataclasses.fields(network)}
        assert models.OPTIONS[name].keys() == attributes - {
            "num_classes",
            "parent",
            "name",
        }


@pytest.mark.parametrize("method", methods.METHODS)
def test_the_defaults_of_every_method_pass(method):
    checks.check(config_with("method", method))


NUMBERS = sorted(
    name
    for name, kind in checks.FIELDS.items()
    if isinstance(kind, fields.Number) and kind.whole
)
REALS = sorted(
    name
    for name, kind in checks.FIELDS.items()
    if isinstance(kind, fields.Number) and not kind.whole
)


@pytest.mark.parametrize("name", [*NUMBERS, *REALS])
@pytest.mark.parametrize(
    "value",
    [None, float("nan"), float("-inf"), -2, 1e300, "7", [7], np.float16("inf"), 3j],
    ids=str,
)
def test_no_number_may_be_this(name, value):
    assert refusal(name, value).startswith(f"config.{name} must be a ")


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [True, np.True_, 2.0, 2**40], ids=repr)
def test_no_whole_number_may_be_this(name, value):
    assert refusal(name, value).startswith(f"config.{name} must be a whole number")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", np.uint32(2**32 - 1)),
        ("num_epochs", np.int16(3)),
        ("real_learning_rate", np.float32(0.01)),
        ("label_smoothing", np.float64(0.25)),
        ("resident", np.True_),
        ("data_dir", None),
        ("cache_dir", None),
        ("init_from", None),
        ("teacher", None),
    ],
)
def test_numbers_of_numpy_and_absent_folders_are_fine(name, value):
    checks.check(config_with(name, value))


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("real_learning_rate", 0.0, "config.real_learning_rate must be a number > 0"),
        ("seed", 2**32, r"config.seed must be a whole number in \[0, 4294967295\]"),
        ("image_size", 5000, r"image_size must be a whole number in \[0, 4096\]"),
        ("num_epochs", 2**31, ">= 1 and at most 2147483647, got 2147483648"),
        ("resident", 1, "config.resident must be True or False, got 1"),
        ("teacher", 3, "config.teacher must be a string, got 3"),
        ("dataset", None, "config.dataset must be a string, got None"),
        ("augment", None, "config.augment: there is no augmentation None"),
        ("model", None, "config.model: there is no network None"),
        ("method", None, "config.method: there is no method None"),
        ("methods", None, "config.methods must hold options, got None"),
        ("methods.adaste", 1, "config.methods.adaste must hold options, got 1"),
        ("model_options", 1, "config.model_options must hold options, got 1"),
        ("binary_exclude", "^stem/", "binary_exclude must be a tuple, got '^stem/'"),
        ("binary_exclude", ("a", "b["), r"binary_exclude\[1\] must be a regular"),
        ("model_options.features", (8, 0), r"features\[1\] must be a whole number"),
        ("model_options.norm_momentum", 1.0, r"norm_momentum .* in \[0, 1\), got 1.0"),
        ("model_options.use_logit_norm", 0, "use_logit_norm must be True or False"),
        ("model_options.dtype", "int8", "dtype must be one of float32, bfloat16, got"),
        (
            "methods.adaste.mu_end",
            float("nan"),
            "mu_end must be a number, got nan",
        ),
        (
            "methods.adaste.learning_rate",
            None,
            "learning_rate must be a number, got",
        ),
        (
            "methods.adaste.anneal_fraction",
            1.5,
            r"`anneal_fraction` must be in \(0, 1\]",
        ),
        (
            "methods.adaste.mu_init",
            200.0,
            "`mu_end` must be at least `mu_init`, 200.0",
        ),
        ("num_train", 100, "batch_size is 128, but there are only 100"),
        ("num_epochs", config_dict.required_placeholder(int), ">= 1, got None"),
    ],
)
def test_a_value_out_of_range_is_named(path, value, expected):
    assert re.search(expected.replace("^", r"\^"), refusal(path, value))


@pytest.mark.parametrize(
    ("path", "value", "meant"),
    [
        ("method", "adaste-averaged", "adaste_averaged"),
        ("method", "full_percision", "full_precision"),
        ("model", "ResNet18", "resnet18"),
        ("augment", "flop", "flip"),
        ("dtype", "bfloat", "bfloat16"),
        ("dataset", "diggits", "digits"),
        ("dataset", "fashion-mnist", "fashion_mnist"),
        ("dataset", "CIFAR100", "cifar100"),
        ("model_options.norm_momentun", 0.5, "norm_momentum"),
        ("methods.adaste.learning_rates", 0.5, "learning_rate"),
        ("batchsize", 64, "batch_size"),
    ],
)
def test_a_misspelt_name_is_refused_before_any_data_are_read(
    path, value, meant, monkeypatch
):
    monkeypatch.setattr(problem, "load", lambda config: pytest.fail("data were read"))
    with pytest.raises(errors.RunError, match=f"did you mean '{meant}'"):
        run.Run(config_with(path, value))


def test_options_of_other_methods_are_not_looked_at():
    checks.check(config_with("methods.ste.learning_rate", -1.0))


def test_what_only_the_estimator_knows_is_found_out_too():
    config = config_with("methods.pmf.jacobian", "exakt")
    config.method = "pmf"
    with pytest.raises(errors.RunError, match=r"methods\.pmf: `jacobian` must be one"):
        checks.check(config)


def test_an_absent_option_has_its_default():
    config = base.get_config()
    config.methods = ml_collections.ConfigDict({"ste": {}})
    config.method = "ste"
    checks.check(config)
    assert methods.options_of("ste", config.methods) == {"learning_rate": 3e-3}


def test_an_option_of_a_method_of_ones_own_must_be_like_its_default(monkeypatch):
    def own(steps, *, learning_rate=0.1, turns=2, fast=False, kind="a", cap=-1.0):
        pytest.fail("options are checked first")

    monkeypatch.setitem(methods.METHODS, "own", own)
    methods.options_of("own", ml_collections.ConfigDict({"own": {"cap": -2.0}}))
    wrong = {"turns": 2.5, "fast": 1, "kind": None, "cap": "x", "learning_rate": "a"}
    for option, value in wrong.items():
        options = ml_collections.ConfigDict({"own": {option: value}})
        with pytest.raises(errors.RunError, match=rf"methods\.own\.{option} must be"):
            methods.options_of("own", options)


def test_a_field_that_is_absent_is_named():
    config = base.get_config()
    del config.keep_checkpoints
    with pytest.raises(errors.RunError, match="lacks the field 'keep_checkpoints'"):
        checks.check(config)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("folder/", "within the data folder"),
        ("folder/../cats", "within the data folder"),
        ("folder//cats", "within the data folder"),
        ("folder/cast", r"no folder .*cast \(did you mean 'cats'\?\)"),
    ],
)
def test_a_folder_of_images_lies_in_the_data_folder(tmp_path, name, expected):
    (tmp_path / "cats" / "train").mkdir(parents=True)
    config = config_with("dataset", name)
    config.update(data_dir=str(tmp_path), resident=False, image_size=32)
    with pytest.raises(errors.RunError, match=expected):
        checks.check(config)
    config.dataset = "folder/cats"
    checks.check(config)


def test_a_data_set_that_stands_in_the_data_folder_needs_no_known_name(tmp_path):
    config = config_with("dataset", "own_letters/1.0.0")
    config.data_dir = str(tmp_path)
    with pytest.raises(errors.RunError, match="no data set 'own_letters/1"):
        checks.check(config)
    (tmp_path / "own_letters").mkdir()
    checks.check(config)


@pytest.mark.parametrize(
    ("dataset", "model", "expected"),
    [
        ("pydoc_topics", "mlp", "is text, and the network 'mlp'"),
        ("digits", "language_model", "is a data set of images, and the network"),
    ],
)
def test_a_network_of_text_is_for_text(dataset, model, expected):
    config = config_with("dataset", dataset)
    config.model = model
    with pytest.raises(errors.RunError, match=expected):
        checks.check(config)


def test_heads_and_patches_must_fit():
    config = config_with("model", "vit")
    config.model_options.update(width=64, heads=5)
    with pytest.raises(errors.RunError, match="multiple of heads, got 64 and 5"):
        checks.check(config)
    config.model_options.heads = 4
    config.update(resident=False, image_size=30)
    with pytest.raises(errors.RunError, match=r"model_options\.patch, got 30 and 4"):
        checks.check(config)


def test_augmentations_are_those_of_the_data():
    for name in datasets.AUGMENTATIONS:
        checks.check(config_with("augment", name))
