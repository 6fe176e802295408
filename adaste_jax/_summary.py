"""The cost of a network, any function of a tree: parameters, bytes, multiply-adds.

The function is traced, so this module needs no knowledge of layers; see
`_multiply_adds`.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from adaste_jax import _multiply_adds, _native, _paths, methods

ACTIVATIONS = "(activations)"
"""The row of products between activations, as in attention."""

_COUNTED = ("parameters", "bytes", "float32_bytes", "multiply_adds")
_HEAD = ("parameter", "shape", "bits", *_COUNTED[:2], "float32 bytes", "multiply-adds")


@dataclasses.dataclass(frozen=True)
class Row:
    """One leaf of the parameters.

    Attributes:
        path: Path of the leaf in the tree.
        shape: Shape of the leaf.
        one_bit: Whether the leaf is deployed with one bit a weight, or ternary.
        parameters: Number of entries.
        bytes: Size as deployed. A binary weight takes one bit, a ternary one 1.6, in
            whole bytes, plus scales; other leaves keep their dtype.
        float32_bytes: Size in float32.
        multiply_adds: Multiply-adds of products with this leaf, for one example.
        bits: Bits per weight as deployed, scales included.
    """

    path: str
    shape: tuple[int, ...]
    one_bit: bool
    parameters: int
    bytes: int
    float32_bytes: int
    multiply_adds: int
    bits: float


@dataclasses.dataclass(frozen=True)
class Summary:
    """The rows of all leaves, and their totals. `str` gives a table.

    Below it stands what `adaste-jax-cpu` does on this machine, where it is installed.

    Attributes:
        rows: A row for each leaf, in the order of the tree.
        activation_multiply_adds: Multiply-adds of products without a parameter, for one
            example.
        notes: What could not be counted in full; empty for most networks.
    """

    rows: tuple[Row, ...]
    activation_multiply_adds: int
    notes: tuple[str, ...] = ()

    @property
    def one_bit_parameters(self) -> int:
        """Number of weights of one bit."""
        return sum(row.parameters for row in self.rows if row.one_bit)

    @property
    def real_parameters(self) -> int:
        """Number of all other parameters."""
        return sum(row.parameters for row in self.rows if not row.one_bit)

    @property
    def bytes(self) -> int:
        """Size of all leaves as deployed."""
        return sum(row.bytes for row in self.rows)

    @property
    def float32_bytes(self) -> int:
        """Size of all leaves in float32."""
        return sum(row.float32_bytes for row in self.rows)

    @property
    def one_bit_multiply_adds(self) -> int:
        """Multiply-adds with one-bit weights: additions and subtractions."""
        return sum(row.multiply_adds for row in self.rows if row.one_bit)

    @property
    def real_multiply_adds(self) -> int:
        """All other multiply-adds, those between activations included."""
        real = sum(row.multiply_adds for row in self.rows if not row.one_bit)
        return real + self.activation_multiply_adds

    def as_dict(self) -> dict[str, Any]:
        """Rows and totals in plain Python, ready for JSON."""
        totals = (
            "one_bit_parameters",
            "real_parameters",
            "bytes",
            "float32_bytes",
            "one_bit_multiply_adds",
            "real_multiply_adds",
        )
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in totals}

    def __str__(self) -> str:
        def numbers(rows: Sequence[Row], more: int = 0) -> list[str]:
            *sums, products = (
                sum(getattr(row, name) for row in rows) for name in _COUNTED
            )
            return [f"{number:,}" for number in (*sums, products + more)]

        more = self.activation_multiply_adds
        lines = [
            (
                row.path,
                " x ".join(map(str, row.shape)),
                f"{row.bits:g}",
                *numbers([row]),
            )
            for row in self.rows
        ]
        if more:
            lines.append((ACTIVATIONS, "", "", "", "", "", f"{more:,}"))
        one_bit = [row for row in self.rows if row.one_bit]
        real = [row for row in self.rows if not row.one_bit]
        lines.append(("one bit", "", "", *numbers(one_bit)))
        lines.append(("real", "", "", *numbers(real, more)))
        lines.append(("total", "", "", *numbers(self.rows, more)))
        native = filter(None, [_native.describe()])
        table = _table(_HEAD, lines, totals=3)
        return "\n".join([*table, *self.notes, *native])


def summary(
    forward: Callable[..., Any],
    params: Any,
    *inputs: Any,
    method: methods.Method | None = None,
    where: _paths.Where | bool | None = None,
    scale_dtype: DTypeLike | None = None,
) -> Summary:
    """Counts the parameters, bytes and multiply-adds of a network.

    `forward` is traced, not run. It counts matrix products and convolutions, including
    padding and the holes of dilated inputs. A product belongs to the parameter from
    which an operand is computed without the inputs (by a cast, a sign, a scale, a
    slice). A product of several parameters belongs to a one-bit parameter before a real
    one, and then to the largest. The body of `scan` counts as often as it runs, that of
    `while` once, and `cond` as its largest branch.

    Args:
        forward: A function of `params` and `inputs`: Linen's `apply`, an NNX module
            after `nnx.merge`, or any other.
        params: Any pytree of arrays or `jax.ShapeDtypeStruct`: latents, or deployed
            weights.
        *inputs: Arrays or `jax.ShapeDtypeStruct`, or trees of them, each with a leading
            batch axis. Multiply-adds are divided by the size of the batch.
        method: The training method. It says which leaves have one bit, whether they are
            ternary, and how many scales they have. Ternary weights are listed with the
            one-bit weights, at 1.6 bits each.
        where: The one-bit leaves, if no method is given: regular expressions on the
            path, a tree of booleans, or a function from the tree to one; `False` for
            none. Default: all leaves called `kernel`.
        scale_dtype: Dtype of the stored scales; default that of the leaf. Groups of 128
            take 1.25 bits a weight with float32, 1.125 with float16.

    Returns:
        A `Summary`. Print it, or read its attributes.

    Raises:
        TypeError: If `method` comes with `where`.
        ValueError: If the inputs have no common leading axis, or `where` selects
            nothing.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> params = {"kernel": jnp.ones((64, 10)), "bias": jnp.ones((1, 10))}
        >>> forward = lambda params, x: x @ params["kernel"] + params["bias"]
        >>> images = jax.ShapeDtypeStruct((32, 64), jnp.float32)
        >>> table = summary(forward, params, images)
        >>> table.one_bit_parameters, table.bytes, table.one_bit_multiply_adds
        (640, 120, 640)
    """
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(inputs)}
    if len(sizes) != 1 or sizes & {(), (0,)}:
        raise ValueError(
            "the inputs need one leading axis, that of the batch; their shapes are "
            f"{jax.tree.map(np.shape, inputs)}."
        )
    ((batch,),) = sizes
    leaves = jax.tree.leaves(params)
    if where is False and method is None:
        one_bit = [False] * len(leaves)
    else:
        one_bit = jax.tree.leaves(_paths.select(params, where, method))
    traced = jax.make_jaxpr(forward)(params, *inputs)
    of_leaves, of_activations, notes = _multiply_adds.count(traced.jaxpr, one_bit)
    rows = tuple(
        _row(path, leaf, bit, round(number / batch), method, scale_dtype)
        for path, leaf, bit, number in zip(
            _paths.distinct(params), leaves, one_bit, of_leaves, strict=True
        )
    )
    return Summary(rows, round(of_activations / batch), notes)


def _row(
    path: str,
    leaf: Any,
    one_bit: bool,
    multiply_adds: int,
    method: methods.Method | None,
    scale_dtype: DTypeLike | None,
) -> Row:
    size, per_byte, scales, itemsize = math.prod(leaf.shape), 8, 0, leaf.dtype.itemsize
    if not one_bit:
        bits, deployed = 8.0 * itemsize, size * itemsize
    else:
        if method is not None:
            per_byte = {2: 8, 3: 5}[method.levels]
            itemsize = np.dtype(scale_dtype or leaf.dtype).itemsize
            scales = itemsize * method.scales(leaf.shape)
        bits = 8 / per_byte + 8 * scales / max(size, 1)
        deployed = math.ceil(size / per_byte) + scales
    return Row(path, leaf.shape, one_bit, size, deployed, 4 * size, multiply_adds, bits)


def _table(
    head: Sequence[str], lines: Sequence[Sequence[str]], *, totals: int
) -> list[str]:
    """Columns of equal width: two of words, then numbers; the last lines are totals."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    text = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (head, *lines)
    ]
    rule = "-" * max(map(len, text))
    return [text[0], rule, *text[1:-totals], rule, *text[-totals:]]
