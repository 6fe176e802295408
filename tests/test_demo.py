"""The demo in a browser: its answers are JAX's, and it reads what is drawn."""

import base64
import functools
import hashlib
import http.server
import io
import pathlib
import shutil
import tarfile

import numpy as np
import onnxruntime
import pytest

from adaste_jax import datasets, export
from docs import browser as files
from experiments import models
from tests import chromium, strokes

DEMO = pathlib.Path(__file__).parents[1] / "docs" / "demo"


@pytest.fixture(scope="module")
def logits():
    """Those of JAX, of the network that the page shows, on the test digits."""
    loaded = export.load(DEMO / "digits.safetensors")
    options = loaded.metadata["architecture"]["options"]
    network = models.create("mlp", 10, **options)
    images, _ = datasets.digits()["test"]
    entered = loaded.metadata["input"]
    x = (images / entered["max_value"] - entered["mean"]) / entered["std"]
    variables = {"params": loaded.params, **loaded.model_state}
    return np.asarray(network.apply(variables, x.astype(np.float32), train=False))


def test_the_model_of_the_page_is_the_one_bit_file_beside_it(logits):
    images, labels = datasets.digits()["test"]
    data = (DEMO / "digits.onnx").read_bytes()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": images.astype(np.uint8)})
    np.testing.assert_allclose(found, logits, atol=1e-5)
    assert (found.argmax(-1) == logits.argmax(-1)).all()
    assert (found.argmax(-1) == labels).mean() > 0.96


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, as `python -m http.server` does, without a word."""

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "demo"
    shutil.copytree(DEMO, folder)
    for name, data in files.files().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    shutil.copy(DEMO.parent / "favicon.svg", folder.parent)
    handler = functools.partial(Handler, directory=str(folder.parent))
    with chromium.served(handler) as root:
        yield f"{root}/demo/index.html"


@pytest.fixture(scope="module")
def browser():
    with chromium.started() as driver:
        driver.set_script_timeout(60)
        yield driver


def opened(browser, address, *, width=1280, mode="light"):
    """The page, when it is ready, and all that it asked for."""
    from selenium.webdriver.support.ui import WebDriverWait

    asked = chromium.show(browser, address, width=width, mode=mode)
    ready = "return document.body.dataset.ready === 'yes'"
    WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(ready))
    return asked + chromium.requests(browser)


def called(browser, code, *arguments):
    """What a piece of JavaScript gives, which has the functions of the page."""
    script = f"""
        const done = arguments[arguments.length - 1], given = arguments;
        import(new URL("demo.js", location)).then(async (demo) => {{ {code} }})
            .then(done, (error) => done(`${{error.stack}}`));
    """
    return browser.execute_async_script(script, *arguments)


def text(browser, name):
    return browser.execute_script(
        "return document.getElementById(arguments[0]).textContent", name
    )


needs_engine = pytest.mark.skipif(
    not files.engine(), reason="no onnxruntime-web: make docs fetches it"
)


@chromium.needed
@needs_engine
def test_every_test_digit_has_the_answer_of_jax(browser, address, logits):
    asked = opened(browser, address)
    assert {url.rsplit("/demo/", 1)[0] for url in asked} <= {
        address.rsplit("/demo/", 1)[0],
        f"{address.rsplit('/demo/', 1)[0]}/favicon.svg",
    }
    images, labels = datasets.digits()["test"]
    code = "return Array.from(await demo.classify(Uint8Array.from(given[0])))"
    found = np.reshape(called(browser, code, images.reshape(-1).tolist()), (-1, 10))
    assert (found.argmax(-1) == logits.argmax(-1)).sum() == len(labels) == 360
    np.testing.assert_allclose(found, logits, atol=1e-5)
    # And by its buttons.
    browser.find_element("id", "all").click()
    right = int((logits.argmax(-1) == labels).sum())
    wait(browser, lambda: text(browser, "right") == f"{right} right")
    for number in range(3):
        browser.find_element("id", "next").click()
        wait(browser, lambda n=number: f"digit {n + 1} of" in text(browser, "label"))
        assert text(browser, "answer") == str(logits[number].argmax())
    assert text(browser, "bytes").startswith(
        f"{(DEMO / 'digits.onnx').stat().st_size:,}"
    )


def wait(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda _: condition())


@chromium.needed
@needs_engine
def test_drawn_digits_are_read(browser, address):
    """In all sizes and places: they are brought to the form of the training images."""
    opened(browser, address)
    rng = np.random.default_rng(0)
    drawings = [
        (digit, strokes.varied(lines, rng))
        for digit, lines in strokes.STROKES.items()
        for _ in range(20)
    ]
    code = """
        const found = [];
        for (const lines of given[0]) {
            const image = demo.read(lines);
            found.push([demo.argmax(await demo.classify(image)), Array.from(image)]);
        }
        return found;
    """
    answers = called(browser, code, [lines for _, lines in drawings])
    right = [
        found == digit for (digit, _), (found, _) in zip(drawings, answers, strict=True)
    ]
    images = np.array([image for _, image in answers]).reshape(-1, 8, 8)
    train = datasets.digits()["train"][0]
    assert 0.9 < images.mean() / train.mean() < 1.1
    assert np.mean(right) >= 0.9, np.reshape(right, (10, -1)).mean(1)


def ink(browser):
    """The colour of what stands on the drawing area, or None."""
    return browser.execute_script("""
        const pad = document.getElementById("pad"), context = pad.getContext("2d");
        const data = context.getImageData(0, 0, pad.width, pad.height).data;
        for (let i = 0; i < data.length; i += 4) {
            if (data[i + 3] === 255) return [data[i], data[i + 1], data[i + 2]];
        }
        return null;
    """)


@chromium.needed
@needs_engine
@pytest.mark.parametrize(
    ("width", "mode", "pointer"),
    [(1280, "light", "mouse"), (360, "dark", "touch")],
)
def test_a_digit_is_drawn_by_mouse_finger_and_keyboard(
    browser, address, width, mode, pointer
):
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.actions import interaction, pointer_input

    opened(browser, address, width=width, mode=mode)
    pad = browser.find_element("id", "pad")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", pad)
    script = (
        "const b = arguments[0].getBoundingClientRect(); return [b.x, b.y, b.width]"
    )
    left, top, side = browser.execute_script(script, pad)
    kind = getattr(interaction, f"POINTER_{pointer.upper()}")
    actions = ActionChains(
        browser, duration=5, devices=[pointer_input.PointerInput(kind, pointer)]
    )
    act = actions.w3c_actions.pointer_action
    for line in strokes.STROKES[3]:
        at = [(int(left + x * side), int(top + y * side)) for x, y in line]
        act.move_to_location(*at[0])
        act.pointer_down()
        for place in at[1:]:
            act.move_to_location(*place)
        act.pointer_up()
    actions.perform()
    wait(browser, lambda: text(browser, "answer") == "3")
    colour = ink(browser)
    assert (max(colour) < 80) == (mode == "light")
    assert (min(colour) > 170) == (mode == "dark")
    shares = browser.execute_script(
        "return [...document.querySelectorAll('#scores .percent')]"
        ".map((e) => parseFloat(e.textContent))"
    )
    assert np.argmax(shares) == 3
    assert sum(shares) == pytest.approx(100, abs=1)
    assert (
        browser.execute_script("return document.documentElement.scrollWidth") <= width
    )
    # A 7 with the keyboard: nothing is drawn until the space bar puts the pen down.
    pad.send_keys(Keys.BACKSPACE)
    assert ink(browser) is None
    assert text(browser, "answer") == ""
    pad.send_keys(Keys.ARROW_LEFT * 5)
    assert text(browser, "answer") == ""
    down_left = (Keys.ARROW_DOWN * 2 + Keys.ARROW_LEFT) * 6
    pad.send_keys(" " + Keys.ARROW_RIGHT * 8 + down_left)
    wait(browser, lambda: text(browser, "answer") == "7")
    browser.find_element("id", "clear").click()
    assert text(browser, "answer") == ""


@chromium.needed
def test_without_its_engine_the_page_says_so(browser, address, tmp_path):
    shutil.copytree(DEMO, tmp_path / "demo")
    handler = functools.partial(Handler, directory=str(tmp_path))
    with chromium.served(handler) as root:
        chromium.show(browser, f"{root}/demo/index.html", width=800, mode="light")
        wait(browser, lambda: "npm" in text(browser, "status"))
        buttons = browser.find_elements("tag name", "button")
        assert not any(button.is_enabled() for button in buttons)


def test_the_engine_is_fetched_once_and_checked(tmp_path, monkeypatch):
    """By an npm that gives a package of three small files."""
    package = tmp_path / "made.tgz"
    with tarfile.open(package, "w:gz") as archive:
        for name in files.ENGINE:
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    monkeypatch.setattr(files, "FOLDER", tmp_path / "engine")
    monkeypatch.setenv("PATH", str(npm.parent))
    assert files.fetch() == "npm is not installed"
    assert files.files().keys() == {"digits.bin"}
    npm.write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    npm.chmod(0o755)
    assert "no network" in files.fetch()
    npm.write_text(f"#!/bin/sh\n/bin/cp {package} .\n")
    with pytest.raises(ValueError, match="SHA-512"):
        files.fetch()
    assert not files.engine()
    digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    monkeypatch.setattr(files, "INTEGRITY", digest)
    assert files.fetch() == ""
    assert files.engine() == {name: name.encode() for name in files.ENGINE}
    npm.unlink()
    assert files.fetch() == ""
