"""Comparisons on a network and data of one's own."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

from adaste_jax import datasets, estimators
from adaste_jax import methods as library
from experiments import console as consoles
from experiments import errors, methods
from experiments.compare import Variant, compare

QUIET = consoles.create(quiet=True)
DIGITS = {
    name: (images.reshape(-1, 64).astype(np.float32) / 16, labels)
    for name, (images, labels) in datasets.digits().items()
}
NETWORK = nn.Sequential([nn.Dense(16), nn.LayerNorm(), nn.relu, nn.Dense(10)])
SHORT = {"num_epochs": 5, "batch_size": 32, "seeds": 2, "learning_rates": (1.0,)}


class Twin(nnx.Module):
    """A network of NNX with a batch norm."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 16, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.head = nnx.Linear(16, 10, use_bias=False, rngs=rngs)

    def __call__(self, inputs):
        return self.head(nnx.relu(self.norm(self.hidden(inputs))))


def draw(key):
    first, last = jax.random.split(key)
    return {
        "first": {"kernel": jax.random.normal(first, (64, 16)) / 8},
        "last": {"kernel": jax.random.normal(last, (16, 10)) / 4},
    }, {}


def forward(params, model_state, inputs, *, train, key):
    hidden = jnp.tanh(inputs @ params["first"]["kernel"])
    return hidden @ params["last"]["kernel"], model_state


def run(network, chosen, path, **options):
    options = {"knobs": False, "console": QUIET, **SHORT, **options}
    return compare(network, DIGITS, chosen, path, **options)


@pytest.mark.parametrize(
    "network",
    [NETWORK, lambda rngs: Twin(rngs), (forward, draw)],
    ids=["linen", "nnx", "functions"],
)
def test_every_kind_of_network_is_compared(network, tmp_path):
    rows = run(network, ["ste", "full_precision"], tmp_path)
    found = {row["method"]: row for row in rows}
    assert found.keys() == {"ste", "full_precision"}
    assert all(row["mean"] > 0.3 for row in rows)  # chance is 0.1
    seeds = found["ste"]["accuracies"].values()
    assert len(set(seeds)) == 2
    table = (tmp_path / "table.md").read_text()
    assert "full_precision" in table
    again = run(network, ["ste", "full_precision"], tmp_path)  # from what stands there
    assert again == rows


def test_a_method_of_ones_own_and_options_are_rows(tmp_path):
    def mine(steps, *, learning_rate=1e-2, beta=3.0, **run):
        base = library.ste(steps, learning_rate=learning_rate, **run)
        own = library.from_estimator(
            lambda latent: estimators.approx_sign(latent / beta), base.tx
        )
        return own._replace(binary_from=0)

    known = set(methods.METHODS)
    chosen = {
        "mine": mine,
        "mine, steep": Variant("mine", {"beta": 1.0}),
        "slow": Variant("ste", {"learning_rate": 1e-4}),
        "baseline": "ste",
    }
    rows = run(NETWORK, chosen, tmp_path, baseline="baseline")
    found = {row["method"]: row for row in rows}
    assert found.keys() == chosen.keys()
    assert all("failure" not in row for row in rows)
    assert set(methods.METHODS) == known
    assert found["slow"]["learning_rate"] == 1e-4
    assert found["mine"]["difference"] != 0
    config = json.loads(
        (tmp_path / "trials" / "mine, steep" / "config.json").read_text()
    )
    assert config["options"]["beta"] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": 3}, "must be a Linen module.*got int"),
        ({"chosen": ["stee"]}, "no method 'stee'"),
        ({"num_epoch": 3}, "no field 'num_epoch'"),
        ({"chosen": {"ste": lambda steps, *, learning_rate=1.0, **run: None}}, "same"),
        ({"validation": 0.0}, "validation examples"),
        ({"batch_size": 4096}, "only 1293 training examples"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, change, message):
    arguments = {"network": NETWORK, "chosen": ["ste"], **change}
    with pytest.raises(errors.RunError, match=message):
        run(path=tmp_path / "run", **arguments)


def test_data_that_do_not_fit_are_refused(tmp_path):
    inputs, labels = DIGITS["train"]
    for data, message in [
        ({"train": (inputs, labels)}, "must hold 'test'"),
        ({**DIGITS, "train": (inputs, labels[:-1])}, "an integer label for each input"),
        (
            {**DIGITS, "test": (inputs, optax.smooth_labels(np.eye(10)[labels], 0.1))},
            "an integer label",
        ),
    ]:
        with pytest.raises(errors.RunError, match=message):
            compare(NETWORK, data, ["ste"], tmp_path / "run", console=QUIET, **SHORT)
