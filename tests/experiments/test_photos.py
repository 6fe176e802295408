"""The guide from photographs to a phone: its commands are run, in seconds.

Only the config is made smaller, and there are fewer pictures.
"""

import base64
import functools
import json
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from adaste_jax import datasets
from docs import browser as files
from experiments import export, predict
from experiments.report import __main__ as report
from tests import chromium, test_demo
from tests.test_docs import BLOCKS, PAGES

PAGE = "docs/photos.md"
LINES = [
    shlex.split(line)
    for block in re.findall(r"^```sh\n(.*?)^```", PAGES[PAGE], re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if line.startswith("adaste ")
]
COMMANDS = {words[1]: words[2:] for words in LINES}
SMALLER = [
    "--config.num_train=80",
    "--config.num_test=40",
    "--config.tensorboard=False",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the guide leaves after its commands, except for that of the server."""
    path = tmp_path_factory.mktemp("photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        few = {split: (a[:90], b[:90]) for split, (a, b) in datasets.digits().items()}
        patch.setattr(datasets, "digits", lambda: few)
        exec(BLOCKS[PAGE][0], {})
        config, *flags = COMMANDS["train"]
        subprocess.run(
            [
                *(sys.executable, "-m", "experiments", "train", f"{config}:smoke"),
                *(*flags, *SMALLER),
            ],
            check=True,
            cwd=path,
        )
        export.main(COMMANDS["export"])
    return path


def test_the_guide_has_the_commands_of_the_road():
    assert [words[1] for words in LINES] == ["train", "export", "predict"]


def test_an_album_is_divided(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, count in (("cat", 7), ("dog", 5)):
        (tmp_path / "album" / name).mkdir(parents=True)
        for number in range(count):
            file = tmp_path / "album" / name / f"{number}.jpg"
            Image.new("RGB", (9, 9)).save(file)
    exec(BLOCKS[PAGE][1], {"pathlib": pathlib})
    data = pathlib.Path("data/photos")
    found = sorted(p.relative_to(data) for p in data.rglob("*.jpg"))
    tests = [str(file) for file in found if file.parts[0] == "test"]
    assert tests == ["test/cat/4.jpg", "test/dog/4.jpg"]
    assert len(found) == 12


def test_the_road_ends_in_a_report_and_two_files_that_agree(folder, capsys):
    assert "Confusion" in (folder / "runs/photos/report.html").read_text()
    report.main(["--workdir", str(folder / "runs/photos")])
    result = json.loads((folder / "runs/photos/result.json").read_text())
    assert result["config"]["resident"] is False
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        predict.main(COMMANDS["predict"])
    lines = capsys.readouterr().out.splitlines()[:-1]
    session = onnxruntime.InferenceSession(str(folder / "photos.onnx"))
    assert len(lines) == 90
    size = session.get_inputs()[0].shape[1]
    for line in lines[::9]:
        name, _, answer = line.rpartition(": ")
        with Image.open(folder / name) as image:
            box = [3, 3, 45, 45]  # 7/8 of 48 pixels
            small = image.convert("RGB").resize((size, size), Image.BILINEAR, box)
        pixels = np.asarray(small)[None]
        (logits,) = session.run(None, {"input": pixels})
        first = re.match(r"(digit \d) ", answer)[1]
        assert first == f"digit {int(np.argmax(logits))}"


ANSWER = """
const [text, done] = arguments;
const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
classify(new Blob([bytes], { type: "image/png" })).then(done, (e) => done(String(e)));
"""


@chromium.needed
@pytest.mark.skipif(not files.engine(), reason="onnxruntime-web is not fetched")
def test_the_web_page_gives_the_answers_of_the_model(folder):
    from selenium.webdriver.support.ui import WebDriverWait

    session = onnxruntime.InferenceSession(str(folder / "photos.onnx"))
    side = session.get_inputs()[0].shape[1]
    (page,) = re.findall(r"^```html\n(.*?)^```", PAGES[PAGE], re.DOTALL | re.MULTILINE)
    page = page.replace("const SIDE = 48;", f"const SIDE = {side};")
    (folder / "index.html").write_text(page)
    (folder / "ort").mkdir()
    for name, data in files.engine().items():
        (folder / "ort" / name).write_bytes(data)
    handler = functools.partial(test_demo.Handler, directory=str(folder))
    with chromium.served(handler) as root, chromium.started() as browser:
        browser.set_script_timeout(60)
        browser.get(f"{root}/index.html")
        WebDriverWait(browser, 60).until(
            lambda driver: driver.execute_script("return 'classify' in window")
        )
        answers = set()
        for file in sorted(folder.glob("data/photos/test/*/*.png"))[::12]:
            with Image.open(file) as image:
                small = image.convert("RGB").resize((side, side))  # nothing to resize
            small.save(folder / "small.png")
            encoded = base64.b64encode((folder / "small.png").read_bytes()).decode()
            found = browser.execute_async_script(ANSWER, encoded)
            pixels = {"input": np.asarray(small)[None]}
            assert found == f"digit {int(np.argmax(session.run(None, pixels)[0]))}"
            answers.add(found)
        assert len(answers) > 1
