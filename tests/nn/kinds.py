"""Kinds of layers, as Linen and NNX name them, and a convolution by brute force."""

import itertools
from typing import Any, NamedTuple

import numpy as np


class Kind(NamedTuple):
    """A convolution: shapes, and the options that Linen and NNX name alike."""

    spatial: tuple[int, ...]
    channels: int
    features: int
    kernel_size: tuple[int, ...]
    options: dict[str, Any]
    pads: tuple[tuple[int, int], ...]  # what `padding` comes to, worked out by hand


CONVOLUTIONS = {
    "1d": Kind((7,), 3, 4, (3,), {"padding": "SAME"}, ((1, 1),)),
    "2d": Kind((6, 5), 3, 4, (3, 2), {"padding": "SAME"}, ((1, 1), (0, 1))),
    "3d": Kind((3, 4, 2), 2, 3, (2, 2, 2), {"padding": "VALID"}, ((0, 0),) * 3),
    "strided": Kind(
        (7, 6), 2, 3, (3, 3), {"padding": "SAME", "strides": 2}, ((1, 1), (0, 1))
    ),
    "dilated": Kind(
        (7, 7),
        2,
        3,
        (3, 2),
        {"padding": "SAME", "kernel_dilation": (2, 3)},
        ((2, 2), (1, 2)),
    ),
    "grouped": Kind(
        (5, 5), 4, 6, (3, 3), {"padding": 1, "feature_group_count": 2}, ((1, 1),) * 2
    ),
    "depthwise": Kind(
        (5, 4),
        3,
        6,
        (3, 2),
        {"padding": ((2, 0), (0, 1)), "feature_group_count": 3},
        ((2, 0), (0, 1)),
    ),
}


class Product(NamedTuple):
    """A layer with one latent: its name in Flax, its arguments, and its inputs."""

    linen: str
    nnx: str
    inputs: np.ndarray
    linen_options: dict[str, Any]
    nnx_options: dict[str, Any]
    shared: dict[str, Any]  # options that both name alike

    @property
    def init(self) -> str:
        """The option that draws the latents."""
        return "embedding_init" if self.linen == "Embed" else "kernel_init"


def _real(*shape: int) -> np.ndarray:
    """Inputs without symmetry."""
    rng = np.random.default_rng(len(shape) + shape[0])
    return rng.normal(0.3, 1.2, shape).astype(np.float32)


PRODUCTS = {
    "dense": Product(
        "Dense",
        "Linear",
        _real(5, 3),
        {"features": 4},
        {"in_features": 3, "out_features": 4},
        {},
    ),
    "general": Product(
        "DenseGeneral",
        "LinearGeneral",
        _real(2, 3, 5, 4),
        {"features": (2, 3), "axis": (1, -1)},
        {"in_features": (3, 4), "out_features": (2, 3), "axis": (1, -1)},
        {},
    ),
    "batched_general": Product(
        "DenseGeneral",
        "LinearGeneral",
        _real(2, 5, 3),
        {"features": 4, "batch_dims": (0,)},
        {"in_features": 3, "out_features": 4, "batch_axis": {0: 2}},
        {},
    ),
    "transposed": Product(
        "ConvTranspose",
        "ConvTranspose",
        _real(2, 4, 3, 2),
        {"features": 3},
        {"in_features": 2, "out_features": 3},
        {"kernel_size": (3, 2), "strides": (2, 1), "padding": "SAME"},
    ),
    "transposed_kernel": Product(
        "ConvTranspose",
        "ConvTranspose",
        _real(2, 4, 2),
        {"features": 3},
        {"in_features": 2, "out_features": 3},
        {
            "kernel_size": (3,),
            "strides": (2,),
            "padding": "VALID",
            "transpose_kernel": True,
        },
    ),
    "embed": Product(
        "Embed",
        "Embed",
        np.array([[3, 0, 6], [3, 3, 1]], np.int32),  # not all, and one thrice
        {},
        {},
        {"num_embeddings": 7, "features": 4},
    ),
}


def inputs(kind: Kind, seed: int = 0) -> np.ndarray:
    """Two examples of shape [2, *spatial, channels], without symmetry."""
    shape = (2, *kind.spatial, kind.channels)
    return np.random.default_rng(seed).normal(0.3, 1.2, shape).astype(np.float32)


def convolve(
    inputs: np.ndarray, weights: np.ndarray, kind: Kind, padding_value: float = 0.0
) -> np.ndarray:
    """Sum by sum, in float64. Weights have shape [*kernel_size, in / groups, out]."""
    rank = len(kind.kernel_size)

    def each_axis(name):
        value = kind.options.get(name, 1)
        return (value,) * rank if isinstance(value, int) else value

    strides, dilations = each_axis("strides"), each_axis("kernel_dilation")
    groups = kind.options.get("feature_group_count", 1)
    padded = np.pad(
        inputs.astype(np.float64),
        ((0, 0), *kind.pads, (0, 0)),
        constant_values=padding_value,
    )
    per_group_in, features = weights.shape[-2:]
    extents = [
        (k - 1) * d + 1 for k, d in zip(kind.kernel_size, dilations, strict=True)
    ]
    sizes = [
        (n - extent) // stride + 1
        for n, extent, stride in zip(padded.shape[1:-1], extents, strides, strict=True)
    ]
    outputs = np.zeros((len(inputs), *sizes, features))
    for position in itertools.product(*map(range, sizes)):
        for offset in itertools.product(*map(range, kind.kernel_size)):
            place = tuple(
                p * s + o * d
                for p, s, o, d in zip(position, strides, offset, dilations, strict=True)
            )
            for out in range(features):
                first = out // (features // groups) * per_group_in
                channels = slice(first, first + per_group_in)
                seen = padded[(slice(None), *place, channels)]
                weight = weights[(*offset, slice(None), out)].astype(np.float64)
                outputs[(slice(None), *position, out)] += seen @ weight
    return outputs
