"""Data sets of TFDS: prepared, decoded once, cached, and never with TensorFlow.

Most tests prepare a tiny data set of their own. The last ones read real data from the
folder in $TFDS_DATA_DIR.
"""

import concurrent.futures
import errno
import io
import os
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from experiments import errors
from experiments.data import cache, datasets, sources, streams
from experiments.data import tfds as prepared_sets
from experiments.runs import stopping

SIZES = {"train": 40, "test": 8}


def examples(split):
    """Images, and labels that can be told from the image: its first pixel modulo 4."""
    images = np.random.default_rng(SIZES[split]).integers(
        0, 256, (SIZES[split], 6, 5, 3), np.uint8
    )
    return images, images[:, 0, 0, 0] % 4


class TinyImages(tfds.core.GeneratorBasedBuilder):
    """A data set that TFDS finds by the name `tiny_images`."""

    VERSION = tfds.core.Version("1.0.0")
    FEATURES: ClassVar = {
        "image": tfds.features.Image(shape=(6, 5, 3)),
        "label": tfds.features.ClassLabel(num_classes=4),
    }
    SPLITS = tuple(SIZES)

    def _info(self):
        features = tfds.features.FeaturesDict(self.FEATURES)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self.SPLITS}

    def _generate_examples(self, split):
        for index, (image, label) in enumerate(zip(*examples(split), strict=True)):
            yield index, {"image": Image.fromarray(image), "label": label}


class TinySizes(TinyImages):
    """Its features allow images of any size."""

    FEATURES = TinyImages.FEATURES | {"image": tfds.features.Image()}


class TinyUntested(TinyImages):
    """It has no split to test on."""

    SPLITS = ("train",)


class TinyCaptions(TinyImages):
    """It has no labels."""

    FEATURES: ClassVar = {
        "image": TinyImages.FEATURES["image"],
        "words": tfds.features.Text(),
    }

    def _generate_examples(self, split):
        yield 0, {"image": Image.fromarray(examples(split)[0][0]), "words": "one"}


class TinyNames(TinyImages):
    """Its classes have names; of its test images every other one has no label."""

    FEATURES = TinyImages.FEATURES | {
        "label": tfds.features.ClassLabel(names=["ant", "bee", "cow", "dog"])
    }

    def _generate_examples(self, split):
        for index, example in super()._generate_examples(split):
            if split == "test" and index % 2:
                example["label"] = -1
            yield index, example


class TinySecret(TinyImages):
    """Labels of its test split are kept back; those of `validation` are not."""

    SPLITS = ("train", "test", "validation")

    def _generate_examples(self, split):
        number = "test" if split == "validation" else split
        for index, example in super()._generate_examples(number):
            yield index, example | ({"label": -1} if split == "test" else {})


class TinyBlank(TinyImages):
    """One of its training images has no label, and no test image has one."""

    def _generate_examples(self, split):
        for index, example in super()._generate_examples(split):
            is_blank = split == "test" or index == 11
            yield index, example | ({"label": -1} if is_blank else {})


