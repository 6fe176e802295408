"""Text as tokens of a `tokenizer.json`: from files to training, text and llama.cpp."""

import json
import shutil
import sys

import numpy as np
import pytest

from experiments import errors, export, generate, hub, predict
from experiments.data import memory, sources, streams, text_files, tokens
from experiments.training import loop, restore
from experiments.training.run import Run
from tests.experiments import test_loop, test_text_files
from tests.experiments.test_generate import QUIET, smoke_config
from tests.export import llama_cpp

tokenizers = pytest.importorskip(
    "tokenizers", reason="tokenizers is not installed (extra hf)"
)

place, write = test_text_files.place, test_text_files.write

LINES = [f"für {n} and {n * n}: 𝄞 numbers." for n in range(300)]
WHOLE = "\n\n".join(LINES)


def byte_level():
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(LINES, trainer)
    made.enable_truncation(7)  # is for other uses of the file than this one
    made.enable_padding(length=512)
    return made


def of_pieces():
    """As in T5: other letters in the place of spaces, and a token for the unknown."""
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.normalizer = tokenizers.normalizers.NFKC()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator([line.replace("𝄞", "") for line in LINES], trainer)
    return made


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    byte_level().save(str(path))
    return path


def test_a_text_becomes_the_tokens_that_the_tokenizer_makes_of_it(place, file):
    write(place / "mine.jsonl", LINES)
    found = tokens.find(file)
    pieces = text_files.find("text/mine.jsonl", "train", length=8, vocabulary=found)
    held = np.concatenate([piece["image"] for piece in pieces])
    following = np.concatenate([piece["label"] for piece in pieces])
    np.testing.assert_array_equal(held[1:], following[:-1])
    assert held.dtype == following.dtype == np.int32
    plain = tokenizers.Tokenizer.from_file(str(file))
    plain.no_truncation()
    plain.no_padding()
    assert (
        plain.decode(held).encode()
        == WHOLE.encode()[: len(plain.decode(held).encode())]
    )
    expected = plain.encode(LINES[0]).ids + plain.encode("\n\n" + LINES[1]).ids
    assert held[: len(expected)].tolist() == expected
    assert sources.classes_of("text/mine.jsonl", vocabulary=found) == (found.size, None)


@pytest.mark.parametrize("make", [byte_level, of_pieces])
def test_every_byte_of_the_text_is_counted_once(make, place, tmp_path):
    write(place / "mine.jsonl", LINES)
    path = tmp_path / "tokenizer.json"
    make().save(str(path))
    opened = {"name": "text/mine.jsonl", "length": 4, "vocabulary": tokens.find(path)}
    parts = [text_files.find(split=split, **opened) for split in ("train", "test")]
    counted = sum(part.bytes_per_token * 4 * len(part) for part in parts)
    # without the first token, and at most four at the end, which fill no piece
    assert len(WHOLE.encode()) - 80 < counted < len(WHOLE.encode())
    if make is byte_level:  # each token says how many bytes it is
        plain = tokenizers.Tokenizer.from_file(str(path))
        labels = np.concatenate([piece["label"] for piece in parts[1]])
        kept = plain.decode(labels).encode()
        assert parts[1].bytes_per_token * len(labels) == pytest.approx(len(kept), abs=4)
    splits = streams.open_splits(validation=0.2, **opened)
    decoded = memory.decoded(splits, image_size=None)
    for split in ("train", "validation", "test"):
        one, other = getattr(splits, split), getattr(decoded, split)
        assert one.bytes_per_token == other.bytes_per_token
        np.testing.assert_array_equal(other.images, [piece["image"] for piece in one])
    assert decoded.train.images.dtype == tokens.dtype(splits.num_classes)


@pytest.mark.parametrize("between", ["\n", " "])
def test_a_long_document_in_parts_is_the_same_text(file, between, monkeypatch):
    text, found = between.join(LINES), tokens.find(file)
    [whole] = found.packed([text.encode()])
    monkeypatch.setattr(tokens, "_LONGEST", 100)
    parts = list(found.packed([text.encode(), b"", b"end"]))
    assert len(parts) > len(text) / 100
    joined = np.concatenate(parts)
    plain = tokenizers.Tokenizer.from_file(str(file))
    assert plain.decode(joined["token"]) == text + "end"
    assert joined["bytes"].sum() == len(text.encode()) + 3
    np.testing.assert_array_equal(parts[0][:-1], whole[: len(parts[0]) - 1])


def test_the_pack_of_one_tokenizer_is_not_that_of_another(place, file, tmp_path):
    write(place / "mine.jsonl", LINES)
    other = tmp_path / "other.json"
    of_pieces().save(str(other))
    found = [
        text_files.find("text/mine.jsonl", "train", length=8, vocabulary=one)
        for one in (tokens.BYTES, tokens.find(file), tokens.find(other))
    ]
    assert len({one.identity()["digest"] for one in found}) == 3
    cached = list((place.parent / "cache" / "adaste_jax").glob("text-*.bin"))
    assert len(cached) == 3
    times = [one.stat().st_mtime_ns for one in cached]
    shutil.copy(file, tmp_path / "copy.json")
    copied = tokens.find(tmp_path / "copy.json", 400)
    again = text_files.find("text/mine.jsonl", "train", length=8, vocabulary=copied)
    assert again.identity() == found[1].identity()
    assert [one.stat().st_mtime_ns for one in cached] == times


def test_text_is_decoded_as_it_comes_with_its_prompt_before_it(file, tmp_path):
    path = tmp_path / "tokenizer.json"
    of_pieces().save(str(path))
    for found, letters in (
        (tokens.find(path), "and numbers."),
        (tokens.find(file), "𝄞 numbers\n\n"),
        (tokens.BYTES, "𝄞 numbers\n\n"),
    ):
        prompt = found.encode("für 3")
        more = found.encode("für 3 " + letters)[len(prompt) :]
        assert "".join(found.decode(more, prompt)) == " " + letters


