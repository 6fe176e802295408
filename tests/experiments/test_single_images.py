"""Single images get the answer that they would have as examples of a data set."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from adaste_jax import export
from experiments import errors, predict
from experiments.data import image_folder, sources
from experiments.deployment import deployed, single_images

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "onebit_0.1.safetensors"


def network(path, *, shape=(8, 8, 3), image_size=8, names=None):
    """A file of an untrained perceptron with four classes."""
    channels = shape[-1]
    described = {
        "architecture": {
            "network": "mlp",
            "num_classes": 4,
            "options": {"features": [8]},
            "folded": False,
            "class_names": names,
        },
        "input": {
            "shape": list(shape),
            "image_size": image_size,
            "mean": [0.5] * channels,
            "std": [0.25] * channels,
            "max_value": 255,
        },
    }
    module = deployed.module_of(described)
    variables = module.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False)
    params = variables.pop("params")
    export.save(path, params, model_state=variables, metadata=described)
    return path


def softmax(logits):
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum(-1, keepdims=True)


def test_images_of_the_data_set_get_its_answers(tmp_path, capsys):
    """Digits have values to 16, and files to 255; colours become grey."""
    examples = [sources.source("digits", "test")[i] for i in range(6)]
    files = []
    for number, example in enumerate(examples):
        pixels = np.rint(example["image"] * (255 / 16)).astype(np.uint8)
        mode = ["L", "RGB", "RGBA"][number % 3]
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels[..., 0]).convert(mode).save(files[-1])
    call, _ = predict.load(GOLDEN)
    images = np.stack([example["image"] for example in examples])
    expected = softmax(call(images))
    answers = list(predict.classify(GOLDEN, files, top=3))
    assert [answer.image for answer in answers] == [str(file) for file in files]
    for answer, scores in zip(answers, expected, strict=True):
        order = np.argsort(-scores)[:3]
        assert [name for name, _ in answer.classes] == [f"class {k}" for k in order]
        found = [score for _, score in answer.classes]
        np.testing.assert_allclose(found, scores[order], rtol=1e-4)
        assert (answer.form, answer.error) == ("packed", None)
    predict.main(["--model", str(GOLDEN), "--images", str(tmp_path), "--top=2"])
    lines = capsys.readouterr().out.splitlines()
    best = expected[0].argmax()
    assert lines[0].startswith(
        f"{files[0]}: class {best} {100 * expected[0, best]:.1f} %, "
    ), lines[0]
    assert len(lines) == 7
    assert lines[-1] == "(weights packed)"


def test_images_are_cropped_and_resized_as_in_evaluation(tmp_path):
    """And read by the same reader: turned, of 16 bits, of a palette."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "set" / "test" / "a"
    folder.mkdir(parents=True)
    (tmp_path / "set" / "train" / "a").mkdir(parents=True)
    pixels = rng.integers(0, 256, (21, 33, 3), np.uint8)
    picture = Image.fromarray(pixels)
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(folder / "0.png", exif=turned)
    picture.convert("P").save(folder / "1.png", transparency=3)
    Image.fromarray(rng.integers(0, 2**16, (9, 8), np.uint16)).save(folder / "2.png")
    picture.convert("LA").save(folder / "3.png")
    Image.fromarray(pixels[:8, :8]).save(folder / "4.bmp")
    file = network(tmp_path / "m")
    source = image_folder.files("folder/set", "test", str(tmp_path))
    described = export.load(file).metadata
    for number, path in enumerate(sorted(folder.iterdir())):
        example = {"image": np.asarray(source[number]["image"]), "label": 0}
        logits, _ = deployed.all_logits(
            {"file": lambda images: images}, [example], batch_size=1, image_size=8
        )
        found = single_images.read(str(path), described["input"])
        np.testing.assert_array_equal(found, logits["file"][0])
    answers = list(predict.classify(file, [folder]))
    assert [len(answer.classes) for answer in answers] == [4] * 5
    assert answers[0].classes[0][0].startswith("class ")


def test_what_cannot_be_read_is_named_and_the_others_are_answered(
    tmp_path, capsys, monkeypatch
):
    good, broken, bomb = (tmp_path / f"{name}.png" for name in ("good", "bad", "bomb"))
    Image.new("L", (8, 8)).save(good)
    broken.write_bytes(b"no image at all")
    Image.new("L", (60, 60)).save(bomb)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    missing, empty = tmp_path / "missing.png", tmp_path / "empty"
    empty.mkdir()
    files = [str(x) for x in (broken, missing, bomb, empty, good)]
    with pytest.raises(SystemExit) as ended:
        predict.main(["--model", str(GOLDEN), "--images", *files])
    assert ended.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    for line, file in zip(lines[:4], files[:4], strict=True):
        assert line.startswith("error: ")
        assert file in line
    assert "60 x 60 pixels, more than 2000" in lines[2]
    assert lines[4].startswith(f"{good}: ")


def test_a_network_on_oblong_images_takes_no_others(tmp_path):
    file = network(tmp_path / "m", shape=(4, 8, 3), image_size=None)
    for name, size in (("right", (8, 4)), ("wrong", (9, 4))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    files = [tmp_path / "right.png", tmp_path / "wrong.png"]
    right, wrong = predict.classify(file, files)
    assert right.error is None
    assert "wrong.png is of 9 x 4 pixels, and the network takes 8 x 4" in wrong.error


def test_class_names_cannot_steer_the_terminal(tmp_path, capsys):
    names = ["\x1b[2Jgone", "[bold]b[/bold]", "c\nd", "e"]
    file = network(tmp_path / "m", names=names)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    predict.main(["--model", str(file), "--images", str(tmp_path / "a.png")])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "'\\x1b[2Jgone'" in printed
    assert "[bold]b[/bold]" in printed
    assert len(printed.splitlines()) == 2


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"mean": None}, "the network takes text, not images"),
        ({"mean": [0] * 2, "shape": [8, 8, 2], "max_value": 255}, "of 2 channels"),
        ({"mean": [0], "shape": [8, 8, 1], "max_value": 4095}, "values up to 4095"),
    ],
)
def test_networks_that_take_no_images_of_files_say_so(inputs, message):
    with pytest.raises(errors.RunError, match=message):
        single_images.check(inputs)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--images", "a.png", "--dataset=digits"], "--dataset does not go with --im"),
        (["--images", "a.png", "--split=train"], "--split does not go with --images"),
        (["--images", "a.png", "--num_test=3"], "--num_test does not go with --images"),
        (["--top=3"], "--top does not go with a data set, only with --images"),
    ],
)
def test_flags_that_would_be_ignored_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit) as caught:
        predict.main([f"--model={GOLDEN}", *flags])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
