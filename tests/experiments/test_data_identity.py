"""The identity of data: the same wherever they lie, another after any change."""

import json
import os
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from experiments import errors
from experiments.data import datasets, fingerprint, streams
from tests.experiments import tiny_sets


@pytest.fixture
def cars(tmp_path):
    rng = np.random.default_rng(0)
    for split, number in (("train", 5), ("val", 2)):
        for name in ("bus", "van"):
            folder = tmp_path / "here" / "cars" / split / name
            folder.mkdir(parents=True)
            for i in range(number):
                image = rng.integers(0, 256, (6, 6, 3), np.uint8)
                Image.fromarray(image).save(folder / f"{i}.bmp")  # all of one size
    return tmp_path / "here"


def of_folder(place):
    splits = streams.open_splits(
        "folder/cars", data_dir=str(place), image_size=6, validation=0.2
    )
    return json.loads(json.dumps(splits.identity(), allow_nan=False))


def test_a_copy_of_a_folder_has_the_same_identity(cars, tmp_path):
    before = of_folder(cars)
    assert [before[part]["examples"] for part in ("train", "validation", "test")] == [
        *(8, 2, 4)
    ]
    assert before["classes"] == ["bus", "van"]
    shutil.copytree(cars, tmp_path / "there")
    os.utime(tmp_path / "there" / "cars" / "train" / "bus" / "1.bmp", (0, 0))
    assert of_folder(tmp_path / "there") == before
    assert fingerprint.differences(before, of_folder(tmp_path / "there")) == []


def remove(cars):
    (cars / "cars/train/van/3.bmp").unlink()


def rename(cars):
    os.rename(cars / "cars/train/van/3.bmp", cars / "cars/train/van/03.bmp")


def to_the_other_class(cars):
    os.rename(cars / "cars/val/van/1.bmp", cars / "cars/val/bus/9.bmp")


def another_class(cars):
    for split in ("train", "val"):
        shutil.copytree(cars / "cars" / split / "van", cars / "cars" / split / "tram")


def other_pixels_of_as_many_bytes(cars):
    file = cars / "cars/val/van/1.bmp"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove, ["train: 8 examples then, 7 now"]),
        (rename, ["examples then and now, but other ones"]),
        (to_the_other_class, ["test: 4 examples then and now, but other ones"]),
        (another_class, ["train: 8 ", "test: 4 ", "classes: 2 (bus, van) then, 3 ("]),
        (other_pixels_of_as_many_bytes, ["test: 4 examples then and now, but other"]),
    ],
)
def test_a_changed_folder_is_told_apart_in_words(cars, change, said):
    before = of_folder(cars)
    change(cars)
    lines = fingerprint.differences(before, of_folder(cars))
    for words in said:
        assert any(words in line for line in lines), lines


def test_a_file_that_is_gone_is_an_error(cars):
    splits = streams.open_splits(
        "folder/cars", data_dir=str(cars), image_size=6, validation=0
    )
    remove(cars)
    with pytest.raises(errors.RunError, match=r"cannot read .*van.3\.bmp"):
        splits.identity()


def test_it_does_not_depend_on_the_process(cars):
    program = (
        "import json; from experiments.data import datasets, streams;"
        "folder = streams.open_splits('folder/cars', data_dir="
        f"{str(cars)!r}, image_size=6, validation=0.2);"
        "print(json.dumps([folder.identity(), datasets.load('digits').identity(),"
        " datasets.load('pydoc_topics', num_train=9).identity()]))"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONHASHSEED": "77",
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert json.loads(done.stdout) == [
        of_folder(cars),
        datasets.load("digits").identity(),
        datasets.load("pydoc_topics", num_train=9).identity(),
    ]


def test_every_byte_of_arrays_counts():
    def of(**changes):
        part = datasets.Arrays(np.zeros((4, 2, 2, 1), np.uint8), np.arange(4))
        for name, index in changes.items():
            getattr(part, name)[index] += 1
        return part.identity()["digest"]

    digests = {of(), of(images=(3, 1, 1, 0)), of(images=(0, 0, 0, 0)), of(labels=2)}
    assert len(digests) == 4
    assert of() == of()
    assert (
        datasets.Arrays(np.zeros((2, 4, 2, 1), np.uint8), np.arange(4)).identity()[
            "digest"
        ]
        not in digests
    )


@pytest.mark.parametrize("field", ["num_train", "num_test", "validation"])
def test_digits_differ_by_what_is_taken_of_them(field):
    one, other = (datasets.load("digits", **{field: n}).identity() for n in (100, 99))
    lines = fingerprint.differences(one, other)
    assert lines
    assert all("100 examples then, 99 now" in line or "train" in line for line in lines)


def test_a_stream_of_tfds_is_known_without_reading_it(tmp_path, monkeypatch):
    folder = tiny_sets.prepare(
        "cifar10",
        tmp_path,
        monkeypatch,
        sizes={"train": 12, "test": 6},
        image_shapes=[(32, 32, 3)],
    )

    def of(**options):
        splits = streams.open_splits("cifar10", data_dir=folder, **options)
        return json.loads(json.dumps(splits.identity()))

    whole = of()
    assert whole == of()
    assert whole["train"]["source"] == "cifar10/3.0.2 train[1:12]"
    assert len(whole["classes"]) == 10
    assert fingerprint.differences(whole, of(num_train=5)) == [
        "train: 11 examples then, 5 now"
    ]


def test_of_an_unknown_source_the_number_is_known():
    source = [{"image": np.zeros((2, 2, 1), np.uint8), "label": 0}] * 3
    splits = datasets.Splits(
        train=source,
        validation=[],
        test=source,
        num_classes=2,
        mean=np.zeros(1),
        std=np.ones(1),
        max_value=255,
    )
    found = splits.identity()
    assert found["train"] == {"examples": 3, "digest": None, "source": "list"}
    assert found["classes"] == 2
    shorter = {**found, "train": {**found["train"], "examples": 2}}
    lines = fingerprint.differences(found, shorter)
    assert lines == ["train: 3 examples then, 2 now"]
    assert fingerprint.differences(found, found) == []


def test_a_large_folder_is_sampled(tmp_path, monkeypatch):
    """Each path and size counts; contents of a part."""
    monkeypatch.setattr(fingerprint, "SAMPLE", 3)
    files = []
    for i in range(7):
        files.append(str(tmp_path / f"{i}.png"))
        (tmp_path / f"{i}.png").write_bytes(bytes([i]))

    def digest():
        return fingerprint.of_files(
            files, np.zeros(7, int), root=str(tmp_path), source="x"
        )["digest"]

    before = digest()
    (tmp_path / "1.png").write_bytes(b"x")
    assert digest() == before  # of the same size, and not in the sample
    (tmp_path / "3.png").write_bytes(b"x")
    assert digest() != before
    (tmp_path / "1.png").write_bytes(b"xx")
    assert len({before, digest()}) == 2


def test_names_are_spelt_in_one_way_whatever_the_system_does(tmp_path):
    seen = set()
    for spelling in ("caf\u00e9", "cafe\u0301"):
        folder = tmp_path / str(len(seen)) / spelling
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(b"x")
        root = str(folder.parent)
        seen.add(
            fingerprint.of_files(
                [str(folder / "0.png")], np.zeros(1, int), root=root, source="x"
            )["digest"]
        )
    assert len(seen) == 1


def test_an_object_may_say_its_identity_itself():
    own = types.SimpleNamespace(identity=lambda: {"examples": 1, "digest": "d"})
    assert fingerprint.of(own)["digest"] == "d"
