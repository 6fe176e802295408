"""Text of one's own: what is read, how it is divided, and a run that is interrupted."""

import functools
import json
import os

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from experiments import errors
from experiments.data import memory, sources, streams, text_files
from experiments.training import loop
from tests.experiments import test_loop
from tests.experiments.test_text import QUIET, smoke_config

LINES = [f"{n} and {n * n} are numbers." for n in range(400)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def write(path, documents):
    """Writes documents in the form that the ending of the file asks for."""
    path.parent.mkdir(exist_ok=True, parents=True)
    table = pyarrow.table({"other": range(len(documents)), "text": documents})
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    elif path.suffix == ".arrow":
        with pyarrow.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    elif path.suffix == ".jsonl":
        lines = [json.dumps({"text": one} if i % 2 else one) + "\n\n"
                 for i, one in enumerate(documents)]  # fmt: skip
        path.write_text("".join(lines))
    else:
        (document,) = documents
        path.write_bytes(document.encode())


def read(name, split, length=8):
    """The bytes of a split, and those that follow each of them."""
    pieces = text_files.find(name, split, length=length)
    inputs, following = (
        np.concatenate([np.asarray(piece[field]) for piece in pieces])
        for field in ("image", "label")
    )
    np.testing.assert_array_equal(inputs[1:], following[:-1])
    return inputs.astype(np.uint8).tobytes()


@pytest.mark.parametrize("suffix", text_files.documents.SUFFIXES)
def test_a_file_of_each_form_is_its_documents_with_lines_between(place, suffix):
    documents = ["one", "", "two\n\nthree", "\nfür vier\n", "x" * 500]
    whole = "one\n\ntwo\n\nthree\n\nfür vier\n\n" + "x" * 500
    given = documents if suffix != ".txt" else ["\ufeff" + whole.replace("\n", "\r\n")]
    write(place / f"mine{suffix}", given)
    name = f"text/mine{suffix}"
    found = read(name, "train") + read(name, "test")
    assert found == whole.encode()[: len(found)]
    assert len(whole.encode()) - 9 <= len(found)
    assert len(read(name, "test")) == len(found) // 8 // 10 * 8  # the last tenth


def test_a_folder_of_splits_is_read_in_the_order_of_its_paths(place):
    write(place / "mine" / "train" / "b.txt", ["second " * 9])
    write(place / "mine" / "train" / "a" / "z.jsonl", ["first " * 9])
    write(place / "mine" / "validation-0.txt", ["third " * 9])
    write(place / "mine" / "notes.md", ["no text"])
    train, test = read("text/mine", "train"), read("text/mine", "test")
    assert train.decode() == ("first " * 9 + "\n\n" + "second " * 9)[: len(train)]
    assert test.decode() == ("third " * 9)[: len(test)]


def test_pieces_of_the_parts_do_not_overlap_and_are_the_whole(place):
    write(place / "mine.jsonl", LINES)
    splits = streams.open_splits("text/mine.jsonl", validation=0.2, length=16)
    assert splits.is_text
    assert splits.num_classes == 256
    parts = splits.train, splits.validation, splits.test
    found = [b"".join(piece["image"].tobytes() for piece in part) for part in parts]
    whole = "\n\n".join(LINES).encode()
    assert b"".join(found) == whole[: (len(whole) - 1) // 16 * 16]
    sizes = [len(part) for part in parts]
    assert sizes[1] == round(0.2 * (sizes[0] + sizes[1]))
    assert len({str(part.identity()) for part in parts}) == 3
    few = streams.open_splits(
        "text/mine.jsonl", validation=3, num_train=5, num_test=2, length=16
    )
    assert [len(part) for part in (few.train, few.validation, few.test)] == [5, 3, 2]
    assert sources.classes_of("text/mine.jsonl") == (256, None)


def test_a_text_is_packed_once_and_anew_if_it_or_the_cache_changes(place):
    file = place / "mine.txt"
    write(file, ["a" * 300])
    first = text_files.find("text/mine.txt", "train").identity()
    (packed,) = (place.parent / "cache" / "adaste_jax").glob("text-*.bin")
    before = packed.stat().st_mtime_ns
    assert text_files.find("text/mine.txt", "train").identity() == first
    assert packed.stat().st_mtime_ns == before
    os.truncate(packed, 10)  # a disk that was full
    assert text_files.find("text/mine.txt", "train").identity() == first
    assert read("text/mine.txt", "train").startswith(b"aaa")
    write(file, ["b" * 300])
    assert text_files.find("text/mine.txt", "train").identity() != first
    assert read("text/mine.txt", "train").startswith(b"bbb")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.txt", b"caf\xe9 " * 99, r"a.txt: it is not text in UTF-8.*0xe9.*Convert"),
        ("a.jsonl", b'"one"\n{"text": 1}\n', "line 2 of .*a.jsonl must be a text"),
        ("a.jsonl", b'"one"\n\n{"text"\n', "line 3 of .*a.jsonl is not JSON"),
        ("a.parquet", b"PAR1 or not", r"cannot read .*a.parquet: .*Parquet"),
        ("a.arrow", b"something else", r"cannot read .*a.arrow"),
        ("a.txt", b"short", "has 5 bytes, which are too few for pieces of 128"),
        ("a.csv", b"a,b", r"a.csv is not a file of text, which ends in .arrow"),
    ],
)
def test_what_is_no_text_is_refused_and_nothing_is_left(place, file, content, message):
    (place / file).write_bytes(content)
    with pytest.raises(errors.RunError, match=message):
        text_files.find(f"text/{file}", "train")
    cache = place.parent / "cache" / "adaste_jax"
    assert len(list(cache.glob("*"))) in (0, 2)  # a whole text, or nothing


