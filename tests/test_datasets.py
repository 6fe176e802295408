"""The packaged digits: complete, in range, stratified, and in no part twice."""

import importlib.resources

import numpy as np
import pytest

from adaste_jax import datasets

# Images of each digit in scikit-learn's copy, as its documentation counts them.
COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.fixture(scope="module")
def digits():
    return datasets.digits()


@pytest.mark.parametrize(("split", "size"), [("train", 1437), ("test", 360)])
def test_arrays_have_the_promised_shapes_and_dtypes(digits, split, size):
    images, labels = digits[split]
    assert images.shape == (size, 8, 8, 1)
    assert labels.shape == (size,)
    assert images.dtype == labels.dtype == np.uint8
    assert images.min() == 0
    assert images.max() == 16


def test_every_digit_of_the_source_is_there(digits):
    labels = np.concatenate([digits["train"][1], digits["test"][1]])
    assert np.bincount(labels).tolist() == COUNTS


def test_the_split_is_stratified(digits):
    share = np.bincount(digits["test"][1]) / COUNTS
    assert np.all(np.abs(share - 360 / 1797) < 1.5 / 174)


def test_no_image_is_in_both_parts(digits):
    """The source has no two equal images, so pixels identify an image."""
    parts = [digits[split][0].reshape(-1, 64) for split in ("train", "test")]
    assert len(np.unique(np.concatenate(parts), axis=0)) == 1797


def test_first_image_of_the_source_is_the_well_known_zero(digits):
    """Row by row, as in scikit-learn's documentation: no transposed or shifted copy."""
    first_row = [0, 0, 5, 13, 9, 1, 0, 0]
    images = np.concatenate([digits["train"][0], digits["test"][0]])
    rows = images[:, 0, :, 0]
    found = images[(rows == first_row).all(axis=1)]
    second_row = [0, 0, 13, 15, 10, 15, 5, 0]
    assert any((image[1, :, 0] == second_row).all() for image in found)


def test_callers_may_write_into_the_arrays():
    datasets.digits()["train"][0][:] = 0
    assert datasets.digits()["train"][0].max() == 16


def test_attribution_is_packaged_beside_the_data():
    text = importlib.resources.files(datasets).joinpath("README.md").read_text()
    assert "CC BY 4.0" in text
    assert "https://doi.org/10.24432/C50P49" in text
