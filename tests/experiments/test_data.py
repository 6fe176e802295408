"""Loading, splitting and augmenting images."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import datasets
from experiments import errors
from experiments.data import datasets as data
from experiments.data import feeds, selection, sources

COLOUR = np.random.default_rng(0).integers(1, 256, (64, 12, 10, 3), np.uint8)
MEAN = np.array([0.3, 0.5, 0.6], np.float32)
STD = np.array([0.2, 0.25, 0.4], np.float32)


def rows(arrays):
    """Every example as a tuple, so that sets of examples can be compared."""
    flat = [image.ravel() for image in arrays.images]
    return [(*image, label) for image, label in zip(flat, arrays.labels, strict=True)]


def test_digits_come_with_their_range_and_classes():
    splits = data.load("digits")
    assert splits.num_classes == 10
    assert splits.max_value == 16
    for part in (splits.train, splits.validation, splits.test):
        assert part.images.dtype == np.uint8
        assert part.labels.dtype == np.int32
        assert part.images.shape == (len(part), 8, 8, 1)
    np.testing.assert_array_equal(splits.test.images, datasets.digits()["test"][0])


@pytest.mark.parametrize(
    ("validation", "kept"), [(0.1, 144), (0.25, 359), (100, 100), (0, 0), (0.0, 0)]
)
def test_validation_is_a_part_of_train_and_the_rest_is_trained_on(validation, kept):
    splits = data.load("digits", validation=validation)
    assert len(splits.validation) == kept
    assert splits.validation.images.shape == (kept, 8, 8, 1)
    everything = data.load("digits", validation=0).train
    assert sorted(rows(splits.train) + rows(splits.validation)) == sorted(
        rows(everything)
    )


@pytest.mark.parametrize("kept", [10, 144, 700])
def test_validation_has_the_classes_in_their_proportions(kept):
    splits = data.load("digits", validation=kept)
    total = np.bincount(datasets.digits()["train"][1])
    found = np.bincount(splits.validation.labels, minlength=10)
    assert np.all(np.abs(found - kept * total / total.sum()) < 2)


def test_choice_of_examples_is_fixed_and_depends_on_its_seed_only():
    first, again, other = (data.load("digits", seed=seed) for seed in (0, 0, 1))
    assert rows(first.validation) == rows(again.validation)
    assert rows(first.validation) != rows(other.validation)
    fewer = data.load("digits", num_train=300)
    assert rows(first.validation) == rows(fewer.validation)


def test_a_smaller_training_set_is_a_stratified_part_of_a_larger_one():
    large, small = (data.load("digits", num_train=n).train for n in (500, 100))
    assert (len(large), len(small)) == (500, 100)
    assert set(rows(small)) < set(rows(large))
    assert np.all(np.abs(np.bincount(small.labels) - 10) <= 1)


def test_moments_are_those_of_the_training_examples():
    """In float64, of the examples left for training and no others."""
    splits = data.load("digits", num_train=200)
    pixels = splits.train.images.astype(np.float64) / 16
    np.testing.assert_allclose(splits.mean, [pixels.mean()], rtol=1e-6)
    np.testing.assert_allclose(splits.std, [pixels.std()], rtol=1e-6)


def test_moments_are_taken_for_each_channel_and_never_zero():
    images = COLOUR.copy()
    images[..., 1] = 7
    mean, std = selection.moments(images, 255)
    pixels = images.reshape(-1, 3) / 255.0
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std[[0, 2]], pixels.std(axis=0)[[0, 2]], rtol=1e-6)
    assert std[1] == 1


@pytest.mark.parametrize("validation", [-0.1, 1.5, -3, 1437, 2000])
def test_impossible_validation_is_refused(validation):
    with pytest.raises(errors.RunError, match=r"share in \[0, 1\)"):
        data.load("digits", validation=validation)


@pytest.mark.parametrize(
    ("num_train", "message"),
    [(0, "at least 1, got 0"), (-1, "at least 1, got -1"), (1294, "give 1 to 1293")],
)
def test_impossible_number_of_training_examples_is_refused(num_train, message):
    with pytest.raises(errors.RunError, match=message):
        data.load("digits", num_train=num_train)


@pytest.mark.parametrize("num_test", [0, -1])
def test_impossible_number_of_test_examples_is_refused(num_test):
    with pytest.raises(errors.RunError, match=f"at least 1, got {num_test}"):
        data.load("digits", num_test=num_test)


def splits_of(labels, **parts):
    part = data.Arrays(np.zeros((len(labels), 2, 2, 1), np.uint8), np.array(labels))
    good = data.Arrays(part.images[:2], np.zeros(2, np.int32))
    parts = {name: part if parts.get(name) else good for name in PARTS}
    return data.Splits(
        **parts,
        num_classes=3,
        mean=np.zeros(1),
        std=np.ones(1),
        max_value=255,
        class_names=("a", "b", "c"),
    )


PARTS = ("train", "validation", "test")


@pytest.mark.parametrize("wrong", [-1, 3, 255])
def test_labels_outside_of_the_classes_are_counted_and_refused(wrong):
    labels = [0, 2, wrong, 1, wrong]
    for part in ("train", "validation"):
        with pytest.raises(
            errors.RunError,
            match=rf"2 of 5 examples of {part} .* \.\.\. 2, .*example 2 has {wrong}\.",
        ):
            splits_of(labels, **{part: True})
    assert splits_of(labels, test=True).test.labels[2] == wrong  # not counted there


def test_bytes_of_text_outside_of_the_values_are_refused():
    labels = [[0, 1], [2, 3]]
    with pytest.raises(errors.RunError, match=r"1 of 2 .*example 1 has 3\."):
        splits_of(labels, train=True)


def test_packaged_data_without_labels(monkeypatch, capfd):
    def read():
        images = np.zeros((6, 2, 2, 1), np.uint8)
        labels = np.array([0, 1, 0, 1, 0, 1])
        return {"train": (images, labels), "test": (images, labels - [0, 2] * 3)}

    packaged = sources.Packaged(read, 2, 16, ("no", "yes"))
    monkeypatch.setitem(sources.PACKAGED, "half", packaged)
    splits = data.load("half", validation=0, num_test=2)
    assert splits.test.labels.tolist() == [0, 0]
    assert splits.class_names == ("no", "yes")
    assert "3 of 6 examples of half" in capfd.readouterr().err
    packaged = packaged._replace(num_classes=1, class_names=("no",))
    monkeypatch.setitem(sources.PACKAGED, "half", packaged)
    with pytest.raises(errors.RunError, match="3 of 6 examples of half, split train"):
        data.load("half", validation=0)


def test_there_are_as_many_names_as_classes():
    with pytest.raises(errors.RunError, match="3 classes and 2 names"):
        dataclasses.replace(splits_of([0, 1]), class_names=("a", "b"))


def test_evaluation_of_nothing_is_refused():
    empty = data.Arrays(np.zeros((0, 2, 2, 1), np.uint8), np.zeros(0, np.int32))
    for source in (empty, []):
        with pytest.raises(errors.RunError, match="no examples to evaluate on"):
            feeds.evaluation(source, batch_size=4, image_size=None)


augment = functools.partial(data.augment, mean=MEAN, std=STD)


@functools.cache
def augmented(kind, seed=0):
    compiled = jax.jit(functools.partial(augment, kind=kind))
    return np.asarray(compiled(jax.random.key(seed), COLOUR))


def normalised(images):
    return (images / 255.0 - MEAN.astype(np.float64)) / STD.astype(np.float64)


def test_without_augmentation_images_are_normalised_only():
    output = augment(None, COLOUR, kind="none")
    assert output.dtype == jnp.float32
    np.testing.assert_allclose(output, normalised(COLOUR), atol=1e-5)


def test_the_largest_value_of_a_pixel_can_be_given():
    image = np.full((1, 1, 1, 1), 16, np.uint8)
    output = data.augment(
        None, image, kind="none", mean=[0.5], std=[0.25], max_value=16
    )
    assert output.item() == 2.0


def test_flip_mirrors_about_half_of_the_images_and_nothing_else():
    output = augmented("flip")
    plain, mirrored = normalised(COLOUR), normalised(COLOUR[:, :, ::-1])
    kept = np.isclose(output, plain, atol=1e-5).all(axis=(1, 2, 3))
    turned = np.isclose(output, mirrored, atol=1e-5).all(axis=(1, 2, 3))
    assert (kept ^ turned).all()
    assert 16 <= turned.sum() <= 48  # 4 standard deviations of 64 coins


def test_pad_crop_flip_gives_one_of_the_162_variants_of_each_image():
    """Brute force over every shift and mirror; and all shifts do occur."""
    output = augmented("pad_crop_flip")
    height, width = COLOUR.shape[1:3]
    padded = np.pad(COLOUR, ((0, 0), (4, 4), (4, 4), (0, 0)))
    found = []
    for index in range(len(COLOUR)):
        matches = []
        for top in range(9):
            for left in range(9):
                crop = padded[index, top : top + height, left : left + width]
                for flip in (False, True):
                    variant = normalised(crop[:, ::-1] if flip else crop)
                    if np.allclose(output[index], variant, atol=1e-5):
                        matches.append((top, left, flip))
        assert len(matches) == 1
        found += matches
    tops, lefts, flips = (set(column) for column in zip(*found, strict=True))
    assert tops == lefts == set(range(9))
    assert flips == {False, True}
    assert len(set(found)) > 40  # the images do not share one shift


def test_augmentation_is_a_function_of_the_key():
    again = augment(jax.random.key(0), COLOUR, kind="pad_crop_flip")
    np.testing.assert_allclose(again, augmented("pad_crop_flip"), atol=1e-5)
    assert not np.allclose(augmented("pad_crop_flip", seed=1), again, atol=1e-2)


def test_unknown_augmentation_is_refused_with_those_there_are():
    with pytest.raises(errors.RunError, match="none, flip, pad_crop_flip"):
        augment(jax.random.key(0), COLOUR, kind="mixup")


def test_augmentation_without_a_key_is_refused():
    with pytest.raises(TypeError, match="needs a key"):
        augment(None, COLOUR, kind="flip")


def test_epoch_order_takes_every_example_at_most_once():
    order = data.epoch_order(jax.random.key(0), 0, 103, 10)
    assert order.shape == (10, 10)
    assert order.dtype == jnp.int32
    assert len(set(np.ravel(order).tolist())) == 100
    assert set(np.ravel(order).tolist()) <= set(range(103))


def test_epoch_order_is_a_function_of_key_and_epoch():
    key = jax.random.key(0)
    third = data.epoch_order(key, 3, 103, 10)
    np.testing.assert_array_equal(third, data.epoch_order(key, jnp.int32(3), 103, 10))
    assert not np.array_equal(third, data.epoch_order(key, 2, 103, 10))
    assert not np.array_equal(third, data.epoch_order(jax.random.key(1), 3, 103, 10))


def test_different_examples_are_left_out_in_different_epochs():
    key = jax.random.key(0)
    left_out = {
        frozenset(range(103))
        - set(np.ravel(data.epoch_order(key, e, 103, 10)).tolist())
        for e in range(3)
    }
    assert len(left_out) == 3
