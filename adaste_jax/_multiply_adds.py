"""Counts the multiply-adds of a traced program, parameter by parameter.

Products are found in the program (a jaxpr) and in the programs within it. Each belongs
to the parameter from which one of its operands is computed without the inputs, for
example by a cast, a sign, a scale, a transposition or a slice.
"""

import collections
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax.extend.core as jax_core
from jax.extend.core import primitives

# Where a value comes from: the index of a leaf of the parameters, or one of these.
_CONSTANT = -2
_INPUTS = -1

# Multiply-adds by the source that they belong to.
_Tally = collections.Counter[int]


def count(
    program: jax_core.Jaxpr, one_bit: Sequence[bool]
) -> tuple[list[int], int, tuple[str, ...]]:
    """Counts matrix products and convolutions.

    Args:
        program: A function of the leaves of the parameters and further inputs.
        one_bit: For each of these leaves, whether it has one bit a weight. A product of
            several leaves belongs to such a leaf before a real one, and then to the
            largest.

    Returns:
        Multiply-adds of each leaf, of products without a leaf, and notes on what was
        not counted in full.
    """
    walk = _Walk(program, one_bit)
    leaves = range(len(one_bit))
    inputs = [_INPUTS] * (len(program.invars) - len(one_bit))
    _, tally = walk.program(program, [*leaves, *inputs])
    return [tally[i] for i in leaves], tally[_INPUTS], tuple(sorted(walk.notes))


class _Walk:
    """Follows the sources of values through a program, and counts its products."""

    def __init__(self, program: jax_core.Jaxpr, one_bit: Sequence[bool]):
        self.notes: set[str] = set()
        self._one_bit = one_bit
        self._sizes = [math.prod(_shape(value)) for value in program.invars]

    def program(
        self, jaxpr: jax_core.Jaxpr, sources: Iterable[int]
    ) -> tuple[list[int], _Tally]:
        """Sources of the outputs, and the counts, given the sources of the inputs."""
        known = dict(zip(jaxpr.invars, sources, strict=True))

        def source(value: Any) -> int:
            if isinstance(value, jax_core.Literal):
                return _CONSTANT
            return known.get(value, _CONSTANT)

        counts: _Tally = collections.Counter()
        for equation in jaxpr.eqns:
            outputs, inner = self._equation(
                equation, [source(value) for value in equation.invars]
            )
            known.update(zip(equation.outvars, outputs, strict=True))
            counts.update(inner)
        return [source(value) for value in jaxpr.outvars], counts

    def _equation(
        self, equation: jax_core.JaxprEqn, sources: list[int]
    ) -> tuple[list[int], _Tally]:
        primitive, params = equation.primitive, equation.params
        if primitive is primitives.scan_p:
            body = params["jaxpr"].jaxpr
            outputs, counts = self._loop(body, sources, _carried(equation, body))
            times = params["length"]
            return outputs, collections.Counter(
                {key: times * count for key, count in counts.items()}
            )
        if primitive is primitives.while_p:
            return self._while(params, sources)
        if primitive is primitives.cond_p:
            branches = [
                self.program(branch.jaxpr, sources[1:]) for branch in params["branches"]
            ]
            outputs = [
                self._join(column)
                for column in zip(*(outputs for outputs, _ in branches), strict=True)
            ]
            return outputs, max(
                (counts for _, counts in branches), key=collections.Counter.total
            )
        programs = list(jax_core.jaxprs_in_params(params))
        if len(programs) == 1 and _shapes(programs[0]) == _shapes(equation):
            return self.program(programs[0], sources)  # jit, remat, custom_vjp, ...
        for inner in programs:
            _, counts = self.program(inner, [_INPUTS] * len(inner.invars))
            if counts:
                self.notes.add(
                    f"The products within `{primitive.name}` are not counted."
                )
        outputs = [self._join(sources)] * len(equation.outvars)
        return outputs, self._product(equation, sources)

    def _product(self, equation: jax_core.JaxprEqn, sources: list[int]) -> _Tally:
        """Multiply-adds of one equation, none for most."""
        size = math.prod(_shape(equation.outvars[0])) if equation.outvars else 0
        if equation.primitive is primitives.dot_general_p:
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = _shape(equation.invars[0])
            per_output = math.prod(shape[axis] for axis in contracted)
        elif equation.primitive is primitives.conv_general_dilated_p:
            kernel = _shape(equation.invars[1])
            features = equation.params["dimension_numbers"].rhs_spec[0]
            per_output = math.prod(kernel) // kernel[features]
        else:
            return collections.Counter()
        leaves = [source for source in sources if source >= 0]
        owner = self._join(leaves) if leaves else _INPUTS
        return collections.Counter({owner: size * per_output})

    def _while(self, params: Any, sources: list[int]) -> tuple[list[int], _Tally]:
        carries = len(params["body_jaxpr"].jaxpr.outvars)
        test = len(params["cond_jaxpr"].jaxpr.invars) - carries
        body = len(params["body_jaxpr"].jaxpr.invars) - carries
        carry = sources[test + body :]
        outputs, counts = self._loop(
            params["body_jaxpr"].jaxpr,
            sources[test:],
            slice(body, body + len(carry)),
        )
        _, tested = self.program(
            params["cond_jaxpr"].jaxpr, [*sources[:test], *outputs]
        )
        counts = counts + tested
        if counts:
            self.notes.add("The products within `while` loops are counted once.")
        return outputs, counts

    def _loop(
        self, body: jax_core.Jaxpr, sources: list[int], carried: slice
    ) -> tuple[list[int], _Tally]:
        """One turn of a loop; the sources are those after any number of turns."""
        while True:
            outputs, counts = self.program(body, sources)
            before = sources[carried]
            after = [
                self._join(pair)
                for pair in zip(before, outputs[: len(before)], strict=True)
            ]
            if after == before:
                return outputs, counts
            sources = [*sources[: carried.start], *after, *sources[carried.stop :]]

    def _join(self, sources: Iterable[int]) -> int:
        """The source of a value that is computed from several."""
        return max(sources, key=self._precedence, default=_CONSTANT)

    def _precedence(self, source: int) -> tuple[int, bool, int, int]:
        if source < 0:
            return (2 if source == _INPUTS else 0), False, 0, 0
        return 1, self._one_bit[source], self._sizes[source], -source


def _carried(scan: jax_core.JaxprEqn, body: jax_core.Jaxpr) -> slice:
    """Which inputs of a scan are its carry.

    Read from the shapes, since the parameters of `scan` that say so have other names in
    other versions of JAX. What is scanned over, or stacked, has one axis more outside.
    """
    outside = [len(_shape(value)) for value in (*scan.outvars, *scan.invars)]
    inside = [len(_shape(value)) for value in (*body.outvars, *body.invars)]
    same = [out == into for out, into in zip(outside, inside, strict=True)]
    carries = sum(same[: len(body.outvars)])
    whole = sum(same[len(body.outvars) :])
    return slice(whole - carries, whole)


def _shape(value: Any) -> tuple[int, ...]:
    return getattr(value.aval, "shape", ())


def _shapes(program: jax_core.Jaxpr | jax_core.JaxprEqn) -> list[tuple[int, ...]]:
    return [_shape(value) for value in program.invars]
