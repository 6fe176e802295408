"""The text, and a language model of it from training to prediction."""

import functools
import json
import sys

import jax
import numpy as np
import pytest
import rich.console

from experiments import errors, export, predict
from experiments.configs import language_model
from experiments.data import datasets, sources, streams
from experiments.data import text as texts
from experiments.deployment import deployed
from experiments.training import loop
from experiments.training.run import Run

QUIET = rich.console.Console(quiet=True)


def smoke_config(**fields):
    config = language_model.get_config("smoke")
    config.tensorboard = False
    config.update(fields)
    return config.lock()


def test_labels_are_the_bytes_that_follow_across_the_pieces_too():
    inputs, following = texts.pydoc_topics()["train"]
    assert inputs.dtype == following.dtype == np.uint8
    assert inputs.shape == following.shape == (len(inputs), 128)
    np.testing.assert_array_equal(inputs.ravel()[1:], following.ravel()[:-1])
    assert b"The Python interpreter" in inputs.tobytes()


def test_text_is_the_same_each_time_and_no_paragraph_is_in_two_splits():
    first, again = texts.pydoc_topics(), texts.pydoc_topics()
    for split, (inputs, _) in first.items():
        np.testing.assert_array_equal(inputs, again[split][0])
    # The first and the last paragraph of a split may be cut.
    train, test = (
        set(inputs.tobytes().split(b"\n\n")[1:-1])
        for inputs, _ in (first["train"], first["test"])
    )
    assert len(test) > 50
    assert not train & test
    sizes = {split: len(inputs) for split, (inputs, _) in first.items()}
    assert sizes["test"] == (sizes["train"] + sizes["test"]) // 10


def test_python_without_the_text_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(errors.RunError, match="comes without pydoc_data"):
        texts.pydoc_topics()


def test_splits_of_text_have_no_moments_and_share_no_example():
    splits = datasets.load("pydoc_topics", num_train=200, num_test=30)
    assert splits.is_text
    assert (splits.mean, splits.std, splits.max_value) == (None, None, None)
    assert splits.num_classes == 256
    assert (len(splits.train), len(splits.test)) == (200, 30)
    assert splits.train.labels.dtype == np.int32
    assert splits.train.labels.shape == (200, 128)
    train, validation = (
        {piece.tobytes() for piece in part.images}
        for part in (splits.train, splits.validation)
    )
    assert len(train) == 200
    assert not train & validation
    again = datasets.load("pydoc_topics", num_train=200, num_test=30)
    np.testing.assert_array_equal(splits.train.images, again.train.images)


def test_bytes_pass_unchanged_and_are_not_augmented():
    tokens = np.arange(12, dtype=np.uint8).reshape(2, 6)
    text = functools.partial(datasets.augment, None, tokens, mean=None, std=None)
    output = text(kind="none", max_value=None)
    assert output.dtype == np.uint8
    np.testing.assert_array_equal(output, tokens)
    with pytest.raises(errors.RunError, match="'flip' is for images"):
        text(kind="flip", max_value=None)
    with pytest.raises(errors.RunError, match="pydoc_topics is text"):
        Run(smoke_config(augment="pad_crop_flip"))


def test_streamed_text_is_that_of_the_source():
    source = sources.source("pydoc_topics", "test")
    batch = next(iter(streams.stream(source, batch_size=4, train=False)))
    np.testing.assert_array_equal(batch["image"][3], source[3]["image"])
    assert batch["label"].dtype == np.int32
    np.testing.assert_array_equal(batch["label"][3], source[3]["label"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The workdir and the result of a run that was killed in its second epoch."""
    path = tmp_path_factory.mktemp("text") / "run"
    config = smoke_config(num_epochs=2)
    compile_step = Run.train_step.func
    compiled = []  # once for both runs

    def dying_the_first_time(run):
        first = not compiled
        if first:
            compiled.append(compile_step(run))

        def step(state, batch, resident):
            if first and int(state.step) == 4:
                raise KeyboardInterrupt
            return compiled[0](state, batch, resident)

        return step

    train_step = functools.cached_property(dying_the_first_time)
    train_step.__set_name__(Run, "train_step")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "train_step", train_step)
        with pytest.raises(KeyboardInterrupt):
            loop.train_and_evaluate(config, path, console=QUIET)
        return path, loop.train_and_evaluate(config, path, console=QUIET)


def test_a_killed_run_of_text_goes_on_and_counts_bits_per_byte(trained):
    path, result = trained
    assert result["steps"] == 6
    assert result["test_bits_per_byte"] == pytest.approx(
        np.log2(np.exp(result["test_loss"]))
    )
    records = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    validation = [record for record in records if record["split"] == "validation"]
    assert [record["step"] for record in validation] == [3, 6]
    assert all("bits_per_byte" in record for record in validation)
    # Four kernels of 16 x 16, two of 16 x 64, and 16 x 256.
    assert result["one_bit_parameters"] == 4 * 256 + 2 * 1024 + 4096


def test_a_network_without_batch_norm_has_nothing_to_fold():
    run = Run(smoke_config())
    params = jax.tree.map(
        lambda leaf: np.ones(leaf.shape, leaf.dtype), jax.eval_shape(run.init).params
    )
    description = deployed.describe(run.config, run.splits, folded=False)
    with pytest.raises(errors.RunError, match="nothing to fold"):
        deployed.fold(description, params, {})


def test_files_and_programs_predict_text(trained, tmp_path):
    path, result = trained
    out, program = tmp_path / "m.safetensors", tmp_path / "m.stablehlo"
    report = export.export_run(path, out, program=program)
    assert report["num_test"] == 32
    for name in ("file", "program"):
        assert report["paths"][name]["largest_difference"] < 1e-4
    assert report["packed"]["ratio"] == 32
    found = predict.evaluate(program, batch_size=16, num_test=32)
    assert found["loss"] == pytest.approx(result["test_loss"], rel=1e-4)
    assert found["accuracy"] == pytest.approx(result["test_accuracy"], abs=1e-3)
    call, metadata = predict.load(out)
    assert metadata["input"]["shape"] == [128]
    assert metadata["input"]["mean"] is None
    tokens = jax.numpy.zeros((2, 128), np.uint8)
    assert call(tokens).shape == (2, 128, 256)
