"""The estimator of `docs/adding.md`, put where the page says, keeps the contract."""

import doctest
import inspect
import pathlib
import re
import types

import numpy as np
import pytest

from adaste_jax import estimators
from adaste_jax.methods import _straight_through
from experiments import methods
from experiments.studies import gallery
from tests import reference
from tests.estimators import cases, test_contract

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "adding.md").read_text("utf-8")
PIECES = dict(re.findall(r'```python title="(.*?)"\n(.*?)```', PAGE, re.DOTALL))
NAME = "arctan_sign"


def _row(piece, names):
    """The value of a row of a table."""
    return eval(f"{{{piece}}}", dict(names))[NAME]


@pytest.fixture(scope="module")
def placed():
    """The pieces in their modules, for the tests of this file."""
    module = types.ModuleType("arctan")
    exec(PIECES["adaste_jax/estimators/_arctan_sign.py"], vars(module))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimators, NAME, module.arctan_sign, raising=False)
        scope = dict(vars(reference))
        exec(PIECES["tests/reference.py"], scope)
        patch.setattr(reference, NAME, scope[NAME], raising=False)
        row = _row(PIECES["tests/estimators/cases.py"], vars(cases))
        patch.setitem(cases.CASES, NAME, row)
        scope = dict(vars(_straight_through))
        exec(PIECES["adaste_jax/methods/_straight_through.py"], scope)
        patch.setitem(methods.METHODS, NAME, scope[NAME])
        yield module


# Tests of the contract that need no more than a name.
CONTRACT = [
    name
    for name, test in vars(test_contract).items()
    if name.startswith("test_") and list(inspect.signature(test).parameters) == ["name"]
]


@pytest.mark.parametrize("test", CONTRACT)
def test_the_contract_holds(placed, test):
    getattr(test_contract, test)(NAME)


@pytest.mark.parametrize("hyper", ["hyper", "other"])
def test_the_reference_agrees(placed, hyper):
    test_contract.test_float64_is_the_closed_form(NAME, hyper)


def test_its_example_runs(placed):
    assert doctest.testmod(placed) == (0, 3)


def test_the_picture_and_the_method_work(placed):
    picture = _row(PIECES["experiments/studies/gallery.py"], vars(gallery))
    found = gallery.curves(picture, 2.0)
    assert found["up"].max() == pytest.approx(2.0)
    method = methods.create(NAME, methods.defaults(), steps=10)
    weights = method.weights({"kernel": np.float32([-1, 2])}, 0)
    np.testing.assert_array_equal(weights["kernel"], [-1, 1])
