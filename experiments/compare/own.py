"""A function that compares methods on your own network and data."""

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import rich.console
from flax import linen as nn

from adaste_jax import methods as library
from adaste_jax import train
from adaste_jax.nn import linen, nnx
from experiments import errors, methods
from experiments.compare import entry, search
from experiments.compare.comparison import compare_problems
from experiments.configs import base
from experiments.data import datasets, selection
from experiments.training import checks
from experiments.training.problem import Problem

Own = str | Callable[..., library.Method] | entry.Variant


def compare(
    network: Any,
    data: Mapping[str, tuple[Any, Any]],
    methods: Sequence[str] | Mapping[str, Own],
    workdir: str | os.PathLike[str],
    *,
    num_epochs: int = 10,
    batch_size: int = 128,
    validation: float = 0.1,
    seeds: int = 5,
    learning_rates: Sequence[float] = search.FACTORS,
    knobs: bool = True,
    together: int = 0,
    momenta: Sequence[float] = (),
    baseline: str = "ste",
    tune: bool = False,
    console: rich.console.Console | None = None,
    **fields: Any,
) -> list[dict[str, Any]]:
    """Trains one network by several methods, and says which is better.

    The learning rate of each method is chosen on validation examples. Then the method
    is trained with seeds 1 to `seeds`, and the test examples are used once. The same
    call continues where it was interrupted.

    Args:
        network: A Linen module; or a function of `nnx.Rngs` that makes an NNX module;
            or a pair of functions: `forward`, of the form that `adaste_jax.train`
            takes, and `draw`, from a key to parameters and model state.
        data: `"train"` and `"test"`, each a pair of inputs [examples, ...] as the
            network takes them and labels: integers [examples], or [examples, length].
        methods: Names of methods, of `adaste_jax.methods.METHODS`; or, by the name of
            the row, a name, an `entry.Variant` with options, or a function like those
            of `adaste_jax.methods`, with a default for `learning_rate`.
        workdir: Folder of the results.
        num_epochs: Passes over the training examples.
        batch_size: Examples in a step.
        validation: Share of the training examples that is kept for validation.
        seeds: Number of networks that are tested for each method.
        learning_rates: First learning rates of the search, in units of the method's
            default.
        knobs: Whether the method's option in `search.KNOBS` is also chosen.
        together: Trials in one compiled program; 0 chooses automatically.
        momenta: Values of the momentum of Adam that are tried besides `momentum`.
        baseline: Row that the others are compared with.
        tune: Whether only learning rates are chosen, from more of them, and no test
            example is used; `tuned.md` and `tuned.json` are written instead.
        console: Console for progress. Default: standard output.
        **fields: Other fields of `configs/base.py`, such as `binary_exclude`,
            `label_smoothing`, `warmup_epochs` and `real_learning_rate`.

    Returns:
        A dict for each row, the best first; see `tables.row`, and `tuning.row` with
        `tune`. The same table is written to `table.md`, `table.json` and `table.png` in
        `workdir`.

    Raises:
        RunError: If an argument is out of range, or the data do not fit together.

    Example:
        >>> from flax import linen as nn
        >>> from adaste_jax import datasets
        >>> data = {name: (x.reshape(-1, 64) / 16, y)
        ...         for name, (x, y) in datasets.digits().items()}
        >>> network = nn.Sequential([nn.Dense(32), nn.LayerNorm(), nn.relu,
        ...                          nn.Dense(10), nn.LayerNorm()])
        >>> rows = compare(network, data, ["ste", "adaste"],
        ...                "runs/own")  # doctest: +SKIP
    """
    with _entered(methods) as variants:
        return _compare(
            network,
            data,
            variants,
            workdir,
            fields={**fields, "num_epochs": num_epochs, "batch_size": batch_size},
            validation=validation,
            seeds=seeds,
            factors=learning_rates,
            knobs=knobs,
            together=together,
            momenta=momenta,
            baseline=baseline,
            tune=tune,
            console=console,
        )


def _compare(
    network: Any,
    data: Mapping[str, tuple[Any, Any]],
    variants: Mapping[str, entry.Variant] | Sequence[str],
    workdir: str | os.PathLike[str],
    *,
    fields: Mapping[str, Any],
    validation: float,
    **options: Any,
) -> list[dict[str, Any]]:
    config = base.get_config()
    _fill(config, fields)
    config.validation = float(validation)
    checks.check_own(config)
    splits = _splits(data, config.validation)
    parts = _functional(network, splits)
    problem_of = functools.partial(_problem, parts, splits)
    problem_of(config)  # refuses data that are too few, before anything is trained
    return compare_problems(
        config.lock(),
        variants,
        workdir,
        load=lambda: (splits, problem_of),
        **options,
    )


