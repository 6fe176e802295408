"""Checks whether the tensors of a file are those of the network it describes.

Only shapes are used, so a file of a few kilobytes cannot make this program allocate
gigabytes.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.extend import core

from adaste_jax import export
from experiments import errors
from experiments.deployment import deployed, description

_BATCH_BYTES = 2**29
_ARRAY_LIMIT = 2**31


def check(described: Mapping[str, Any], params: Any, model_state: Any) -> None:
    """Compares a description with the tensors of its file; allocates nothing.

    Args:
        described: Metadata of a file.
        params: Parameters in the file.
        model_state: Model state in the file.

    Raises:
        RunError: If the description is wrong, or is that of another network.
    """
    module = deployed.module_of(described)
    architecture = described["architecture"]
    if not isinstance(params, Mapping) or not isinstance(model_state, Mapping):
        raise errors.RunError("the tensors of the file do not lie in folders.")
    there = {"params": params, **model_state}
    leaves = jax.tree.leaves(there)
    layers = description.num_layers(architecture["options"])
    if layers > len(leaves):
        raise errors.RunError(
            f"the file describes a network of {layers} layers and holds {len(leaves)} "
            "tensors: it was changed, or not written by experiments.export."
        )
    with _building():
        inputs = deployed.network_input(described)
        expected = jax.eval_shape(
            lambda: module.init(jax.random.key(0), inputs, train=False)
        )
        if architecture["folded"]:
            expected = jax.eval_shape(
                lambda variables: export.fold_linen(
                    module, variables, inputs, train=False
                ),
                expected,
            )
    _check_shapes(there, expected)
    with _building():
        call, image = deployed.network(described), deployed.raw_input(described)
        logits = jax.eval_shape(call, params, model_state, image)
    if logits.shape[-1] != architecture["num_classes"]:
        raise errors.RunError(
            f"the network gives {logits.shape[-1]} logits, and "
            f"'architecture.num_classes' is {architecture['num_classes']}."
        )


@contextlib.contextmanager
def _building() -> Iterator[None]:
    """Turns any error into one that says that the description is wrong."""
    try:
        yield
    # Whatever a foreign description breaks in there, the way out is the same.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise errors.RunError(
            "the network that the file describes cannot be built from its tensors "
            f"({reason}): it was changed, or not written by experiments.export."
        ) from error


def batch_size(described: Mapping[str, Any], params: Any, model_state: Any) -> int:
    """Number of inputs that a network can process at once without filling the memory.

    Args:
        described: Metadata that have been checked.
        params: Parameters.
        model_state: Model state.

    Returns:
        The largest number for which no array takes more than half a gigabyte.

    Raises:
        RunError: If a single input needs an array of two gigabytes.
    """
    call, image = deployed.network(described), deployed.raw_input(described)
    program = jax.make_jaxpr(call)(params, model_state, image)
    largest = max(_largest(program.jaxpr), 1)
    if largest > _ARRAY_LIMIT:
        raise errors.RunError(
            f"for one input of shape {described['input']['shape']} the network makes "
            f"an array of {largest:,} bytes, more than the {_ARRAY_LIMIT:,} allowed."
        )
    return max(1, _BATCH_BYTES // largest)


def _largest(jaxpr: Any) -> int:
    """Bytes of the largest value in a program."""
    found = 0
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            if hasattr(variable.aval, "dtype"):
                size = math.prod(variable.aval.shape) * variable.aval.dtype.itemsize
                found = max(found, size)
        for inner in core.jaxprs_in_params(equation.params):
            found = max(found, _largest(inner))
    return found


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the leaves by path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _check_shapes(there: Any, expected: Any) -> None:
    """Compares two trees of variables by path and shape."""
    found, wanted = shapes(there), shapes(expected)
    for path in sorted(found.keys() | wanted.keys()):
        if found.get(path) != wanted.get(path):
            raise errors.RunError(
                f"the file holds {path!r} of shape {found.get(path, 'none at all')}, "
                f"and the network that it describes has {wanted.get(path, 'no such')}."
            )
