"""The graph of a network: what exporters to other engines read.

`trace` runs the forward pass of evaluation through `jax.make_jaxpr` at the weights that
are shipped, and rewrites the program in the few operations below. A program is walked
and not a module, so any function of JAX can be exported; a layer needs no rule of its
own. Everything that does not depend on the input is computed, so a batch norm is one
`mul` and one `add`. The batch stays free: it is a symbol in the shapes, as `"batch"` or
`"4*batch"`.

The operations. Images are channels-last, kernels [..., in, out]. Numbers are float32,
int32 or bool; narrower floats of the network become float32, and so do float64.

| operations | inputs | attributes |
| --- | --- | --- |
| abs ceil cos erf exp floor log logistic neg not round sign sin sqrt tanh | x | |
| add and div eq ge gt le lt max min mul ne or pow sub | x, y; shapes broadcast | |
| where | condition, x, y; shapes broadcast | |
| cast | x | dtype |
| reshape, expand | x | shape |
| transpose | x | permutation |
| slice | x | starts, limits, strides |
| pad | x | low, high, value |
| concatenate | x, ... | axis |
| take | x, indices; both whole, in range | axis |
| reduce_sum reduce_max reduce_min | x; the axes go | axes |
| argmax argmin | x; the axis goes | axis |
| gelu gelu_tanh | x; exact, and with tanh in the place of erf | |
| softmax | x; over the last axis | |
| layer_norm | x, scale; over the last axis, without a shift | epsilon |
| matmul | x [..., m, k] or [..., k], y [..., k, n] | |
| conv | x [n, ..., in], kernel [..., in / groups, out] | strides, padding, \
dilation, groups |
| max_pool sum_pool | x [n, ..., channels] | window, strides, padding |

`round` goes to even, integers are divided towards zero, and `rem` is what is left.
`padding` has a pair for each spatial axis. `matmul` is that of NumPy, but its second
operand is no vector.
"""

import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core, source_info_util
from jax.interpreters import partial_eval
from jax.typing import DTypeLike

from adaste_jax import _paths, methods
from adaste_jax.export import _encode, _graph_passes, _graph_rules
from adaste_jax.export._graph_build import BATCH, Builder, Value
from adaste_jax.export._graph_ops import Graph


class UnsupportedError(ValueError):
    """A network has an operation that the exporters do not know.

    It names the operation, the module and the line; `docs/engines.md` says what can be
    exported.
    """


def trace(
    network: Any,
    params: Any,
    model_state: Any = None,
    *,
    input_shape: Sequence[int],
    input_dtype: DTypeLike = jnp.float32,
    method: methods.Method | None = None,
) -> Graph:
    """The graph of a network in evaluation mode.

    Args:
        network: A Linen module, an NNX module, or a function: `forward(params,
            inputs)`, `forward(params, model_state, inputs)` where a model state is
            given, or one that `train.make_train_step` takes.
        params: The weights that are shipped, or with a `method` its latents.
        model_state: What else the network needs; of an NNX module by default its own.
        input_shape: Shape of one example. The batch is one axis more, at the front.
        input_dtype: Of the inputs.
        method: The method that trained the network.

    Returns:
        The graph. Leaves of `params` that it uses as they are keep their paths as the
        names of constants.

    Raises:
        UnsupportedError: If there is an operation that is not in the table above. It
            names the primitive of JAX, the module, and the line.
        ValueError: If a number is not finite.
    """
    _encode.require_finite(params=params, model_state=model_state)
    forward, model_state = _function(network, model_state)
    if method is not None:
        params = method.deploy(params)
    (batch,) = jax.export.symbolic_shape(BATCH)
    shape = (batch, *map(operator.index, input_shape))
    inputs = jax.ShapeDtypeStruct(shape, input_dtype)  # type: ignore[no-untyped-call]
    program = jax.make_jaxpr(forward)(params, model_state, inputs)
    leaves = jax.tree.leaves((params, model_state))
    walk = Walk()
    known = [walk.constant(np.asarray(leaf)) for leaf in leaves]
    entered = walk.input(inputs.shape, inputs.dtype)
    needed = [True] * len(program.jaxpr.outvars)
    jaxpr, _ = partial_eval.dce_jaxpr(program.jaxpr, needed, instantiate=True)
    outputs = walk.run(jaxpr, program.consts, [*known, entered], "")
    names = dict(zip(_paths.distinct(params), jax.tree.leaves(params), strict=True))
    return _graph_passes.clean(walk.finish(outputs, names))