@pytest.fixture(scope="module")
def trained(file, tmp_path_factory):
    """The workdir of a run on tokens, its config and its result."""
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "data").mkdir()
    write(folder / "data" / "mine.jsonl", LINES)
    shutil.copy(file, folder / "own.json")
    config = smoke_config().copy_and_resolve_references()
    config.update(
        dataset="text/mine.jsonl",
        data_dir=str(folder / "data"),
        cache_dir=str(folder / "cache"),
        tokenizer=str(folder / "own.json"),
        vocabulary_size=300,
        text_length=16,
        num_train=48,
        num_test=16,
        validation=0.05,
    )
    with test_loop.undrawn():
        result = loop.train_and_evaluate(config.lock(), folder / "run", console=QUIET)
    (folder / "own.json").unlink()  # the run has a copy
    return folder, config, result


def test_a_run_counts_bits_of_bytes_and_not_of_tokens(trained):
    folder, _, result = trained
    problem = restore.saved(folder / "run").problem()
    assert problem.num_classes == 300
    test = problem.splits.test
    labels = np.concatenate([piece["label"] for piece in test])
    kept = problem.vocabulary._tokenizer.decode(labels).encode()
    bits = result["test_loss"] / np.log(2) * len(labels)
    assert result["test_bits_per_byte"] == pytest.approx(bits / len(kept), rel=0.01)
    assert len(kept) > 1.5 * len(labels)


def test_text_is_generated_from_the_workdir_alone(trained, capsys):
    path = trained[0] / "run"
    generate.main([f"--workdir={path}", "--prompt=für 3", "--tokens=12"])
    printed = capsys.readouterr().out
    assert printed.startswith("für 3")
    assert len(printed) > len("für 3\n")
    found = list(generate.generate(path, "für 3", tokens=12, temperature=0))
    assert len(found) == 12


@pytest.fixture(scope="module")
def exported(trained):
    folder = trained[0]
    out = folder / "out"
    report = export.export_run(
        folder / "run",
        out / "m.safetensors",
        program=out / "m.stablehlo",
        hugging_face=out / "hf",
    )
    return out, report


def test_the_file_has_its_tokenizer_beside_it_and_predicts_with_it(
    trained, exported, file, monkeypatch
):
    folder, config, result = trained
    out, report = exported
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "home"))
    assert report["paths"]["program"]["largest_difference"] < 1e-4
    assert (out / "m.tokenizer.json").read_bytes() == file.read_bytes()
    assert (out / "hf" / "tokenizer.json").read_bytes() == file.read_bytes()
    for name in ("m.safetensors", "m.stablehlo"):
        found = predict.evaluate(out / name, data_dir=config.data_dir, num_test=16)
        assert found["loss"] == pytest.approx(result["test_loss"], rel=1e-4)
    hub.push(
        str(folder / "hub"), out / "m.safetensors", folder / "run", licence="cc0-1.0"
    )
    pulled = hub.pull(str(folder / "hub"), folder / "pulled")
    assert (
        predict.evaluate(pulled, data_dir=config.data_dir, num_test=16)["count"] == 16
    )
    (folder / "pulled" / "m.tokenizer.json").write_text("{}")
    with pytest.raises(errors.RunError, match=r"m.tokenizer.json: it is no tokenizer"):
        predict.evaluate(pulled, data_dir=config.data_dir)
    of_pieces().save(str(folder / "pulled" / "m.tokenizer.json"))
    with pytest.raises(errors.RunError, match="is not the tokenizer of the network"):
        predict.evaluate(pulled, data_dir=config.data_dir)


def test_llama_cpp_finds_the_tokenizer_in_the_file(trained, exported):
    pytest.importorskip("gguf", reason="gguf is not installed (extra gguf)")
    folder = trained[0]
    path = folder / "m.gguf"
    export.export_run(folder / "run", folder / "x.safetensors", gguf=path, data=False)
    vocabulary = restore.saved(folder / "run").problem().vocabulary
    loaded = llama_cpp.Model(path, 300)
    try:
        assert loaded.tokenize(LINES[7]) == vocabulary.encode(LINES[7])
    finally:
        loaded.close()


def refused(config, message, **changed):
    other = config.copy_and_resolve_references()
    other.update(changed)
    with pytest.raises(errors.RunError, match=message):
        Run(other.lock())


def test_what_is_no_tokenizer_is_refused_before_training(
    trained, file, tmp_path, monkeypatch
):
    _, config, _ = trained
    refused(config, r"config.tokenizer: cannot use the tokenizer .*own.json: No such")
    here = {"tokenizer": str(file)}
    refused(
        config, "it has 290 tokens, more than the 280 of", vocabulary_size=280, **here
    )
    refused(config, "it is no tokenizer.json", tokenizer=__file__)
    refused(config, "is for text/NAME", dataset="pydoc_topics", text_length=128, **here)
    refused(config, "is for config.tokenizer; bytes are 256", tokenizer="")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    tokens._parsed.cache_clear()
    refused(config, "it needs tokenizers: pip install tokenizers", **here)


def test_a_workdir_with_another_tokenizer_is_refused(trained, tmp_path):
    other = tmp_path / "run"
    shutil.copytree(trained[0] / "run", other)
    described = json.loads((other / "tokenizer.json").read_text())
    described["version"] = "1.0 "
    (other / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(errors.RunError, match="tokenizer"):
        next(generate.generate(other, "für"))
    of_pieces().save(str(other / "tokenizer.json"))
    with pytest.raises(errors.RunError, match="is not the tokenizer that the network"):
        next(generate.generate(other, "für"))
