"""Folders of images: one folder for each class, and TinyImageNet as it is unpacked."""

import numpy as np
import pytest
from PIL import Image

from experiments import data_source, data_stream, errors, image_folder
from tests.experiments import tiny_sets


@pytest.fixture
def tiny_imagenet(tmp_path):
    return str(tiny_sets.tiny_imagenet(tmp_path, classes=3, train=8, test=5))


@pytest.fixture
def plain(tmp_path):
    """Two classes, of images of several sizes, and one that is grey."""
    for split, number in (("train", 6), ("validation", 3)):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            (folder / "notes.txt").write_text("no image")
            for i in range(number):
                mode, value = ("L", 100) if i == 1 else ("RGB", (50 * label, i, 0))
                Image.new(mode, (8 + i, 9), value).save(folder / f"{i}.png")
    return str(tmp_path)


def test_tiny_imagenet_has_all_its_labelled_images(tiny_imagenet):
    train = image_folder.files(tiny_sets.TINY_IMAGENET, "train", tiny_imagenet)
    test = data_source.source(tiny_sets.TINY_IMAGENET, "test", tiny_imagenet)
    assert image_folder.classes(tiny_sets.TINY_IMAGENET, tiny_imagenet) == [
        "n00000000",
        "n00000001",
        "n00000002",
    ]
    assert np.bincount(train.labels).tolist() == [8, 8, 8]
    assert len(test) == 5
    for images in (train, test):
        for i in range(len(images)):
            example = images[i]
            pixels = np.asarray(example["image"])
            assert pixels.shape == (64, 64, 3)
            # Its images are of the colour of their class; JPEG is not exact.
            assert abs(pixels.mean() - tiny_sets.colour(example["label"])) < 3


def test_classes_in_folders_and_a_split_by_another_name(plain):
    test = data_source.source("folder/pets", "test", plain)
    assert [int(test[i]["label"]) for i in range(len(test))] == [0, 0, 0, 1, 1, 1]
    grey = test[1]["image"]
    assert (grey.mode, grey.getpixel((0, 0))) == ("RGB", (100, 100, 100))


def test_splits_keep_the_classes_in_proportion_and_share_no_image(plain):
    splits = data_stream.open_splits(
        "folder/pets", data_dir=plain, validation=0.5, image_size=4, num_test=4
    )
    assert splits.num_classes == 2
    for part, size in ((splits.train, 6), (splits.validation, 6), (splits.test, 4)):
        assert np.bincount(part.labels).tolist() == [size // 2] * 2
    seen = {
        (int(e["label"]), e["image"].size, e["image"].getpixel((0, 0)))
        for part in (splits.train, splits.validation)
        for e in (part[i] for i in range(len(part)))
    }
    assert len(seen) == 12
    assert splits.mean.shape == (3,)
    again = data_stream.open_splits(
        "folder/pets", data_dir=plain, validation=0.5, image_size=4
    )
    np.testing.assert_array_equal(again.train.labels, splits.train.labels)


def test_evaluation_leaves_an_image_of_the_right_size_alone(tiny_imagenet):
    test = image_folder.files(tiny_sets.TINY_IMAGENET, "test", tiny_imagenet)
    (batch,) = data_stream.stream(test, batch_size=5, train=False, image_size=64)
    np.testing.assert_array_equal(batch["image"][3], np.asarray(test[3]["image"]))


def test_an_image_that_cannot_be_read_is_named(plain, tmp_path):
    broken = tmp_path / "pets" / "train" / "cat" / "3.png"
    broken.write_bytes(broken.read_bytes()[:20])
    images = image_folder.files("folder/pets", "train", plain)
    with pytest.raises(errors.RunError, match=r"cannot read the image .*cat.3\.png"):
        images[3]


def test_what_is_missing_is_named(plain, tmp_path, monkeypatch):
    with pytest.raises(errors.RunError, match=r"no folder .*birds.train"):
        image_folder.files("folder/birds", "train", plain)
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(errors.RunError, match="has no folders"):
        image_folder.files("folder/empty", "train", plain)
    (tmp_path / "empty" / "train" / "cat").mkdir()
    with pytest.raises(errors.RunError, match="holds no images"):
        image_folder.files("folder/empty", "train", plain)
    with pytest.raises(errors.RunError, match=r"no split 'test': none of test, val"):
        image_folder.files("folder/empty", "test", plain)
    (tmp_path / "pets" / "validation" / "cow").mkdir()
    with pytest.raises(errors.RunError, match="classes that train has not: cow"):
        image_folder.files("folder/pets", "test", plain)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    with pytest.raises(errors.RunError, match=r"say where it lies"):
        image_folder.files("folder/pets", "train")


def test_a_class_of_the_annotations_that_train_has_not_is_named(tiny_imagenet):
    root = tiny_sets.root(tiny_imagenet)
    with open(root / "val" / "val_annotations.txt", "a") as file:
        file.write("val_0.JPEG\tn99999999\t0\t0\t62\t62\n")
    with pytest.raises(errors.RunError, match="n99999999"):
        image_folder.files(tiny_sets.TINY_IMAGENET, "test", tiny_imagenet)
