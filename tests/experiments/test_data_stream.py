"""Streamed batches: what is in them, how processes share them, and how they resume."""

import io
import itertools
import json

import numpy as np
import pytest
from absl import flags
from PIL import Image

from experiments import errors
from experiments.data import datasets, streams, transforms

NUMBERED = 37


def numbered(number=NUMBERED):
    """Images whose pixels and labels are their number: 2 x 3 pixels, 1 channel."""
    images = np.arange(number, dtype=np.uint8)[:, None, None, None]
    return datasets.Arrays(np.tile(images, (1, 2, 3, 1)), np.arange(number))


def photographs():
    """PIL images of different sizes and modes, as they come from a folder of files."""
    rng = np.random.default_rng(0)
    sizes = [(20, 30), (31, 17), (25, 25), (16, 48), (40, 21), (19, 19), (22, 23)]
    images = [
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)) for size in sizes
    ]
    images[2] = images[2].convert("L")
    return [{"image": image, "label": i} for i, image in enumerate(images)]


def take(iterator, number):
    return [next(iterator) for _ in range(number)]


def labels(batches):
    return [batch["label"].tolist() for batch in batches]


def assert_same(first, second):
    """Bit for bit."""
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])


def test_training_batches_have_the_promised_arrays():
    batch = next(iter(streams.stream(numbered(), batch_size=8, train=True)))
    assert set(batch) == {"image", "label"}
    assert batch["image"].shape == (8, 2, 3, 1)
    assert batch["image"].dtype == np.uint8
    assert batch["label"].dtype == np.int32
    np.testing.assert_array_equal(batch["image"][:, 1, 2, 0], batch["label"])