def test_what_is_missing_is_said(place):
    (place / "empty").mkdir()
    with pytest.raises(errors.RunError, match=r"empty holds no text \(.arrow, "):
        text_files.find("text/empty", "train")
    with pytest.raises(errors.RunError, match=r"there is no .*nowhere"):
        text_files.find("text/nowhere", "train")
    with pytest.raises(errors.RunError, match="no split 'dev'"):
        text_files.find("text/empty", "dev")
    table = pyarrow.table({"content": ["a"]})
    pyarrow.parquet.write_table(table, place / "a.parquet")
    with pytest.raises(errors.RunError, match="no column 'text'; it has content"):
        text_files.find("text/a.parquet", "train")


def test_a_run_of_streamed_text_goes_on_where_it_was_killed(
    place, tmp_path, monkeypatch
):
    write(place / "mine.jsonl", LINES)
    config = smoke_config(
        dataset="text/mine.jsonl",
        text_length=32,
        num_train=96,
        num_test=16,
        validation=16 / 342,  # of the pieces that are not for testing
        num_epochs=2,
        checkpoint_every_steps=4,
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train = functools.partial(loop.train_and_evaluate, config, console=QUIET)
    train(whole)

    def interrupted(compiled):
        def call(state, batch, resident):
            if int(state.step) == 9:
                raise test_loop.InterruptionError
            return compiled(state, batch, resident)

        return call

    with monkeypatch.context() as patch:
        test_loop.wrap_train_step(patch, interrupted)
        with pytest.raises(test_loop.InterruptionError):
            train(broken)
    result = train(broken)
    assert result["steps"] == 12
    assert result["test_bits_per_byte"] > 0
    test_loop.assert_bit_identical(whole, broken, config)


def test_text_that_is_kept_in_memory_is_that_of_the_pieces(place):
    write(place / "mine.jsonl", LINES)
    splits = streams.open_splits("text/mine.jsonl", validation=0.2, length=16)
    kept = memory.decoded(splits, image_size=None)
    assert kept.is_text
    for one, other in ((splits.train, kept.train), (splits.test, kept.test)):
        assert len(one) == len(other)
        np.testing.assert_array_equal(other.images, [piece["image"] for piece in one])
        np.testing.assert_array_equal(other.labels, [piece["label"] for piece in one])
