"""The card of a file says what its run measured, and trains it again."""

import hashlib
import json
import re
import shutil

import pytest
import yaml

from experiments import errors, predict
from experiments import export as command
from experiments.configs import base
from experiments.deployment import model_card
from experiments.runs import identity
from experiments.training import loop
from tests.experiments import test_loop


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run, its config, and the file that is made of it."""
    folder = tmp_path_factory.mktemp("card") / "run"
    config = base.get_config()
    config.update(num_epochs=1, num_train=200, batch_size=64, method="tanh", seed=3)
    config.model_options.features = (16,)
    config.methods.tanh.learning_rate = 0.0125
    with test_loop.undrawn():
        loop.train_and_evaluate(config.copy_and_resolve_references().lock(), folder)
    file = folder.parent / "upload" / "m.safetensors"
    command.export_run(folder, file, num_test=5)
    return folder, config, file


def test_a_card_has_what_was_measured(run):
    folder, _, file = run
    card = model_card.write(folder, file, licence="cc-by-4.0", name="a: b")
    assert card == file.parent / "README.md"
    _, head, text = card.read_text().split("---\n", 2)
    head = yaml.safe_load(head)
    result = json.loads((folder / "result.json").read_text())
    assert (head["license"], head["library_name"]) == ("cc-by-4.0", "adaste_jax")
    [model] = head["model-index"]
    [[metric]] = [found["metrics"] for found in model["results"]]
    assert metric["value"] == pytest.approx(result["test_accuracy"], rel=1e-5)
    assert model["name"] == "a: b"
    assert f"{100 * result['test_accuracy']:.2f} %" in text
    assert hashlib.sha256(file.read_bytes()).hexdigest() in text
    assert f"{file.stat().st_size:,} bytes" in text
    assert str(folder.parent) not in text


def test_the_config_of_a_card_is_that_of_the_run(run):
    folder, config, file = run
    card = model_card.write(folder, file, licence="mit")
    [code] = re.findall(r"^```python\n(.*?)^```", card.read_text(), re.M | re.S)
    names = {}
    exec(code, names)
    assert identity.computed(names["get_config"]()) == identity.computed(config)


def test_the_folder_travels_and_its_file_predicts(run, tmp_path):
    folder, _, file = run
    card = model_card.write(folder, file, licence="mit")
    pulled = shutil.copytree(file.parent, tmp_path / "pulled")
    [name] = re.findall(r"--model=(\S+)", card.read_text())
    result = json.loads((folder / "result.json").read_text())
    found = predict.evaluate(pulled / name)
    assert found["accuracy"] == pytest.approx(result["test_accuracy"])


def test_hugging_face_reads_the_card(run):
    hub = pytest.importorskip(
        "huggingface_hub", reason="needs huggingface_hub: pip install huggingface_hub"
    )
    folder, _, file = run
    card = hub.ModelCard.load(model_card.write(folder, file, licence="mit", name="m"))
    [result] = card.data.eval_results
    assert card.data.license == "mit"
    assert card.data.model_name == "m"
    assert (result.dataset_name, result.metric_type) == ("digits", "accuracy")


def test_what_is_missing_is_an_error(run, tmp_path):
    folder, _, file = run
    with pytest.raises(errors.RunError, match=r"has no result\.json"):
        model_card.write(tmp_path, file, licence="mit")
    with pytest.raises(errors.RunError, match="cannot read"):
        model_card.write(folder, tmp_path / "none", licence="mit")
    other = tmp_path / file.name
    shutil.copy(file, other)
    (tmp_path / "README.md").write_text("# Mine\n")
    with pytest.raises(errors.RunError, match="is not a card"):
        model_card.write(folder, other, licence="mit")
    assert (tmp_path / "README.md").read_text() == "# Mine\n"
