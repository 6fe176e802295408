"""Files from strangers: what they say of themselves is bounded, or refused by name."""

import copy
import json
import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from adaste_jax import export
from experiments import errors, predict
from experiments import export as command
from experiments.data import sources
from experiments.deployment import deployed, fits

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "onebit_0.1.safetensors"
DELETED = object()
LARGE = 2**40


@pytest.fixture
def changed(tmp_path):
    """Writes the golden file with other metadata, and gives its path."""
    loaded = export.load(GOLDEN)

    def write(*path, value):
        metadata = copy.deepcopy(loaded.metadata)
        *folders, last = path
        node = metadata
        for folder in folders:
            node = node[folder]
        if value is DELETED:
            del node[last]
        else:
            node[last] = value
        out = tmp_path / "changed.safetensors"
        state = loaded.model_state
        export.save(out, loaded.params, model_state=state, metadata=metadata)
        return out

    return write


def test_a_file_of_version_0_1_predicts_what_it_did():
    found = predict.evaluate(GOLDEN)
    assert found["accuracy"] == 238 / 360
    assert found["loss"] == pytest.approx(1.3324, abs=1e-4)
    assert (found["count"], found["left_out"]) == (360, 0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("architecture",), "mlp"),
        (("architecture", "network"), "MLP"),
        (("architecture", "network"), ["mlp"]),
        (("architecture", "num_classes"), True),
        (("architecture", "num_classes"), 1),
        (("architecture", "num_classes"), LARGE),
        (("architecture", "num_classes"), 10.0),
        (("architecture", "folded"), 0),
        (("architecture", "options"), ["features"]),
        (("architecture", "options", "features"), 12),
        (("architecture", "options", "features"), [12] * 1000),
        (("architecture", "options", "features"), [LARGE]),
        (("architecture", "options", "features"), [12.0]),
        (("architecture", "options", "norm_momentum"), "0.9"),
        (("architecture", "options", "use_logit_norm"), 1),
        (("architecture", "options", "dtype"), "object"),
        (("architecture", "options", "parent"), None),
        (("architecture", "class_names"), ["a"] * 9),
        (("architecture", "class_names"), [7] * 10),
        (("architecture", "class_names"), ["a" * 1000] * 10),
        (("input",), None),
        (("input", "shape"), [8, 8]),
        (("input", "shape"), [8, 8, 0]),
        (("input", "shape"), [2000, 2000, 2]),
        (("input", "image_size"), DELETED),
        (("input", "image_size"), 9),
        (("input", "image_size"), LARGE),
        (("input", "image_size"), -8),
        (("input", "mean"), [0.1, 0.2]),
        (("input", "mean"), [True]),
        (("input", "mean"), [1e300]),
        (("input", "mean"), None),
        (("input", "std"), [0.0]),
        (("input", "std"), [-1.0]),
        (("input", "max_value"), 0),
        (("input", "max_value"), 10**30),
        (("dataset",), None),
        (("dataset",), ["digits"]),
    ],
)
def test_metadata_beyond_their_bounds_are_refused_by_name(changed, path, value):
    file = changed(*path, value=value)
    with pytest.raises(errors.RunError, match="does not describe its network") as error:
        predict.evaluate(file)
    assert path[0] in str(error.value)
    assert re.search("must|is not an option of", str(error.value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("architecture", "options", "features"), [13], "of shape"),
        (("architecture", "options", "features"), [], "cannot be built|no such"),
        (("architecture", "options", "features"), [12] * 7, "7 layers"),
        (("architecture", "num_classes"), 12, "shape"),
        (("architecture", "folded"), True, "batch_stats"),
        (("architecture", "network"), "vit", "option of vit|cannot be"),
        (("input", "shape"), [1024, 1024, 1], "Dense_0/kernel"),
    ],
)
def test_the_description_must_be_that_of_the_tensors(changed, path, value, message):
    with pytest.raises(errors.RunError, match=message):
        predict.load(changed(*path, value=value))


