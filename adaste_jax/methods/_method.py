"""What a method is, and the keywords that all of them take."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypedDict

import jax
import optax

from adaste_jax import _paths

NEVER = 2**31 - 1
"""A step that no run reaches: `Method.binary_from` where training weights stay soft."""

Scales: TypeAlias = Callable[[tuple[int, ...]], int]
"""From the shape of a leaf to the number of its scales."""

Rate: TypeAlias = optax.ScalarOrSchedule
"""A learning rate: a number, from which a cosine falls to 0, or a schedule of the step.
A schedule is used unchanged, except for the warm-up."""


Optimiser: TypeAlias = Callable[[optax.Schedule], optax.GradientTransformation]
"""From the schedule of a learning rate to an Optax transformation."""


def no_scales(shape: tuple[int, ...]) -> int:
    """Signs have no scales."""
    return 0


def by_channel(shape: tuple[int, ...]) -> int:
    """One scale for each entry of the last axis."""
    return math.prod(shape[-1:])


def by_tensor(shape: tuple[int, ...]) -> int:
    """One scale."""
    return 1


class Method(NamedTuple):
    """A training method, as functions of the whole tree of parameters.

    One step of training, with the gradient taken at the weights, is

        weights, pull = jax.vjp(lambda p: method.weights(p, step), params)
        grads = jax.grad(loss)(weights)    # averaged over the whole batch
        updates, state = method.tx.update(
            *pull(grads), state, params, weights=weights, step=step)

    Attributes:
        init: `(key, params, trained=False) -> params`. Makes initial latents from the
            initial parameters of a network. With `trained=True` it makes them from
            those of a trained network, and keeps their signs.
        weights: `(params, step, key=None) -> params`. What the network sees in step
            `step` (from 0). Only a `random` method uses the key.
        tx: Optax transformation of all parameters. Its `update` takes the extra
            arguments `weights` and `step`. Every schedule in it is read at `step`, so
            that the loss and the rule use the same values, also inside
            `optax.MultiSteps` and `optax.apply_if_finite`. Without `step`, schedules
            count updates, as in Optax. Wrap it by `method._replace(tx=...)`.
        deploy: `params -> params`. The weights that are shipped.
        where: `params -> tree of booleans`. Which leaves are latents: those that are
            packed and counted. All false in full precision.
        values: `step -> dict`. The schedules that `weights` reads, for reports.
        binary_from: The step from which `weights` and `deploy` agree, or `NEVER`.
        additive: Whether the backward rule of a mean of gradients is the mean of the
            rules. If not, average before the rule, never after it. None if this is not
            known; then the step tests it.
        random: Whether `weights` needs a key, a new one in every step.
        deployed_pass: Whether a step ends with a forward pass at the deployed weights,
            which sets the batch-norm statistics.
        levels: Number of values that a shipped weight can have, up to its scale: 2, or
            3 for ternary weights. `summary` uses it.
        scales: `shape of a leaf -> number`. How many scales are shipped with the
            weights of a leaf.
    """

    init: Callable[..., Any]
    weights: Callable[..., Any]
    tx: optax.GradientTransformationExtraArgs
    deploy: Callable[[Any], Any]
    where: Callable[[Any], Any]
    values: Callable[[Any], dict[str, jax.Array]]
    binary_from: int = 0
    additive: bool | None = True
    random: bool = False
    deployed_pass: bool = False
    levels: int = 2
    scales: Scales = no_scales

    @property
    def statistics_from(self) -> int:
        """From this step on batch-norm statistics are those of deployed weights."""
        return 0 if self.deployed_pass else self.binary_from


class Run(TypedDict, total=False):
    """Keywords that every method takes; `adaste_jax.methods` describes them."""

    where: _paths.Where | None
    real_learning_rate: Rate
    warmup_steps: int
    steps_per_epoch: int | None
    num_examples: int | None
    optimiser: Optimiser


@dataclasses.dataclass(frozen=True)
class Length:
    """How long a run is, and the values of the keywords of `Run`."""

    steps: int
    where: _paths.Where | None = None
    real_learning_rate: Rate = 1e-3
    warmup_steps: int = 0
    steps_per_epoch: int | None = None
    num_examples: int | None = None
    optimiser: Optimiser = optax.adam

    def __post_init__(self) -> None:
        """Checks the range of lengths."""
        check(self.steps >= 1, "steps", self.steps, "at least 1")
        check(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "at least 0")
        for name in ("steps_per_epoch", "num_examples"):
            value = getattr(self, name)
            check(value is None or value >= 1, name, value, "None or at least 1")

    @property
    def examples(self) -> int:
        """Number of training examples; that of CIFAR without `num_examples`."""
        return self.num_examples or 50_000

    def epochs(self, published: int | None = None) -> tuple[int, int]:
        """Epochs in the run and steps in each; see `steps_per_epoch` of `methods`."""
        steps = self.steps_per_epoch or self.steps // (published or self.steps) or 1
        return -(-self.steps // steps), steps


def length_of(steps: int, run: Mapping[str, Any]) -> Length:
    """The length of a run, from `steps` and the keywords of `Run`.

    Raises:
        TypeError: If there is a keyword that no method has.
        ValueError: If a value is out of range.
    """
    unknown = sorted(run.keys() - Run.__annotations__.keys())
    if unknown:
        raise TypeError(
            f"unknown options {unknown}: a method takes its own, which its docstring "
            f"lists, and {', '.join(Run.__annotations__)}."
        )
    return Length(steps, **run)


def check(holds: bool, name: str, value: Any, expected: str) -> None:
    """Checks that an option is in range and finite.

    Raises:
        ValueError: If it is not. The message has the name, the expected range and the
            value.
    """
    if not holds or (isinstance(value, float) and math.isinf(value)):
        raise ValueError(f"`{name}` must be {expected}, got {value!r}.")