def _function(network: Any, model_state: Any) -> tuple[Callable[..., Any], Any]:
    """`(params, model_state, inputs) -> outputs`, and the model state."""
    modules = [f"{base.__module__}." for base in type(network).__mro__]
    if any(name.startswith("flax.linen.") for name in modules):
        from adaste_jax.nn import linen

        network, model_state = linen.functional(network), model_state or {}
    elif any(name.startswith("flax.nnx.") for name in modules):
        from adaste_jax.nn import nnx

        network, _, own = nnx.functional(network)
        model_state = own if model_state is None else model_state
    try:
        inspect.signature(network).bind(None, None, None, train=False, key=None)
    except (TypeError, ValueError):
        if model_state is None:
            return lambda params, _, inputs: network(params, inputs), None
        return network, model_state
    return (
        lambda *arguments: network(*arguments, train=False, key=None)[0]
    ), model_state


class Walk(Builder):
    """Programs and the programs within them."""

    def __init__(self) -> None:
        """Starts an empty graph."""
        super().__init__()
        self._equations: list[core.JaxprEqn] = []  # this one, and those it is within

    def run(
        self, jaxpr: core.Jaxpr, consts: Any, values: Sequence[Value], where: str
    ) -> list[Value]:
        """Walks a program.

        Args:
            jaxpr: The program.
            consts: Values of its constants.
            values: Its inputs.
            where: The module it is part of.
        """
        known: dict[Any, Value] = {}

        def read(variable: Any) -> Value:
            if isinstance(variable, core.Literal):
                return self.constant(
                    np.asarray(variable.val, jnp.result_type(variable.aval))
                )
            return known[variable]

        known |= zip(jaxpr.constvars, map(self.constant, consts), strict=True)
        known |= zip(jaxpr.invars, values, strict=True)
        for equation in jaxpr.eqns:
            inner = str(equation.source_info.name_stack)
            self.where = inner or where
            self._equations.append(equation)
            inputs = [read(v) for v in equation.invars]
            try:
                found = self._equation(equation, inputs)
            except NotImplementedError as error:
                raise UnsupportedError(
                    f"cannot export the operation {equation.primitive.name!r}: "
                    f"{error}. It stands in {self.where or 'the network'!r}, at "
                    f"{self._line()}. Write it in "
                    "other operations, or leave it out of the exported function; "
                    "docs/engines.md says what is known."
                ) from error
            self._equations.pop()
            outputs = [found] if isinstance(found, Value) else found
            known |= zip(equation.outvars, outputs, strict=True)
        return [read(v) for v in jaxpr.outvars]

    def _line(self) -> str:
        """Where the equation stands: JAX knows it for it or for what it is within."""
        lines = [source_info_util.summarize(e.source_info) for e in self._equations]
        return next((line for line in reversed(lines) if line), "an unknown line")

    def _equation(
        self, equation: core.JaxprEqn, inputs: list[Value]
    ) -> Value | Sequence[Value]:
        name, params = equation.primitive.name, equation.params
        if name in CALLS:
            inner = params["jaxpr" if "jaxpr" in params else "call_jaxpr"]
            return self.run(*_opened(inner), inputs, self.where)
        if name == "scan":
            return self._scan(params, inputs)
        if name not in _graph_rules.RULES:
            raise NotImplementedError("it is not known")
        return _graph_rules.RULES[name](self, equation, *inputs)

    def _scan(self, params: dict[str, Any], inputs: list[Value]) -> list[Value]:
        """A loop of known length, step after step."""
        inner, length = params["jaxpr"], params["length"]
        if "ft_in" in params:  # JAX 0.12
            first, carried, _ = map(len, params["ft_in"].unpack())
        else:
            first, carried = params["num_consts"], params["num_carry"]
        last = first + carried
        consts, carry, rows = inputs[:first], inputs[first:last], inputs[last:]
        steps: list[Any] = [None] * length
        where = self.where
        for step in reversed(range(length)) if params["reverse"] else range(length):
            here = [self.row(value, step) for value in rows]
            found = self.run(*_opened(inner), [*consts, *carry, *here], where)
            carry, steps[step] = found[: len(carry)], found[len(carry) :]
        stacked = [self.stack(parts) for parts in zip(*steps, strict=True)]
        return [*carry, *stacked]


def _opened(inner: Any) -> tuple[core.Jaxpr, Sequence[Any]]:
    """A program within another, and its constants."""
    if isinstance(inner, core.Jaxpr):
        return inner, ()
    return inner.jaxpr, inner.consts


CALLS = {
    "checkpoint",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "jit",
    "pjit",
    "remat",
    "remat2",
}
"""Primitives that are a call of a program."""