class _Parts(NamedTuple):
    forward: train.Forward
    draw: Callable[[jax.Array], tuple[Any, Any]]


def _fill(config: ml_collections.ConfigDict, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        checks.check_name(name)
        config[name] = value


@contextlib.contextmanager
def _entered(
    chosen: Sequence[str] | Mapping[str, Own],
) -> Iterator[Mapping[str, entry.Variant] | Sequence[str]]:
    """Rows by name. Inside it, functions are methods with the names of their rows.

    Raises:
        RunError: If a function has the name of a method of the library.
    """
    if not isinstance(chosen, Mapping):
        yield chosen
        return
    found, own = {}, {}
    for name, one in chosen.items():
        if isinstance(one, entry.Variant):
            found[name] = one
        elif isinstance(one, str):
            found[name] = entry.Variant(one)
        elif name in library.METHODS:
            raise errors.RunError(
                f"the row {name!r} is a function, and a method of the library has the "
                "same name: give the row another name."
            )
        else:
            own[name] = one
            found[name] = entry.Variant(name)
    before = dict(methods.METHODS)
    methods.METHODS.update(own)
    try:
        yield found
    finally:
        methods.METHODS.clear()
        methods.METHODS.update(before)


def _splits(
    data: Mapping[str, tuple[Any, Any]], validation: float
) -> datasets.Splits[datasets.Arrays]:
    parts = {}
    for name in ("train", "test"):
        if name not in data or len(data[name]) != 2:
            raise errors.RunError(
                f"data must hold {name!r}, a pair of inputs and labels; it holds "
                f"{', '.join(map(repr, data)) or 'nothing'}."
            )
        inputs, labels = map(np.asarray, data[name])
        if len(inputs) != len(labels) or not np.issubdtype(labels.dtype, np.integer):
            raise errors.RunError(
                f"data[{name!r}] needs an integer label for each input: got inputs "
                f"{list(inputs.shape)} and labels {labels.dtype} {list(labels.shape)}."
            )
        parts[name] = datasets.Arrays(inputs, labels.astype(np.int32))
    whole = parts["train"]
    order = selection.stratified_order(whole.labels, 0)
    kept, taken = selection.division(len(whole), validation, None)
    pick = lambda chosen: datasets.Arrays(whole.images[chosen], whole.labels[chosen])
    return datasets.Splits(
        train=pick(order[kept : kept + taken]),
        validation=pick(order[:kept]),
        test=parts["test"],
        num_classes=int(whole.labels.max()) + 1,
        mean=None,
        std=None,
        max_value=None,
    )


def _functional(network: Any, splits: datasets.Splits[datasets.Arrays]) -> _Parts:
    """The network as two functions.

    Raises:
        RunError: If it has none of the three forms that `compare` takes.
    """
    example = jnp.asarray(splits.train.images[:1])
    if isinstance(network, nn.Module):

        def draw(key):
            method = library.full_precision(1)
            state = train.init(network, method, example, key=key)
            return state.params, state.model_state

        return _Parts(linen.functional(network), draw)
    if isinstance(network, tuple) and len(network) == 2:
        return _Parts(*network)
    if callable(network) and len(inspect.signature(network).parameters) == 1:
        from flax import nnx as flax_nnx

        def drawn(key):
            return nnx.functional(network(flax_nnx.Rngs(key)))[1:]

        return _Parts(nnx.functional(network(flax_nnx.Rngs(0)))[0], drawn)
    raise errors.RunError(
        "network must be a Linen module, a function of nnx.Rngs that makes an NNX "
        f"module, or a pair (forward, draw); got {type(network).__qualname__}."
    )


def _problem(
    parts: _Parts,
    splits: datasets.Splits[datasets.Arrays],
    config: ml_collections.ConfigDict,
) -> Problem:
    images = splits.train.images
    unknown = {"mean": None, "std": None, "max_value": None, "image_size": None}
    described = {
        "architecture": {"num_classes": splits.num_classes},
        "input": {
            "shape": list(images.shape[1:]),
            "dtype": jnp.asarray(images[:1]).dtype.name,
            **unknown,
        },
    }
    record = {"network": described, "num_train": len(splits.train)}
    return Problem(config, splits=splits, record=record, functions=parts)
