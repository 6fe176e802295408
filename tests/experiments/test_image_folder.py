"""Folders of images: one folder for each class, and TinyImageNet as it is unpacked."""

import os
import socket

import numpy as np
import pytest
from PIL import Image

from experiments import errors
from experiments.configs import base
from experiments.data import image_folder, images, listing, sources, streams
from experiments.training import checks
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
    test = sources.source(tiny_sets.TINY_IMAGENET, "test", tiny_imagenet)
    assert image_folder.classes(tiny_sets.TINY_IMAGENET, tiny_imagenet) == [
        "n00000000",
        "n00000001",
        "n00000002",
    ]
    assert np.bincount(train.labels).tolist() == [8, 8, 8]
    assert len(test) == 5
    for part in (train, test):
        for i in range(len(part)):
            example = part[i]
            pixels = np.asarray(example["image"])
            assert pixels.shape == (64, 64, 3)
            # Its images are of the colour of their class; JPEG is not exact.
            assert abs(pixels.mean() - tiny_sets.colour(example["label"])) < 3


def test_classes_in_folders_and_a_split_by_another_name(plain):
    test = sources.source("folder/pets", "test", plain)
    assert [int(test[i]["label"]) for i in range(len(test))] == [0, 0, 0, 1, 1, 1]
    grey = test[1]["image"]
    assert (grey.mode, grey.getpixel((0, 0))) == ("RGB", (100, 100, 100))


def test_splits_keep_the_classes_in_proportion_and_share_no_image(plain):
    splits = streams.open_splits(
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
    again = streams.open_splits(
        "folder/pets", data_dir=plain, validation=0.5, image_size=4
    )
    np.testing.assert_array_equal(again.train.labels, splits.train.labels)


def test_evaluation_leaves_an_image_of_the_right_size_alone(tiny_imagenet):
    test = image_folder.files(tiny_sets.TINY_IMAGENET, "test", tiny_imagenet)
    (batch,) = streams.stream(test, batch_size=5, train=False, image_size=64)
    np.testing.assert_array_equal(batch["image"][3], np.asarray(test[3]["image"]))


def test_an_image_that_cannot_be_read_is_named(plain, tmp_path):
    broken = tmp_path / "pets" / "train" / "cat" / "3.png"
    broken.write_bytes(broken.read_bytes()[:20])
    found = image_folder.files("folder/pets", "train", plain)
    with pytest.raises(errors.RunError, match=r"cannot read the image .*cat.3\.png"):
        found[3]


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
    with pytest.raises(errors.RunError, match="classes that are not in train: cow"):
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


def picture(file, value=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 5), (value, 0, 0)).save(file, file.suffix[1:].lower())


def counts(folder, split="train"):
    return image_folder.find("folder/pets", split, folder).counts


def test_what_systems_leave_behind_is_no_class_and_no_image(plain, tmp_path):
    for split in ("train", "validation"):
        for junk in (".git", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "__pycache__"):
            picture(tmp_path / "pets" / split / junk / "0.png")
            picture(tmp_path / "pets" / split / "cat" / junk / "0.png")
        picture(tmp_path / "pets" / split / "cat" / "._1.png")
        (tmp_path / "pets" / split / ".DS_Store").write_bytes(b"x")
    assert image_folder.classes("folder/pets", plain) == ["cat", "dog"]
    assert counts(plain) == {"cat": 6, "dog": 6}
    assert counts(plain, "test") == {"cat": 3, "dog": 3}
    # A folder `test` with nothing but junk is not the split.
    picture(tmp_path / "pets" / "test" / "__MACOSX" / "cat" / "0.png")
    assert counts(plain, "test") == {"cat": 3, "dog": 3}


def test_links_are_followed_once_and_in_no_circle(plain, tmp_path):
    cats, pool = tmp_path / "pets" / "train" / "cat", tmp_path / "pool"
    for i in range(3):
        picture(pool / "deep" / f"{i}.png")
    (cats / "more").symlink_to(pool)
    (cats / "again").symlink_to(pool / "deep")  # in `more` too
    (pool / "up").symlink_to(pool)
    (pool / "deep" / "all").symlink_to(tmp_path)
    (cats / "self").symlink_to(cats)
    (cats / "parent").symlink_to(tmp_path / "pets" / "train")
    (cats / "one.png").symlink_to(pool / "deep" / "0.png")
    found = image_folder.find("folder/pets", "train", plain)
    assert found.counts == {"cat": 6 + 3 + 1, "dog": 6}
    assert found.skipped["cat"][listing.LEADS_BACK] == 5
    (tmp_path / "pets" / "train" / "fox").symlink_to(pool / "deep")
    assert image_folder.classes("folder/pets", plain) == ["cat", "dog", "fox"]
    assert counts(plain)["fox"] == 3