def test_an_input_that_needs_a_huge_array_is_refused(tmp_path):
    """Attention over 60,000 bytes: few tensors, and a square of that in memory."""
    described = {
        "architecture": {
            "network": "language_model",
            "num_classes": 4,
            "options": {"width": 2, "depth": 1, "heads": 1},
            "folded": False,
        },
        "input": {
            "shape": [60000],
            **dict.fromkeys(("image_size", "mean", "std", "max_value")),
        },
    }
    module = deployed.module_of(described)
    shapes = jax.eval_shape(
        lambda: module.init(
            jax.random.key(0), jnp.zeros((1, 60000), jnp.uint8), train=False
        )
    )
    fits.check(described, shapes["params"], {})
    with pytest.raises(errors.RunError, match=r"array of [\d,]{13,} bytes"):
        fits.batch_size(described, shapes["params"], {})
    described["input"]["shape"] = [10]
    shapes["params"]["positions"] = jax.ShapeDtypeStruct((1, 10, 2), jnp.float32)
    assert fits.batch_size(described, shapes["params"], {}) > 1000


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "folder/..",
        "folder/../digits",
        "folder//etc",
        "/etc",
        "folder/a/./b",
        "folder\\..\\x",
        "folder/~root",
        "~/x",
        "folder/a\nb",
        "",
        "x" * 500,
    ],
)
def test_names_that_lead_out_of_the_data_folder_are_refused(changed, tmp_path, name):
    with pytest.raises(errors.RunError, match=r"name of a data set|does not describe"):
        predict.evaluate(changed("dataset", value=name), data_dir=str(tmp_path))
    if name:
        with pytest.raises(errors.RunError, match="not the name of a data set"):
            predict.evaluate(GOLDEN, dataset=name, data_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["mnist", "nowhere:mnist", "huggingface:a/b"])
def test_nothing_is_downloaded_because_a_file_says_so(
    changed, tmp_path, monkeypatch, name
):
    import tensorflow_datasets as tfds

    def refuse(*arguments, **options):
        raise AssertionError("it downloads")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", refuse)
    with pytest.raises(errors.RunError, match=r"--dataset"):
        predict.evaluate(changed("dataset", value=name), data_dir=str(tmp_path))
    assert not list(tmp_path.glob("mnist*"))


def test_a_file_without_a_data_set_needs_the_option(changed):
    file = changed("dataset", value=DELETED)
    with pytest.raises(errors.RunError, match="give --dataset"):
        predict.evaluate(file)
    assert predict.evaluate(file, dataset="digits", num_test=10)["count"] == 10


@pytest.mark.parametrize(
    "options",
    [
        {"num_test": -1},
        {"num_test": 2.5},
        {"num_test": True},
        {"batch_size": 0},
        {"batch_size": -500},
    ],
)
def test_numbers_that_mean_nothing_are_refused(options):
    with pytest.raises(errors.RunError, match="must be a whole number"):
        predict.evaluate(GOLDEN, **options)
    if "num_test" in options:
        with pytest.raises(errors.RunError, match="must be a whole number"):
            command.export_run("nowhere", "nowhere", **options)


def folders(root, names):
    """Data of grey images 8 x 8, in classes of these names."""
    for name in names:
        for split in ("train", "test"):
            place = root / "set" / split / name
            place.mkdir(parents=True)
            Image.new("RGB", (8, 8), (90,) * 3).save(place / "0.png")
    return str(root)


def network(path, *, classes, names=None):
    """A file of an untrained perceptron on colour images 8 x 8."""
    described = {
        "architecture": {
            "network": "mlp",
            "num_classes": classes,
            "options": {"features": [8]},
            "folded": False,
            "class_names": names,
        },
        "input": {
            "shape": [8, 8, 3],
            "image_size": 8,
            "mean": [0.5] * 3,
            "std": [0.25] * 3,
            "max_value": 255,
        },
        "dataset": "folder/set",
    }
    module = deployed.module_of(described)
    images = jnp.zeros((1, 8, 8, 3))
    variables = module.init(jax.random.key(0), images, train=False)
    params = variables.pop("params")
    export.save(path, params, model_state=variables, metadata=described)
    return path


@pytest.mark.parametrize("there", [2, 4])
def test_another_number_of_classes_is_an_error(tmp_path, there):
    root = folders(tmp_path, ["a", "b", "c"])
    file = network(tmp_path / "m", classes=there)
    message = f"the network has {there} classes, the data set folder/set has 3"
    with pytest.raises(errors.RunError, match=message):
        predict.evaluate(file, data_dir=root)


def test_classes_of_other_names_are_an_error(tmp_path):
    root = folders(tmp_path, ["ant", "bee"])
    file = network(tmp_path / "m", classes=2, names=["ant", "cat"])
    with pytest.raises(errors.RunError, match="class 1 is 'cat' in the network and"):
        predict.evaluate(file, data_dir=root)


