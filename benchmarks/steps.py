"""The steps of training that the benchmarks time."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adaste_jax import estimators, optim, train
from adaste_jax.nn import linen
from experiments import models

TWO_PASSES = "AdaSTE, released (two passes)"


class Network(NamedTuple):
    """A network of the benchmarks; `shape` is the shape of a batch of images."""

    title: str
    options: Mapping[str, Any]
    shape: tuple[int, ...]


NETWORKS = {
    "mlp": Network(
        "MLP 784-2048-2048-2048-10",
        {"features": (2048, 2048, 2048)},
        (128, 28, 28, 1),
    ),
    "vgg_small": Network(
        "VGG-small, quarter width", {"width": 32, "dense": 256}, (128, 32, 32, 3)
    ),
    "resnet18": Network("ResNet-18", {}, (32, 32, 32, 3)),
}


def recommended():
    """The recommended form of AdaSTE, as in the experiments."""
    mu = optax.exponential_decay(0.01, 1000, 1e4, end_value=100.0)
    return optax.adam(1e-3), estimators.adaste, {"mu": mu}


def literal():
    """The paper's rule in the loss."""
    mu = optax.exponential_decay(0.01, 1000, 1e4, end_value=100.0)
    return optax.adam(1e-3), estimators.adaste_paper, {"mu": mu}


def released():
    """The authors' update; the second forward pass is an option of the step."""
    mu = optax.constant_schedule(1.0)
    estimator = functools.partial(estimators.adaste_paper, rule="identity")
    tx = optim.adaste_released(1e-9, mu=mu, grad_scale=1e11)
    return tx, estimator, {"mu": mu}


METHODS = {
    "full precision": lambda: (optax.adam(1e-3), None, {}),
    "STE": lambda: (optax.adam(1e-3), estimators.ste, {}),
    "AdaSTE, recommended": recommended,
    "AdaSTE, adaptive rule": literal,
    TWO_PASSES: released,
}


def batch(network: str) -> dict[str, np.ndarray]:
    """Random images and labels."""
    rng = np.random.default_rng(0)
    shape = NETWORKS[network].shape
    return {
        "image": rng.normal(size=shape).astype(np.float32),
        "label": rng.integers(0, 10, shape[0]).astype(np.int32),
    }


def make(
    network: str, method: str, *, dtype: str = "float32", shares: bool = False
) -> Callable[[], None]:
    """A function that takes one step and waits for it.

    Args:
        network: A key of `NETWORKS`.
        method: A key of `METHODS`.
        dtype: Dtype of the activations.
        shares: Whether the step reports flips, saturation and zero gradients.
    """
    module = models.create(
        network,
        num_classes=10,
        dtype=jnp.dtype(dtype),
        **NETWORKS[network].options,
    )
    arrays = batch(network)
    variables = dict(module.init(jax.random.key(0), arrays["image"][:1], train=False))
    params = variables.pop("params")
    tx, estimator, hyperparameters = METHODS[method]()
    step = train.make_train_step(
        linen.functional(module),
        tx,
        estimator=estimator,
        hyperparameters=hyperparameters,
        deployed_pass=method == TWO_PASSES,
        report="full" if shares else "short",
    )
    state = train.TrainState.create(
        params, tx, key=jax.random.key(1), model_state=variables
    )
    holder = [state]

    def take():
        holder[0], report = step(holder[0], arrays)
        jax.block_until_ready((holder[0], report))

    return take


def ratio(seconds: np.ndarray, column: int, base: int) -> tuple[float, float, float]:
    """Ratio of the medians of two columns, and its 95 % bootstrap interval.

    Args:
        seconds: Times [rounds, columns]; a round is drawn as a whole.
        column: Column of the numerator.
        base: Column of the denominator.
    """
    rng = np.random.default_rng(0)
    rows = rng.integers(len(seconds), size=(2000, len(seconds)))
    medians = np.median(seconds[rows], axis=1)
    low, high = np.percentile(medians[:, column] / medians[:, base], [2.5, 97.5])
    whole = np.median(seconds, axis=0)
    return float(whole[column] / whole[base]), float(low), float(high)
