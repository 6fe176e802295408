"""PyTorch, then one bit a weight, then ONNX, on the handwritten digits.

    python -m benchmarks.from_torch --seeds=5

Trains a small convolutional network in PyTorch, takes it over by `from_torch`,
fine-tunes it to one bit, writes ONNX and runs that in ONNX Runtime. Prints the tables
of `docs/results/from_torch.md`: test accuracy after the last step, mean and standard
deviation over seeds. Nothing is chosen on test images. A seed decides the first
weights and the order of the examples.
"""

import argparse
import dataclasses
import functools
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import onnxruntime
import torch
from flax import linen as nn

import adaste_jax
from adaste_jax import datasets, export, methods, train

(IMAGES, LABELS), (TEST_IMAGES, TEST_LABELS) = [
    (images.astype(np.float32) / 16, labels.astype(np.int64))
    for images, labels in datasets.digits().values()
]
BATCH = 64
NAMES = {
    **{"Conv_0": "0", "BatchNorm_0": "1", "Conv_1": "3", "BatchNorm_1": "4"},
    "Dense_0": "7",
}


class Network(nn.Module):
    """The network that `there` makes, in Flax."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Logits."""
        for features, stride in ((16, 1), (32, 2)):
            x = nn.Conv(features, (3, 3), strides=stride, padding=1)(x)
            norm = nn.BatchNorm(use_running_average=not train, momentum=0.9)
            x = nn.relu(norm(x))
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


NETWORK = Network()


def there() -> torch.nn.Module:
    """The network in PyTorch."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.BatchNorm2d(16),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, stride=2, padding=1),
        torch.nn.BatchNorm2d(32),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(32 * 4 * 4, 10),
    )


def first(images: np.ndarray) -> torch.Tensor:
    """Images with the channels first."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def train_there(seed: int, steps: int) -> torch.nn.Module:
    """The network trained in PyTorch, in full precision."""
    torch.manual_seed(seed)
    network = there()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    loss = torch.nn.CrossEntropyLoss()
    for images, labels in _batches(seed, steps):
        optimizer.zero_grad()
        loss(network(first(images)), torch.from_numpy(labels)).backward()
        optimizer.step()
        rates.step()
    return network.eval()


def _batches(seed: int, steps: int) -> Any:
    return datasets.batches(IMAGES, LABELS, batch_size=BATCH, steps=steps, seed=seed)


def accuracy(logits: np.ndarray) -> float:
    """Test accuracy in %."""
    return 100 * float(np.mean(np.argmax(logits, axis=-1) == TEST_LABELS))


def fit(
    method: methods.Method, seed: int, steps: int, variables: Any = None
) -> train.TrainState:
    """The state after so many steps, from a float network or from scratch.

    Statistics of batch norm are those of the shipped weights.
    """
    start: dict[str, Any] = {}
    if variables is not None:
        start["params"] = variables["params"]
        start["model_state"] = {"batch_stats": variables["batch_stats"]}
        start["trained"] = True
    state = train.init(NETWORK, method, IMAGES, key=jax.random.key(seed), **start)
    step = train.make_train_step(NETWORK, method, report="short")
    for batch in _batches(1000 + seed, steps):
        state, _ = step(state, *batch)
    model_state = train.reestimate_statistics(NETWORK, method, state, IMAGES)
    return dataclasses.replace(state, model_state=model_state)


def logits_of(method: methods.Method, state: train.TrainState) -> np.ndarray:
    """Logits of the shipped network on the test images."""
    variables = {"params": method.deploy(state.params), **state.model_state}
    return np.asarray(NETWORK.apply(variables, TEST_IMAGES, train=False))


KINDS: dict[str, Callable[[int], methods.Method]] = {
    "`adaste`": methods.adaste,
    "`adaste`, last layer real": functools.partial(
        methods.adaste, where=adaste_jax.kernels(exclude="Dense_0")
    ),
    "`scaled_sign`": methods.scaled_sign,
    "`parq`": methods.parq,
}


def measure(seed: int, steps: int) -> tuple[dict[str, dict[str, float]], float]:
    """Accuracy of every stage, by row and column; and the largest error of a logit."""
    float_there = train_there(seed, steps)
    with torch.no_grad():
        expected = float_there(first(TEST_IMAGES)).numpy()
    shape = jax.ShapeDtypeStruct(IMAGES[:1].shape, IMAGES.dtype)
    init = functools.partial(NETWORK.init, train=False)
    like = jax.eval_shape(init, jax.random.key(0), shape)
    variables = adaste_jax.from_torch(
        float_there.state_dict(), like, names=NAMES, flattened={"Dense_0": (32, 4, 4)}
    )
    found = np.asarray(NETWORK.apply(variables, TEST_IMAGES, train=False))
    rows = {
        "float": {"PyTorch": accuracy(expected), "JAX": accuracy(found)},
    }
    worst = float(np.abs(found - expected).max())
    for name, kind in KINDS.items():
        method = kind(steps)
        signs = fit(method, seed, 0, variables)
        tuned = fit(method, seed, steps, variables)
        scratch = fit(method, seed, steps)
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            model = export.to_onnx(
                NETWORK,
                tuned.params,
                tuned.model_state,
                method=method,
                input_shape=IMAGES.shape[1:],
                path=file.name,
            )
            session = onnxruntime.InferenceSession(file.name)
        (logits,) = session.run(None, {"input": TEST_IMAGES})
        worst = max(worst, float(np.abs(logits - logits_of(method, tuned)).max()))
        rows[name] = {
            "signs only": accuracy(logits_of(method, signs)),
            "from scratch": accuracy(logits_of(method, scratch)),
            "from float": accuracy(logits_of(method, tuned)),
            "ONNX Runtime": accuracy(logits),
            "bytes of the ONNX file": len(model),
        }
    return rows, worst


def main() -> None:
    """Prints a table for each stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs, worst = [], 0.0
    for seed in range(arguments.seeds):
        found, difference = measure(seed, arguments.steps)
        runs.append(found)
        worst = max(worst, difference)
    for names in (["float"], list(KINDS)):
        columns = list(runs[0][names[0]])
        print(f"| weights | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
        for name in names:
            cells = []
            for column in columns:
                values = [run[name][column] for run in runs]
                mean, spread = np.mean(values), np.std(values, ddof=len(values) > 1)
                whole = column.startswith("bytes")
                cells.append(f"{mean:,.0f}" if whole else f"{mean:.2f} ± {spread:.2f}")
            print(f"| {name} | {' | '.join(cells)} |")
        print()
    print(f"Largest difference of a logit, between engines: {worst:.1e}")


if __name__ == "__main__":
    main()