class TinyGreys(TinySizes):
    """Files as they are found: a grey one and one of a palette among colours."""

    def _generate_examples(self, split):
        for index, image in enumerate(examples(split)[0]):
            image = Image.fromarray(image)
            image = {0: image.convert("L"), 1: image.quantize(4)}.get(index, image)
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            content = buffer.getvalue()
            content = content[:50] if index == 2 else content
            yield index, {"image": io.BytesIO(content), "label": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of prepared data sets; only `tiny_images` is in it from the start."""
    folder = str(tmp_path_factory.mktemp("tfds"))
    prepared_sets.prepare("tiny_images", folder)
    return folder


@pytest.fixture
def load(folder, tmp_path):
    def load(**options):
        return datasets.load(
            "tiny_images", data_dir=folder, cache_dir=str(tmp_path), **options
        )

    return load


def in_some_order(images, labels):
    """TFDS shuffles examples when it prepares them."""
    order = np.lexsort(images.reshape(len(images), -1).T)
    return images[order], labels[order]


def assert_is_tiny_images(splits):
    for part, split in ((splits.train, "train"), (splits.test, "test")):
        expected = in_some_order(*examples(split))
        found = in_some_order(part.images, part.labels)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
    assert splits.train.labels.dtype == np.int32
    assert splits.num_classes == 4
    assert splits.max_value == 255


def test_load_gives_every_image_with_its_label(load):
    splits = load(validation=0)
    assert_is_tiny_images(splits)
    pixels = examples("train")[0] / 255.0
    np.testing.assert_allclose(splits.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-6)


def test_folder_is_taken_from_the_environment(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert_is_tiny_images(datasets.load("tiny_images", validation=0))
    names = sorted(path.name for path in (tmp_path / "adaste_jax").iterdir())
    assert [name.rsplit("-", 2)[0] for name in names] == [
        *["tiny_images-1.0.0-test"] * 2,
        *["tiny_images-1.0.0-train"] * 2,
    ]


def test_second_load_decodes_nothing(load, monkeypatch):
    load()
    monkeypatch.setattr(cache, "_decode", None)
    splits = load(validation=0)
    assert_is_tiny_images(splits)
    assert isinstance(splits.test.images, np.memmap)
    assert not splits.test.images.flags.writeable


def cut(file):
    file.write_bytes(file.read_bytes()[:-1])


def cut_to_nothing(file):
    file.write_bytes(b"")


def cut_in_the_header(file):
    file.write_bytes(file.read_bytes()[:20])


def change_one_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1  # among the pixels, or the labels
    file.write_bytes(content)


@pytest.mark.parametrize("part", ["images.npy", "labels.npz"])
@pytest.mark.parametrize("damage", [cut, cut_to_nothing, cut_in_the_header])
def test_truncated_cache_is_decoded_again(load, tmp_path, part, damage):
    load()
    (file,) = tmp_path.glob(f"*-train-*-{part}")
    damage(file)
    assert_is_tiny_images(load(validation=0))


@pytest.mark.parametrize("part", ["images.npy", "labels.npz"])
def test_cache_with_a_wrong_bit_is_decoded_again(load, tmp_path, part, capfd):
    load()
    (file,) = tmp_path.glob(f"*-train-*-{part}")
    change_one_bit(file)
    assert_is_tiny_images(load(validation=0))
    assert "is damaged" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_train": 41}, "num_train is 41"),
        ({"validation": 40}, "validation is 40"),
        ({"validation": float("nan")}, "validation is nan"),
        ({"validation": 2.5}, "validation is 2.5"),
        ({"num_test": 0}, "num_test must be at least 1"),
    ],
)
def test_a_division_that_cannot_be_is_refused_before_images_are_decoded(
    load, tmp_path, options, message
):
    with pytest.raises(errors.RunError, match=message):
        load(**options)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_decoding_leaves_nothing_behind(load, tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache.os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load()
    assert list(tmp_path.iterdir()) == []
    assert_is_tiny_images(load(validation=0))


def test_several_can_decode_at_once(load):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load, validation=0) for _ in range(4)]
        for future in loads:
            assert_is_tiny_images(future.result())


def test_interrupted_between_its_two_files_leaves_nothing_behind(
    load, tmp_path, monkeypatch
):
    replace = os.replace

    def interrupt(source, target):
        if str(target).endswith(".npz"):
            raise SystemExit
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(cache.os, "replace", interrupt)
        with pytest.raises(SystemExit):
            load()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["getexif", "convert", "load"])
@pytest.mark.parametrize("error", [stopping.SignalError, KeyboardInterrupt])
def test_a_signal_while_images_are_decoded_ends_it_and_leaves_nothing(
    load, tmp_path, monkeypatch, error, place
):
    """A handler may raise at any place; what it raises is no damage of an image."""
    original = getattr(Image.Image, place)
    calls = []

    def stopped(self, *args):
        calls.append(self)
        if len(calls) == 11:
            raise error("stopped")
        return original(self, *args)

    monkeypatch.setattr(Image.Image, place, stopped)
    with pytest.raises(error, match="stopped"):
        load()
    assert list(tmp_path.iterdir()) == []


def test_a_signal_while_the_cache_is_read_ends_it(load, tmp_path, monkeypatch):
    load()
    before = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}

    def stopped(*args, **kwargs):
        raise stopping.SignalError("stopped")

    monkeypatch.setattr(cache, "_read", stopped)
    with pytest.raises(stopping.SignalError):
        load()
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before


def test_cache_files_follow_the_umask(load, tmp_path):
    before = os.umask(0o027)
    try:
        load()
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o640}


def test_a_full_disk_is_found_before_it_is_written_to(load, tmp_path, monkeypatch):
    """Writing to a map without room ends a process with a signal."""

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(errors.RunError, match=r"No space left .*make room"):
        load()
    assert list(tmp_path.iterdir()) == []
    # A file system that cannot reserve is written to as before.
    monkeypatch.setattr(
        os, "posix_fallocate", lambda *args: _raise(OSError(errno.EOPNOTSUPP, "no"))
    )
    assert_is_tiny_images(load(validation=0))


def _raise(error):
    raise error


def test_cache_that_cannot_be_written_is_an_error_that_names_it(folder, tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(errors.RunError, match=r"file.*another folder as cache_dir"):
        datasets.load("tiny_images", data_dir=folder, cache_dir=str(file / "below"))


def test_unknown_data_set_says_where_it_was_looked_for_and_what_to_do(tmp_path):
    with pytest.raises(errors.RunError) as caught:
        datasets.load("no_such_images", data_dir=str(tmp_path))
    for part in (
        "no_such_images",
        str(tmp_path),
        "download_and_prepare()",
        "$TFDS_DATA_DIR",
        "`digits` is packaged",
    ):
        assert part in str(caught.value)


def test_failed_download_is_the_same_error_with_its_reason(tmp_path, monkeypatch):
    def fail(self, *args, **kwargs):
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(TinyImages, "download_and_prepare", fail)
    with pytest.raises(errors.RunError) as caught:
        datasets.load("tiny_images", data_dir=str(tmp_path))
    assert "ConnectionError: no route to host\n" in str(caught.value)
    assert "and more" not in str(caught.value)
    assert "`digits` is packaged" in str(caught.value)


def test_images_of_any_size_are_to_be_streamed(folder, tmp_path):
    with pytest.raises(errors.RunError, match="stream them"):
        datasets.load("tiny_sizes", data_dir=folder, cache_dir=str(tmp_path))


def test_data_set_without_a_test_split_is_refused(folder, tmp_path):
    with pytest.raises(errors.RunError, match="neither a split `test`"):
        datasets.load("tiny_untested", data_dir=folder, cache_dir=str(tmp_path))


def test_data_set_without_labels_is_refused(folder, tmp_path):
    with pytest.raises(errors.RunError, match="features image, words"):
        datasets.load("tiny_captions", data_dir=folder, cache_dir=str(tmp_path))


def test_examples_without_a_label_are_not_tested_on_and_names_come_along(
    folder, tmp_path, capfd
):
    splits = datasets.load("tiny_names", data_dir=folder, cache_dir=str(tmp_path))
    assert splits.class_names == ("ant", "bee", "cow", "dog")
    assert len(splits.test) == 4
    assert (splits.test.labels == splits.test.images[:, 0, 0, 0] % 4).all()
    assert "4 of 8 examples of tiny_names, split test" in capfd.readouterr().err
    streamed = streams.open_splits("tiny_names", data_dir=folder, image_size=6)
    assert streamed.class_names == splits.class_names
    labels = [int(streamed.test[i]["label"]) for i in range(8)]
    assert labels.count(-1) == 4  # evaluation leaves them out
    assert sources.classes_of("tiny_names", folder) == (4, splits.class_names)
    assert sources.classes_of("digits") == (10, tuple("0123456789"))
    assert sources.classes_of("pydoc_topics") == (256, None)


def test_a_split_whose_labels_are_kept_back_is_not_the_one_to_test_on(folder, tmp_path):
    prepared = prepared_sets.prepare("tiny_secret", folder)
    assert prepared_sets.test_split(prepared) == "validation"
    splits = datasets.load("tiny_secret", data_dir=folder, cache_dir=str(tmp_path))
    assert splits.test.labels.min() >= 0
    blank = prepared_sets.prepare("tiny_blank", folder)
    with pytest.raises(errors.RunError, match="in test have no labels"):
        prepared_sets.test_split(blank)


def test_an_example_without_a_label_is_not_trained_on(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(prepared_sets, "test_split", lambda prepared: "train")
    with pytest.raises(
        errors.RunError,
        match=r"1 of 40 examples of tiny_blank.*outside 0 \.\.\. 3.* -1\.",
    ):
        datasets.load("tiny_blank", data_dir=folder, cache_dir=str(tmp_path))
    with pytest.raises(errors.RunError, match=r"of tiny_blank/1\.0\.0 train.*label -1"):
        streams.open_splits("tiny_blank", data_dir=folder, validation=0)


def test_encoded_examples_are_decoded_alike_or_named(folder):
    greys = sources.source("tiny_greys", "train", folder)
    images = examples("train")[0]
    refused, colours = [], {image.tobytes(): 0 for image in images[3:]}
    for index in range(len(greys)):
        try:
            image = greys[index]["image"]
        except errors.RunError as error:
            refused.append((index, str(error)))
            continue
        assert image.shape == (6, 5, 3)
        assert image.dtype == np.uint8
        if image.tobytes() in colours:
            colours[image.tobytes()] += 1
    assert set(colours.values()) == {1}
    assert len(refused) == 1
    place, message = refused[0]
    assert f"image of example {place} of tiny_greys/1.0.0 train: " in message
    with pytest.raises(errors.RunError, match=f"example {place} of tiny_greys"):
        greys.__getitems__(list(range(len(greys))))
    with pytest.raises(IndexError):
        greys[len(greys)]


def test_all_test_images_are_streamed_and_some(folder):
    for wanted, found in ((None, 8), (5, 5), (99, 8)):
        splits = streams.open_splits("tiny_images", data_dir=folder, num_test=wanted)
        assert len(splits.test) == found


def test_source_gives_examples_by_number_and_takes_slices(folder):
    images = sources.source("tiny_images", "train[:7]", folder)
    assert len(images) == 7
    whole = sources.source("tiny_images", "train", folder)
    np.testing.assert_array_equal(images[3]["image"], whole[3]["image"])
    assert images[3]["label"] == images[3]["image"][0, 0, 0] % 4


@pytest.mark.parametrize("name", ["digits", "tiny_images"])
def test_unknown_split_is_refused_with_those_there_are(folder, name):
    with pytest.raises(errors.RunError, match=r"it has (train, test|test, train)"):
        sources.source(name, "holdout", folder)


def test_nothing_imports_tensorflow(folder, tmp_path):
    """In a new process, which reads the prepared files without the class above."""
    program = (
        "import sys; from experiments.data import datasets, sources, streams;"
        f"datasets.load('tiny_images', data_dir={folder!r},"
        f" cache_dir={str(tmp_path)!r});"
        f"images = sources.source('tiny_images', 'train', {folder!r});"
        "next(iter(streams.stream(images, batch_size=4, train=True)));"
        "print([m for m in ('tensorflow', 'tensorflow_datasets') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['tensorflow_datasets']"


needs_tfds_data = pytest.mark.skipif(
    not os.environ.get("TFDS_DATA_DIR"),
    reason="$TFDS_DATA_DIR is not set: it names a folder of prepared TFDS data sets",
)


@needs_tfds_data
def test_real_test_split_is_complete_and_balanced(tmp_path):
    prepared = prepared_sets.prepare("fashion_mnist")
    images, labels = cache.decoded(prepared, "test", str(tmp_path))
    assert images.shape == (10_000, 28, 28, 1)
    assert np.bincount(labels).tolist() == [1000] * 10
    example = sources.source("fashion_mnist", "test[77:78]")[0]
    np.testing.assert_array_equal(images[77], example["image"])
    assert labels[77] == example["label"]


@needs_tfds_data
def test_real_colour_images_have_the_layout_of_a_batch():
    images = sources.source("cifar10", "train[:200]")
    assert len(images) == 200
    assert images[0]["image"].shape == (32, 32, 3)
    assert {int(images[i]["label"]) for i in range(200)} == set(range(10))
