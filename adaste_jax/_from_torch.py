"""Weights of PyTorch in the tree of a network here."""

import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaste_jax import _paths

_COLLECTIONS = ("params", "batch_stats")
_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_UNUSED = ".num_batches_tracked"


def from_torch(
    state_dict: Mapping[str, Any],
    like: Any,
    *,
    names: Mapping[str, str] | None = None,
    flattened: Mapping[str, tuple[int, ...]] | None = None,
    transposed: Sequence[str] | str = (),
) -> Any:
    """Turns a state dict of PyTorch into parameters of a network in Flax.

    PyTorch need not be installed: any mapping of names to arrays will do, such as
    `safetensors.numpy.load_file` returns. The real weights that come out serve as
    latents: `train.init(network, method, inputs, params=..., trained=True)`.

    | here | there |
    | --- | --- |
    | `kernel` [in, out] | `weight` [out, in] of `Linear` |
    | `kernel` [h, w, in, out] | `weight` [out, in, h, w] of `Conv2d`; likewise 1d, 3d |
    | the same, flipped | `weight` [in, out, h, w] of `ConvTranspose2d` |
    | `scale`, `bias` | `weight`, `bias` of norms |
    | `mean`, `var` | `running_mean`, `running_var` of batch norm |
    | `embedding` [n, features] | `weight` [n, features] of `Embedding` |
    | `query`, `key`, `value`, `out` | `in_proj_*`, `out_proj` of `MultiheadAttention` |

    A kernel of `DenseGeneral` is the one of a `Linear` in another shape. What else
    differs (padding at stride 2, epsilon, momentum) is in `docs/from_pytorch.md`.

    Args:
        state_dict: Arrays by name, such as `module.state_dict()`.
        like: Tree of arrays or `jax.ShapeDtypeStruct`, whose structure, shapes and
            dtypes the result has: parameters alone; for Linen also
            `{"params": ..., "batch_stats": ...}`; for NNX
            `nnx.state(model, (nnx.Param, nnx.BatchStat))`.
        names: Path of a module or of a group of modules here, and its name in PyTorch:
            `{"Dense_0": "fc1", "blocks/0": "layer1.0"}`. The longest path that fits
            counts; "" stands for the whole. Default: the path here, with dots.
        flattened: For the first dense layer after a convolution, the shape (channels,
            height, width) of what was flattened, by the path of the layer here. PyTorch
            flattens channels first, Flax channels last.
        transposed: Paths of the modules here that are transposed convolutions.

    Returns:
        A tree like `like`.

    Raises:
        ValueError: If arrays are missing or left over, or have another shape, or if a
            path names no module here. The message lists all of them at once.

    Example:
        >>> import numpy as np
        >>> like = {"first": {"kernel": np.zeros((3, 2), np.float32)}}
        >>> there = {"fc.weight": np.ones((2, 3))}
        >>> found = from_torch(there, like, names={"first": "fc"})
        >>> found["first"]["kernel"].shape
        (3, 2)
    """
    names, flattened = dict(names or {}), dict(flattened or {})
    transposed = (transposed,) if isinstance(transposed, str) else tuple(transposed)
    paths = [_path(parts) for parts in _paths.keys(like)]
    modules = {(), *(tuple(path[:end]) for path in paths for end in range(len(path)))}
    for argument in (names, flattened, transposed):
        for module in argument:
            if tuple(filter(None, module.split("/"))) not in modules:
                known = sorted("/".join(path) for path in modules if path)
                raise ValueError(
                    f"no module has the path {module!r}. There are: {known}."
                )

    used: set[str] = set()
    problems: list[str] = []
    leaves = []
    for path, leaf in zip(paths, jax.tree.leaves(like), strict=True):
        module = "/".join(path[:-1])
        name, part = _source(path, names, state_dict)
        if name not in state_dict:
            problems.append(f"{'/'.join(path)!r} needs {name!r}, which is not there")
            continue
        used.add(name)
        array = part(_numpy(state_dict[name], name))
        found = _laid_out(
            array,
            path[-1],
            leaf.shape,
            transposed=module in transposed,
            flattened=flattened.get(module),
        )
        if found is None:
            problems.append(
                f"{name!r} {list(array.shape)} does not fit {'/'.join(path)!r} "
                f"{list(leaf.shape)}"
            )
            continue
        leaves.append(jnp.asarray(found, dtype=leaf.dtype))
    left = [key for key in state_dict if key not in used and not key.endswith(_UNUSED)]
    if left:
        problems.append(f"not used: {', '.join(map(repr, left))}")
    if problems:
        raise ValueError(
            f"the state dict does not fit: {'; '.join(problems)}. `names` says what a "
            "module is called in PyTorch; drop from the state dict, or from `like`, "
            "what is not to be taken over."
        )
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _path(parts: list[str]) -> list[str]:
    """The path of a leaf without the collection, and without the variable of NNX."""
    parts = parts[1:] if parts[0] in _COLLECTIONS else parts
    return parts[:-1] if parts[-1:] == ["value"] else parts


def _source(
    path: list[str], names: Mapping[str, str], state_dict: Mapping[str, Any]
) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """The name of the array of a leaf, and what to take of the array."""
    *module, leaf = path
    leaf = _NAMES.get(leaf, leaf)
    for end in range(len(module), -1, -1):
        there = names.get("/".join(module[:end]))
        if there is not None:
            module = [*filter(None, there.split(".")), *module[end:]]
            break
    plain = ".".join([*module, leaf])
    if plain not in state_dict and module:
        attention = ".".join(module[:-1])
        dot = "." if attention else ""
        joint = f"{attention}{dot}in_proj_{leaf}"
        if module[-1] in ("query", "key", "value") and joint in state_dict:
            number = ("query", "key", "value").index(module[-1])
            return joint, lambda array: np.split(array, 3)[number]
        if module[-1] == "out" and joint in state_dict:
            return f"{attention}{dot}out_proj.{leaf}", np.asarray
    return plain, np.asarray


def _numpy(value: Any, name: str) -> np.ndarray:
    """An array of a state dict."""
    try:
        return np.asarray(value)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"{name!r} cannot be read as a NumPy array ({error}): pass "
            "`tensor.detach().float().cpu()` in its place."
        ) from error


def _laid_out(
    array: np.ndarray,
    leaf: str,
    shape: tuple[int, ...],
    *,
    transposed: bool,
    flattened: tuple[int, ...] | None,
) -> np.ndarray | None:
    """An array in the layout here; None where it cannot have this shape."""
    if leaf != "kernel":
        same = math.prod(shape) == array.size and array.ndim == 1
        return array.reshape(shape) if same else array if array.shape == shape else None
    if array.ndim == 2:
        return _dense(array.T, shape, flattened)
    if array.ndim < 2:
        return None
    space = tuple(range(2, array.ndim))
    if transposed:
        array = np.flip(array.transpose(*space, 0, 1), tuple(range(len(space))))
    else:
        array = array.transpose(*space, 1, 0)
    return array if array.shape == shape else None


def _dense(
    array: np.ndarray, shape: tuple[int, ...], flattened: tuple[int, ...] | None
) -> np.ndarray | None:
    """A matrix [in, out] as the kernel of a dense layer."""
    inputs, outputs = array.shape
    splits = itertools.accumulate((1, *shape), operator.mul)
    if inputs not in splits or inputs * outputs != math.prod(shape):
        return None
    if flattened is not None:
        if math.prod(flattened) != inputs:
            return None
        array = np.moveaxis(array.reshape(*flattened, outputs), 0, -2)
    return array.reshape(shape)