def test_an_epoch_has_no_example_twice_and_the_next_has_another_order():
    iterator = iter(streams.stream(numbered(), batch_size=8, train=True))
    epochs = [
        [*itertools.chain(*labels(take(iterator, NUMBERED // 8)))] for _ in range(3)
    ]
    for epoch in epochs:
        assert len(epoch) == len(set(epoch)) == 32
        assert set(epoch) <= set(range(NUMBERED))
    assert epochs[0] != epochs[1] != epochs[2]
    assert len({frozenset(epoch) for epoch in epochs}) > 1


def test_order_depends_on_the_seed():
    first, again, other = (
        labels(take(iter(streams.stream(
            numbered(), batch_size=8, train=True, seed=seed)), 3))
        for seed in (3, 3, 4)
    )  # fmt: skip
    assert first == again != other


@pytest.mark.parametrize("train", [True, False])
def test_batches_of_two_processes_together_are_those_of_one(train):
    options = {"batch_size": 8, "train": train}
    alone = iter(streams.stream(numbered(), **options))
    shares = [
        iter(streams.stream(numbered(), **options, process_index=p, process_count=2))
        for p in range(2)
    ]
    # In training over the border of an epoch; in evaluation all whole batches.
    for _ in range(7 if train else 4):
        whole = next(alone)["label"].tolist()
        parts = [next(share)["label"].tolist() for share in shares]
        assert [len(part) for part in parts] == [4, 4]
        assert parts[0] == whole[::2]
        assert parts[1] == whole[1::2]


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("size", [3, 32, 33, 37])
def test_evaluation_counts_every_example_once_in_equally_many_batches(size, count):
    shares = [
        list(
            streams.stream(
                numbered(size),
                batch_size=8,
                train=False,
                process_index=p,
                process_count=count,
            )
        )
        for p in range(count)
    ]
    assert len({len(batches) for batches in shares}) == 1
    seen = []
    for batch in itertools.chain(*shares):
        assert batch["image"].shape == (8 // count, 2, 3, 1)
        assert batch["mask"].dtype == bool
        seen += batch["label"][batch["mask"]].tolist()
    assert sorted(seen) == list(range(size))


def resumed(make, before, after):
    """Batches after a state that went through JSON, in a new pipeline."""
    interrupted = iter(make())
    take(interrupted, before)
    state = json.loads(json.dumps(interrupted.get_state()))
    take(interrupted, 2)  # work that the checkpoint does not know of
    iterator = iter(make())
    iterator.set_state(state)
    return take(iterator, after)


@pytest.mark.parametrize("before", [0, 1, 5])
def test_resuming_gives_the_batches_of_an_unbroken_run(before):
    """Digits in memory, over the border of an epoch: 1,294 // 300 = 4 batches."""
    train = datasets.load("digits").train

    def make():
        return streams.stream(train, batch_size=300, train=True, seed=1)

    unbroken = take(iter(make()), before + 4)
    assert_same(resumed(make, before, 4), unbroken[before:])


def test_resuming_gives_the_same_random_crops():
    def make():
        return streams.stream(photographs(), batch_size=2, train=True, image_size=12)

    unbroken = take(iter(make()), 9)
    assert_same(resumed(make, 4, 5), unbroken[4:])
    assert unbroken[0]["image"].shape == (2, 12, 12, 3)


def test_an_evaluation_can_be_resumed():
    def make():
        return streams.stream(numbered(), batch_size=8, train=False)

    assert_same(resumed(make, 2, 3), list(make())[2:])


def test_crops_do_not_depend_on_the_number_of_processes():
    options = {"batch_size": 6, "train": True, "image_size": 9}
    alone = next(iter(streams.stream(photographs(), **options)))
    for p in range(3):
        share = next(
            iter(
                streams.stream(
                    photographs(), **options, process_index=p, process_count=3
                )
            )
        )
        np.testing.assert_array_equal(share["image"], alone["image"][p::3])


def test_crops_of_one_image_differ_from_epoch_to_epoch():
    iterator = iter(
        streams.stream(photographs()[:1], batch_size=1, train=True, image_size=12)
    )
    crops = {next(iterator)["image"].tobytes() for _ in range(5)}
    assert len(crops) == 5


def test_random_boxes_have_admissible_area_and_aspect():
    rng = np.random.default_rng(0)
    for height, width in [(50, 60), (300, 31), (31, 300)]:
        boxes = np.array(
            [transforms.random_box(rng, height=height, width=width) for _ in range(300)]
        )
        left, top, right, bottom = boxes.T
        assert (boxes >= 0).all()
        assert (right <= width).all()
        assert (bottom <= height).all()
        area = (right - left) * (bottom - top) / (height * width)
        aspect = (right - left) / (bottom - top)
        assert (area >= 0.08 - 1e-9).all()
        assert (aspect >= 3 / 4 - 1e-9).all()
        assert (aspect <= 4 / 3 + 1e-9).all()
        assert len(np.unique(boxes, axis=0)) > 30
    # The fallback: an image so long that no try fits.
    box = transforms.random_box(rng, height=1000, width=10)
    assert box == pytest.approx((0, 500 - 20 / 3, 10, 500 + 20 / 3))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_evaluation_cuts_out_the_centre_and_keeps_channels_apart(channels):
    """On a linear ramp, resizing is exact: every pixel is the value at its centre."""
    height, width = 64, 80
    ramp = (np.arange(height)[:, None] + np.arange(width)[None, :]).astype(np.uint8)
    image = np.stack([ramp + 10 * c for c in range(channels)], axis=-1)
    arrays = datasets.Arrays(image[None], np.zeros(1, np.int32))
    (batch,) = streams.stream(arrays, batch_size=1, train=False, image_size=28)
    # 0.875 * 64 = 56 pixels, two to one, from row 4 and column 12 on.
    centre = np.arange(28) * 2 + 0.5
    expected = (centre[:, None] + 4) + (centre[None, :] + 12)
    for channel in range(channels):
        found = batch["image"][0, 2:-2, 2:-2, channel].astype(float)
        np.testing.assert_allclose(found, expected[2:-2, 2:-2] + 10 * channel, atol=1)


def test_encoded_images_are_decoded():
    image = photographs()[0]["image"]
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    source = [{"image": buffer.getvalue(), "label": 5}]
    (batch,) = streams.stream(source, batch_size=1, train=False)
    np.testing.assert_array_equal(batch["image"][0], np.asarray(image))


def test_images_of_different_size_without_an_image_size_are_refused():
    batches = streams.stream(photographs(), batch_size=7, train=False)
    with pytest.raises(errors.RunError, match="give an image size"):
        list(batches)


def test_images_that_are_not_bytes_of_pixels_are_refused():
    arrays = datasets.Arrays(np.zeros((4, 2, 2, 1), np.float32), np.zeros(4, np.int32))
    with pytest.raises(errors.RunError, match=r"got float32 \[2, 2, 1\]"):
        list(streams.stream(arrays, batch_size=2, train=False))


def test_batch_that_the_processes_cannot_share_is_refused():
    with pytest.raises(errors.RunError, match="multiple of the 3 processes"):
        streams.stream(
            numbered(), batch_size=8, train=True, process_index=0, process_count=3
        )


@pytest.mark.parametrize(("size", "train"), [(7, True), (0, False)])
def test_too_few_examples_are_refused(size, train):
    with pytest.raises(errors.RunError, match=f"there are {size} examples"):
        streams.stream(numbered(size), batch_size=8, train=train)


def test_workers_without_parsed_flags_are_refused(monkeypatch):
    monkeypatch.setattr(type(flags.FLAGS), "is_parsed", lambda self: False)
    with pytest.raises(errors.RunError, match=r"absl\.app\.run"):
        streams.stream(numbered(), batch_size=8, train=True, num_workers=1)


@pytest.mark.parametrize("image_size", [0, -8])
def test_a_size_that_no_image_has_is_refused_before_anything_is_read(image_size):
    class Unread:
        def __len__(self):
            return 64

        def __getitem__(self, index):
            raise AssertionError("it was read")

    with pytest.raises(errors.RunError, match="image_size must be at least 1"):
        streams.stream(Unread(), batch_size=8, train=True, image_size=image_size)
    with pytest.raises(errors.RunError, match="image_size must be at least 1"):
        streams.open_splits("folder/nowhere", image_size=image_size)