def test_a_link_into_its_own_class_changes_no_name(plain, tmp_path):
    before = image_folder.files("folder/pets", "train", plain).identity()
    dogs = tmp_path / "pets" / "train" / "dog"
    (dogs / "a").symlink_to(dogs)
    picture(dogs / "real" / "0.png")
    (dogs / "link").symlink_to(dogs / "real")
    paths = listing.images(dogs).paths
    assert paths == sorted(map(str, [*dogs.glob("*.png"), dogs / "real" / "0.png"]))
    (dogs / "real" / "0.png").unlink()
    assert image_folder.files("folder/pets", "train", plain).identity() == before


@pytest.mark.parametrize("target", ["/nowhere/at/all", "loop"])
@pytest.mark.parametrize("place", ["cow", "cat/images", "cat/7.png"])
def test_a_link_that_leads_nowhere_is_named(plain, tmp_path, place, target):
    link = tmp_path / "pets" / "train" / place
    link.symlink_to(link if target == "loop" else target)
    with pytest.raises(errors.RunError, match=rf"cannot follow .*{place}"):
        image_folder.files("folder/pets", "train", plain)


def test_what_is_no_regular_file_is_passed_over(plain, tmp_path, monkeypatch):
    cats = tmp_path / "pets" / "train" / "cat"
    os.mkfifo(cats / "a.png")
    (cats / "b.jpg").symlink_to(cats / "a.png")
    (cats / "zero.png").symlink_to("/dev/zero")
    monkeypatch.chdir(cats)  # names of sockets must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.png")
        found = image_folder.find("folder/pets", "train", plain)
    assert found.counts == {"cat": 6, "dog": 6}
    assert found.skipped["cat"] == {listing.NOT_REGULAR: 4, ".txt": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_named(plain, tmp_path):
    closed = tmp_path / "pets" / "train" / "cat" / "closed"
    closed.mkdir(mode=0)
    with pytest.raises(errors.RunError, match=r"cannot read the folder .*closed"):
        image_folder.files("folder/pets", "train", plain)


@pytest.mark.parametrize("split", ["train", "test"])
def test_classes_without_images_are_named_with_what_they_hold(plain, tmp_path, split):
    folder = tmp_path / "pets" / {"train": "train", "test": "validation"}[split]
    for name in ("cat", "dog"):
        (tmp_path / "pets" / "train" / name / "x.HEIC").write_bytes(b"x")
    (tmp_path / "pets" / "train" / "owl").mkdir()
    if split == "test":
        picture(tmp_path / "pets" / "train" / "owl" / "0.png")
        (folder / "owl").mkdir()
    for name in ("0.heic", "1.HEIC", ".2.png"):
        (folder / "owl" / name).write_bytes(b"x")
    with pytest.raises(
        errors.RunError, match=r"without images: owl\. In owl there are 2 \.heic, 1 hid"
    ):
        image_folder.files("folder/pets", split, plain)


def test_a_class_may_be_missing_in_test_and_that_is_said(plain, tmp_path, capfd):
    picture(tmp_path / "pets" / "train" / "owl" / "0.png")
    picture(tmp_path / "pets" / "train" / "9.png")
    splits = streams.open_splits(
        "folder/pets", data_dir=plain, validation=0, image_size=4
    )
    assert splits.class_names == ("cat", "dog", "owl")
    assert splits.num_classes == 3
    assert capfd.readouterr().err.splitlines() == [
        "folder/pets/train: 13 images, 1 to 6 of each class; skipped: 2 .txt, "
        "1 images in no class",
        "  cat: 6; skipped: 1 .txt",
        "  dog: 6; skipped: 1 .txt",
        "  owl: 1",
        "folder/pets/validation: 6 images, 0 to 3 of each class; skipped: 2 .txt",
        "  cat: 3; skipped: 1 .txt",
        "  dog: 3; skipped: 1 .txt",
        "  owl: none",
    ]


def test_of_many_classes_only_those_with_something_to_say_are_listed(tmp_path):
    for number in range(25):
        picture(tmp_path / "many" / "train" / f"{number:02}" / "0.png")
    (tmp_path / "many" / "train" / "07" / "notes.txt").write_text("no image")
    found = image_folder.find("folder/many", "train", str(tmp_path))
    assert str(found).splitlines() == [
        "folder/many/train: 25 images, 1 of each class; skipped: 1 .txt",
        "  07: 1; skipped: 1 .txt",
    ]


def folder_config(data_dir, **fields):
    config = base.get_config()
    config.update(dataset="folder/pets", data_dir=data_dir, **fields)
    return config


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(28, 28)] * 4, 0),  # small images of one size stay as they are
        ([(28, 20)] * 4, 0),
        ([(28, 28)] * 3 + [(28, 30)], 24),
        ([(100, 80)] * 4, 64),
        ([(100, 80), (30, 90), (3000, 20), (70, 70)], 48),  # the median is 50
        ([(5, 4), (4, 5)], 8),
    ],
)
def test_a_folder_is_streamed_and_its_size_chosen(tmp_path, capfd, sizes, expected):
    for number, size in enumerate(sizes):
        file = tmp_path / "pets" / "train" / "cat" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(file)
    config = checks.settled(folder_config(str(tmp_path)))
    assert (config.resident, config.image_size) == (False, expected)
    said = capfd.readouterr().err
    assert said.startswith("folder/pets: ")
    assert ("stay so" if not expected else f"{expected} x {expected}") in said
    assert config.is_locked == folder_config(str(tmp_path)).is_locked