def test_labels_without_a_class_are_left_out_and_said(monkeypatch, capsys):
    whole = sources.source("digits", "test")
    some = [dict(one) for one in whole[:50]]
    for number in (3, 7, 8):
        some[number]["label"] = np.int64(-1 if number < 8 else 10)
    monkeypatch.setattr(sources, "source", lambda *arguments, **options: some)
    found = predict.evaluate(GOLDEN)
    assert (found["count"], found["left_out"]) == (47, 3)
    monkeypatch.undo()
    kept = [one for number, one in enumerate(whole[:50]) if number not in (3, 7, 8)]
    monkeypatch.setattr(sources, "source", lambda *arguments, **options: kept)
    expected = predict.evaluate(GOLDEN)
    assert found["accuracy"] == expected["accuracy"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    monkeypatch.setattr(sources, "source", lambda *arguments, **options: some)
    predict.main(["--model", str(GOLDEN)])
    assert "left out: 3 examples" in " ".join(capsys.readouterr().out.split())


def test_the_score_is_that_of_float64():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50_000, 3)).astype(np.float32)
    labels = rng.integers(0, 3, 50_000)
    exact = logits.astype(np.float64)
    losses = np.log(np.exp(exact).sum(-1)) - exact[np.arange(50_000), labels]
    found = deployed.score(logits, labels)
    assert found["loss"] == pytest.approx(losses.mean(), rel=1e-13)
    assert found["accuracy"] == (exact.argmax(-1) == labels).mean()
    masked = deployed.score(logits, np.where(np.arange(50_000) < 10, labels, -1))
    assert masked["loss"] == pytest.approx(losses[:10].mean(), rel=1e-12)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[0.5], [0.1]], [0, 0], "one logit"),
        ([[0.5, np.nan], [0.1, 0.2]], [0, 0], "NaN or infinity for 1 of 2"),
        ([[0.5, np.inf], [0.1, 0.2]], [0, 0], "NaN or infinity for 1 of 2"),
        ([[0.5, 0.1], [0.1, 0.2]], [-1, 2], "none of 2 labels"),
        ([[0.5, 0.1], [0.1, 0.2]], [[0, 1], [1, 0]], "need labels of shape"),
    ],
)
def test_a_score_that_means_nothing_is_an_error(logits, labels, message):
    with pytest.raises(errors.RunError, match=message):
        deployed.score(np.array(logits), np.array(labels))


def test_what_is_no_regular_file_is_said(tmp_path):
    os.mkfifo(tmp_path / "m.safetensors")
    with pytest.raises(errors.RunError, match="regular file"):
        predict.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ("[]", "expected a JSON object"),
        ("{", "cannot read"),
        ('{"sha256": 3, "jax": "0", "metadata": {}}', "'sha256' to be of type str"),
        ('{"sha256": "0", "jax": "0"}', "'metadata' to be of type dict"),
        (" " * (2**22 + 1), "more than"),
    ],
)
def test_what_stands_beside_a_program_is_bounded(tmp_path, beside, message):
    (tmp_path / "m.stablehlo").write_bytes(b"x")
    (tmp_path / "m.stablehlo.json").write_text(beside)
    with pytest.raises(errors.RunError, match=message):
        predict.load(tmp_path / "m.stablehlo")


def test_a_program_must_be_as_the_json_beside_it_says(tmp_path):
    path = tmp_path / "m.stablehlo"
    metadata = export.load(GOLDEN).metadata
    export.to_stablehlo(
        lambda params, images: (
            (images.reshape(images.shape[0], 64) * 1.0) @ params["w"]
        ),
        {"w": jnp.ones((64, 9))},
        input_shape=(8, 8, 1),
        input_dtype=np.uint8,
        platforms=["cpu"],
        path=path,
        metadata=metadata,
        where="w",
    )
    with pytest.raises(errors.RunError, match="and 10 classes"):
        predict.load(path)
    beside = path.with_name("m.stablehlo.json")
    found = json.loads(beside.read_text())
    found["metadata"]["architecture"]["num_classes"] = LARGE
    beside.write_text(json.dumps(found))
    with pytest.raises(errors.RunError, match=r"architecture\.num_classes"):
        predict.load(path)


def test_whatever_metadata_say_the_answer_is_a_run_error():
    """Random changes of a description, two at a time."""
    loaded = export.load(GOLDEN)
    values = [0, -1, 2.5, 10**400, True, None, "", "vit", [], [1], [12.0], {}, [[1]]]
    values += ["\ud800", float("nan"), {"depth": 3}, [8, 8, 1], [2**70] * 3]
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        described = copy.deepcopy(loaded.metadata)
        for _ in range(2):
            parts = [described.get("architecture"), described.get("input"), described]
            part = parts[rng.integers(3)]
            if isinstance(part, dict) and part:
                name = list(part)[rng.integers(len(part))]
                part[name] = values[rng.integers(len(values))]
        try:
            fits.check(described, loaded.params, loaded.model_state)
        except errors.RunError:
            refused += 1
    assert refused > 200
