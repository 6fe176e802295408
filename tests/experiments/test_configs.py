"""Every config trains in its smoke variant, and compiles its step once."""

import importlib
import json
import os
import pathlib

import pytest
import rich.console

from adaste_jax.nn import linen
from experiments import loop

CONFIGS = pathlib.Path(__file__).parents[2] / "experiments" / "configs"
NAMES = sorted(
    file.stem for file in CONFIGS.glob("*.py") if file.stem not in ("__init__", "base")
)


def get_config(name, variant):
    return importlib.import_module(f"experiments.configs.{name}").get_config(variant)


def test_the_configs_of_the_readme_are_there():
    assert {
        "quickstart",
        "fashion_mnist_mlp",
        "cifar10_vgg_small",
        "cifar10_resnet18",
    } <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_smoke_variant_trains_and_compiles_its_step_once(name, tmp_path, monkeypatch):
    config = get_config(name, "smoke")
    if config.dataset != "digits" and not os.environ.get("TFDS_DATA_DIR"):
        pytest.skip(f"{config.dataset} is read from $TFDS_DATA_DIR, which is not set")
    passes = []

    def counting(module):
        forward = functional(module)

        def call(*args, train, key):
            if train:
                passes.append(key)
            return forward(*args, train=train, key=key)

        return call

    functional = linen.functional
    monkeypatch.setattr(linen, "functional", counting)
    config.reestimate_batches = 0  # those passes are compiled too
    config.lock()
    quiet = rich.console.Console(quiet=True)
    result = loop.train_and_evaluate(config, tmp_path / "run", console=quiet)
    assert result["epochs"] == config.num_epochs
    assert result["steps"] >= 2
    assert result["one_bit_parameters"] > 0
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    # One trace; the released protocol has a second forward pass in its step.
    assert len(passes) == (2 if config.method == "adaste_released" else 1)


@pytest.mark.parametrize("name", NAMES)
def test_full_variant_is_there_and_another_is_refused(name):
    config = get_config(name, "full")
    assert config.num_epochs > get_config(name, "smoke").num_epochs
    with pytest.raises(ValueError, match="full or smoke"):
        get_config(name, "half")
