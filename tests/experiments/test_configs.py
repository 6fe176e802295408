"""Every config builds its network; one for each network trains, and compiles once."""

import importlib
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import pytest

import adaste_jax
from adaste_jax.nn import linen
from experiments import models
from experiments.configs import protocols
from experiments.training import checks, loop
from tests.experiments import test_loop, tiny_sets

CONFIGS = pathlib.Path(__file__).parents[2] / "experiments" / "configs"
NAMES = sorted(
    file.stem
    for file in CONFIGS.glob("*.py")
    if file.stem not in ("__init__", "base", "protocols")
)
RELEASED = [name for name in NAMES if name.endswith(("resnet18", "vgg16"))]
VARIANTS = [
    (name, variant)
    for name in NAMES
    for variant in (protocols.VARIANTS if name in RELEASED else ("full", "smoke"))
]
VARIANTS += [("language_model", "qwen3"), ("language_model", "qwen3_smoke")]
# One for each network, and both variants of `protocols`.
TRAINED = [
    ("cifar100_vgg16", "fast_smoke"),
    ("cifar10_vgg_small", "smoke"),
    ("imagenette_resnet18", "smoke"),
    ("language_model", "smoke"),
    ("quickstart", "smoke"),
    ("vit_fashion_mnist", "smoke"),
]
# Of one example, and the number of classes.
SHAPES = {
    "cifar10": ((32, 32, 3), 10),
    "cifar100": ((32, 32, 3), 100),
    "digits": ((8, 8, 1), 10),
    "fashion_mnist": ((28, 28, 1), 10),
    "folder/photos": ((64, 64, 3), 2),
    "folder/tiny-imagenet-200": ((64, 64, 3), 200),
    "imagenette/160px-v2": ((160, 160, 3), 10),
    "pydoc_topics": ((128,), 256),
}


def get_config(name, variant):
    return importlib.import_module(f"experiments.configs.{name}").get_config(variant)


def test_the_configs_of_the_readme_are_there():
    assert {
        "quickstart",
        "fashion_mnist_mlp",
        "cifar10_vgg_small",
        "cifar10_resnet18",
    } <= set(NAMES)


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    """Makes the data set of a config, tiny, where it cannot be downloaded."""

    def make(config):
        folder = tmp_path / "data"
        if config.dataset == tiny_sets.TINY_IMAGENET:
            return str(tiny_sets.tiny_imagenet(folder, classes=200, train=1, test=64))
        small = {
            "cifar100": [(32, 32, 3)],
            "imagenette/160px-v2": [(160, 213, 3), (200, 160, 3)],
        }
        if config.dataset in small:
            test = "test" if config.dataset == "cifar100" else "validation"
            return tiny_sets.prepare(
                config.dataset,
                folder,
                monkeypatch,
                sizes={"train": 64, test: 64},
                image_shapes=small[config.dataset],
            )
        if config.dataset != "digits" and not os.environ.get("TFDS_DATA_DIR"):
            pytest.skip(f"{config.dataset} is read from $TFDS_DATA_DIR: it is not set")
        return ""

    return make


def test_every_network_is_trained():
    found = {get_config(*one).model for one in TRAINED}
    assert found | {"decoder"} == set(models.MODELS)  # that one in test_generate.py


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_every_variant_passes_the_checks_and_its_network_fits_the_data(name, variant):
    config = get_config(name, variant)
    config.batch_size = 8 * -(-config.batch_size // 8)  # for the devices here
    checks.check(config)
    shape, classes = SHAPES[config.dataset]
    if not config.resident:
        assert shape == (config.image_size, config.image_size, 3)
    network = models.create(config.model, classes, **models.options_of(config))
    dtype = jnp.uint8 if config.dataset == "pydoc_topics" else jnp.float32
    batch = jax.ShapeDtypeStruct((16, *shape), dtype)

    def forward(batch):
        variables = network.init(jax.random.key(0), batch, train=False)
        logits, _ = network.apply(variables, batch, train=True, mutable=True)
        return variables["params"], logits

    params, logits = jax.eval_shape(forward, batch)
    positions = shape if config.dataset == "pydoc_topics" else ()
    assert logits.shape == (16, *positions, classes)
    where = adaste_jax.kernels(exclude=tuple(config.binary_exclude))
    assert any(jax.tree.leaves(where(params)))


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        pytest.param(*one, marks=[pytest.mark.slow] * (one[0] != "quickstart"))
        for one in TRAINED
    ],
)
def test_smoke_variant_trains_and_compiles_its_step_once(
    name, variant, data_dir, tmp_path, monkeypatch
):
    config = get_config(name, variant)
    config.data_dir = data_dir(config)
    if config.data_dir:
        config.cache_dir = str(tmp_path / "cache")
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
    with test_loop.undrawn():
        result = loop.train_and_evaluate(
            config, tmp_path / "run", console=test_loop.QUIET
        )
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
    with pytest.raises(ValueError, match=r"smoke, got 'half'"):
        get_config(name, "half")


@pytest.mark.parametrize("name", RELEASED)
def test_full_is_the_released_protocol_and_fast_a_tenth_of_it(name):
    full, fast = get_config(name, "full"), get_config(name, "fast")
    hundred = full.dataset == "cifar100"
    assert full.num_epochs == (500 if hundred else 700)
    assert full.methods.adaste_released.momentum == (0.0 if hundred else 0.9)
    tiny = full.dataset == tiny_sets.TINY_IMAGENET
    assert full.methods.adaste_released.mu_rate == (1.009 if tiny else 1.05)
    assert (full.method, full.batch_size) == ("adaste_released", 128)
    assert full.model_options.norm_momentum == 0.8
    assert (full.warmup_epochs, full.label_smoothing) == (0.0, 0.0)
    assert full.dtype == "float32"
    assert fast.num_epochs == full.num_epochs // 10
    assert (fast.method, fast.dtype) == ("adaste", "bfloat16")
    assert fast.warmup_epochs < fast.num_epochs
    for config in (full, fast):
        assert config.binary_exclude == ()
        assert config.resident == (config.augment == "pad_crop_flip")
        assert {"blocks", "convolutions"}.isdisjoint(config.model_options)
        checks.check(config)