def test_one_other_size_among_many_is_found(tmp_path):
    for number in range(400):
        picture(tmp_path / "pets" / "train" / "cat" / f"{number:03}.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "pets" / "train" / "cat" / "001.png")
    assert checks.settled(folder_config(str(tmp_path))).image_size == 8


def test_what_the_config_says_of_a_folder_wins(plain, capfd):
    config = checks.settled(folder_config(plain, image_size=40))
    assert (config.resident, config.image_size) == (False, 40)
    as_in_0_1 = folder_config(plain, resident=False)
    assert checks.settled(as_in_0_1) is as_in_0_1
    digits = base.get_config()
    assert checks.settled(digits) is digits
    assert capfd.readouterr().err == ""


def test_a_photograph_on_its_side_has_the_size_of_the_upright_one(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "0.jpg", exif=exif)
    assert images.size(str(tmp_path / "0.jpg")) == (30, 40)
    assert images.read(str(tmp_path / "0.jpg")).size == (30, 40)


def test_suffixes_in_any_case_and_of_other_formats(plain, tmp_path):
    for name in ("a.PNG", "b.Gif", "c.TIF", "d.tiff", "e.PPM", "f.WebP"):
        file = tmp_path / "pets" / "train" / "cat" / name
        kind = {"tif": "tiff"}.get(file.suffix[1:].lower(), file.suffix[1:].lower())
        Image.new("RGB", (5, 5), (9, 9, 9)).save(file, kind)
    files = image_folder.files("folder/pets", "train", plain)
    assert counts(plain)["cat"] == 12
    assert {files[i]["image"].mode for i in range(len(files))} == {"RGB"}


def test_a_class_is_found_by_its_letters_however_a_system_writes_them(plain, tmp_path):
    picture(tmp_path / "pets" / "train" / "caf\u00e9" / "0.png")
    picture(tmp_path / "pets" / "validation" / "cafe\u0301" / "0.png")
    assert counts(plain, "test")["caf\u00e9"] == 1
    picture(tmp_path / "pets" / "train" / "cafe\u0301" / "0.png")
    with pytest.raises(errors.RunError, match="names look alike"):
        image_folder.classes("folder/pets", plain)


@pytest.mark.parametrize(
    "name", ["folder/../pets", "folder//etc", "folder/a/../..", "folder/"]
)
def test_a_data_set_lies_within_the_data_folder(plain, name):
    with pytest.raises(errors.RunError, match="within the data folder"):
        image_folder.classes(name, plain)


def annotate(folder, content):
    (tiny_sets.root(folder) / "val" / "val_annotations.txt").write_bytes(content)
    return image_folder.find(tiny_sets.TINY_IMAGENET, "test", folder)


def test_annotations_as_editors_write_them(tiny_imagenet):
    lines = [
        b"\xef\xbb\xbfval_2.JPEG\tn00000002",
        b"",
        b" \t ",
        b"val_0.JPEG\tn00000000 \t0\t0\t62\t62",
    ]
    for newline in (b"\n", b"\r\n", b"\r"):
        found = annotate(tiny_imagenet, newline.join(lines) + newline * 2)
        assert found.files.labels.tolist() == [2, 0]
        assert found.counts == {"n00000000": 1, "n00000001": 0, "n00000002": 1}
        assert found.skipped[""] == {"images that are not in val_annotations.txt": 3}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"val_1.JPEG n00000001", "must be the name of a file, a tab and a class"),
        (b"val_1.JPEG\t", "must be the name|class that is not in train"),
        (b"\tn00000001", "must be the name of a file"),
        (b"val_9.JPEG\tn00000001", r"names val_9\.JPEG, but there is no file"),
        (b"val_\xff.JPEG\tn00000001", "but there is no file"),
        (b"val_1\0.JPEG\tn00000001", "but there is no file"),
        (b"val_1.JPEG\tbird", "class that is not in train: bird"),
        (b"val_0.JPEG\tn00000001", r"repeats val_0\.JPEG of line 1"),
    ],
)
def test_a_wrong_line_of_the_annotations_is_named(tiny_imagenet, line, message):
    content = b"val_0.JPEG\tn00000000\n\n" + line + b"\n"
    with pytest.raises(errors.RunError, match=rf"line 3 of .*annotations.*({message})"):
        annotate(tiny_imagenet, content)


def test_annotations_of_nothing_are_refused(tiny_imagenet):
    with pytest.raises(errors.RunError, match="names no images"):
        annotate(tiny_imagenet, b"\n\n")
