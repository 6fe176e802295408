"""The moving picture of the README shows a run as it was recorded."""

import pathlib
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from adaste_jax import methods
from experiments.studies import training_picture

SVG = "{http://www.w3.org/2000/svg}"
SHIPPED = pathlib.Path(__file__).parents[2] / "docs" / "training.svg"


def curves(root, name):
    wanted = set(name.split())
    paths = root.iter(f"{SVG}path")
    found = [path for path in paths if wanted <= set(path.get("class").split())]
    return [
        np.array(re.findall(r"[\d.]+", curve.get("d")), float).reshape(-1, 2)
        for curve in found
    ]


@pytest.fixture(scope="module")
def courses():
    kinds = (methods.adaste, methods.full_precision)
    return [training_picture.record(kind(40), steps=40, every=10) for kind in kinds]


def test_weights_become_binary_and_the_file_small(courses):
    bits, floats = courses
    assert bits.weights.shape == (5, training_picture.SHOWN)
    assert set(np.abs(bits.weights[-1])) == {1.0}
    assert len(set(np.abs(bits.weights[0]))) > 10
    assert min(bits.accuracy[-1], floats.accuracy[-1]) > 50
    kernels = 64 * 256 + 256 * 10
    real = 256 + 10 + 2 * 256 + 2 * 10
    assert kernels / 8 + 4 * real < bits.size < floats.size / 8
    assert 4 * (kernels + real) < floats.size < 4 * (kernels + real) + 1000


def test_curves_are_those_of_the_runs(courses):
    bits, floats = courses
    root = ElementTree.fromstring(training_picture.draw(bits, floats, steps=40))
    drawn = curves(root, "thin")
    heights = np.concatenate([curve[:, 1] for curve in drawn])
    # Height is an affine function of the weight, and up is less.
    assert np.corrcoef(heights, bits.weights.T.reshape(-1))[0, 1] < -0.99999
    for name, run in (("float", floats), ("up", bits)):
        [curve] = curves(root, f"thick {name}")
        inside = curve[:, 1] < training_picture.BOTTOM
        assert inside[1:].all()
        measured = np.array(run.accuracy)[inside]
        assert np.corrcoef(curve[inside, 1], measured)[0, 1] < -0.9999
        assert f"{run.accuracy[-1]:.1f}" in "".join(root.itertext())


def test_the_shipped_picture_is_small_and_respects_its_reader():
    text = SHIPPED.read_text("utf-8")
    assert len(text) < 60_000
    assert "<script" not in text
    assert "prefers-reduced-motion" in text
    assert "prefers-color-scheme" in text
    root = ElementTree.fromstring(text)
    times = training_picture.STEPS // training_picture.EVERY + 1
    assert [len(curve) for curve in curves(root, "thick")] == [times, times]
