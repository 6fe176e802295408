"""The steps of training that the benchmarks time."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adaste_jax import estimators, methods, optim, train
from experiments import models

TWO_PASSES = "AdaSTE, released (two passes)"


class Network(NamedTuple):
    """A network of the benchmarks; `shape` is the shape of a batch."""

    title: str
    options: Mapping[str, Any]
    shape: tuple[int, ...]
    model: str
    classes: int = 10


NETWORKS = {
    "mlp": Network(
        "MLP 784-2048-2048-2048-10",
        {"features": (2048, 2048, 2048)},
        (128, 28, 28, 1),
        "mlp",
    ),
    "vgg_small": Network(
        "VGG-small, quarter width",
        {"width": 32, "dense": 256},
        (128, 32, 32, 3),
        "vgg_small",
    ),
    "resnet18": Network("ResNet-18", {}, (32, 32, 32, 3), "resnet18"),
    "resnet18_128": Network("ResNet-18", {}, (128, 32, 32, 3), "resnet18"),
    "language_model": Network(
        "Language model, 12 layers of 128",
        {"width": 128, "depth": 12, "heads": 4},
        (8, 128),
        "language_model",
        classes=256,
    ),
}


def released() -> methods.Method:
    """The authors' update and its second forward pass."""
    mu = optax.constant_schedule(1.0)
    return methods.from_estimator(
        functools.partial(estimators.adaste_paper, rule="identity"),
        optim.adaste_released(1e-9, mu=mu, grad_scale=1e11),
        schedules={"mu": mu},
        deployed_pass=True,
    )


STEPS = 1000

METHODS = {
    "full precision": lambda: methods.full_precision(STEPS),
    "STE": lambda: methods.ste(STEPS),
    "AdaSTE, recommended": lambda: methods.adaste(STEPS),
    "AdaSTE, adaptive rule": lambda: methods.adaste_paper(STEPS),
    TWO_PASSES: released,
}


def batch(network: str) -> dict[str, np.ndarray]:
    """Random images and labels, or texts and the next tokens."""
    rng = np.random.default_rng(0)
    _, _, shape, _, classes = NETWORKS[network]
    if len(shape) == 2:
        tokens = rng.integers(0, classes, (shape[0], shape[1] + 1)).astype(np.int32)
        return {"image": tokens[:, :-1], "label": tokens[:, 1:]}
    return {
        "image": rng.normal(size=shape).astype(np.float32),
        "label": rng.integers(0, classes, shape[0]).astype(np.int32),
    }


def make(
    network: str, method: str, *, dtype: str = "float32", shares: bool = False
) -> Callable[[], None]:
    """A function that takes one step and waits for it.

    Args:
        network: A key of `NETWORKS`.
        method: A key of `METHODS`.
        dtype: Dtype of the activations.
        shares: Whether the step reports flips, saturation and zero gradients, as often
            as by default.
    """
    case = NETWORKS[network]
    module = models.create(
        case.model, num_classes=case.classes, dtype=jnp.dtype(dtype), **case.options
    )
    arrays = batch(network)
    chosen = METHODS[method]()
    state = train.init(module, chosen, arrays["image"])
    options = {} if shares else {"report": "short"}
    step = train.make_train_step(module, chosen, **options)
    holder = [state]

    def take():
        holder[0], report = step(holder[0], arrays["image"], arrays["label"])
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
