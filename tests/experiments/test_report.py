"""The page about a run: what is in it, and that a browser shows it, without a network.

The browser is Chromium, driven through its own driver; without them those tests are
skipped.
"""

import base64
import html
import http.server
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments import errors
from experiments.report import __main__ as command
from experiments.report import charts, figures, plots
from experiments.report import html as report
from experiments.runs import records
from experiments.training.run import Run
from tests import chromium
from tests.experiments import test_loop


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdir of a real run."""
    path = tmp_path_factory.mktemp("report") / "tiny"
    test_loop.run_once(path, num_epochs=3, drawn=True)
    return path


@pytest.fixture(scope="module")
def overlaid(finished, tmp_path_factory):
    """A page of three runs: that one, one without binary layers, one under way."""
    folder = tmp_path_factory.mktemp("overlaid")
    real, begun = folder / "real", folder / "begun"
    for copy in (real, begun):
        shutil.copytree(finished, copy, ignore=shutil.ignore_patterns("checkpoints"))
    (real / "layers.jsonl").unlink()
    (begun / "result.json").unlink()
    (begun / "summary.json").unlink()
    change(begun / "config.json", seed=5)
    out = folder / "page.html"
    command.main(["--workdir", str(finished), f"{real},{begun}", f"--out={out}"])
    return out


def change(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def titles(text):
    return re.findall(r'<figcaption id="[^"]+">([^<]+)<', text)


def test_a_run_ends_with_a_page_that_says_all_of_it(finished):
    text = (finished / "report.html").read_text()
    result = json.loads((finished / "result.json").read_text())
    assert titles(text) == [
        *("Loss", "Accuracy", "Confusion"),
        *("Flips", "Saturated", "Scale of the latents"),
        *("Gradients of zero", "Dense_0", "head", "Time per step"),
    ]
    for shown in (
        f"{100 * result['test_accuracy']:.2f} %",
        f"{64 * 16 + 16 * 10:,}",  # weights of one bit, and of multiply-adds
        f"{(64 * 16 + 16 * 10) // 8:,}",  # bytes
        "methods.adaste.learning_rate",
        "version of jax",
        result["versions"]["jax"],
    ):
        assert f">{shown}<" in text
    assert "methods.ste.learning_rate" not in text  # of methods that were not used


def test_the_page_stands_alone_and_names_no_folder(finished, overlaid):
    for file in (finished / "report.html", overlaid):
        text = file.read_text()
        assert not re.search(r"https?:|<script|<link(?! rel=\"icon\")|@import", text)
        assert str(finished.parent) not in text
        ids = re.findall(r'\bid="([^"]+)"', text)
        assert len(ids) == len(set(ids))
        assert set(re.findall(r'="#([^"]+)"|\(#([^)]+)\)', text)) <= {
            pair for name in ids for pair in ((name, ""), ("", name))
        }


def test_several_runs_lie_over_each_other(overlaid):
    text = overlaid.read_text()
    assert titles(text) == [
        *("Loss, train", "Loss, validation"),
        *("Accuracy, train", "Accuracy, validation"),
        *("Flips, all layers", "Flips, Dense_0", "Flips, head"),
        *("Saturated, all layers", "Saturated, Dense_0", "Saturated, head"),
        *("Scale of the latents, Dense_0", "Scale of the latents, head"),
        *("Dense_0", "head", "Time per step"),
    ]
    legend = re.findall(r"<text[^>]*>(tiny|real|begun) ", text)
    assert legend[:3] == ["tiny", "real", "begun"]
    assert "under way" in text
    differing = text.partition("what differs")[2].partition("</table>")[0]
    assert re.findall(r"<td>([\w.]+)</td>", differing)[:4] == ["seed", "0", "0", "5"]


def test_the_answers_on_test_are_those_of_the_network(finished):
    """Against a network that is restored and run on the test images, one by one."""
    config = test_loop.small_config(num_epochs=3)
    run, state = Run(config), test_loop.final_state(finished, config)
    inputs, labels = run.problem.prepare(
        None,
        {"image": run.splits.test.images, "label": run.splits.test.labels},
        None,
        kind="none",
    )
    weights = run.method.deploy(state.params)
    model_state = run._evaluation.statistics(state)
    logits, _ = run.problem.forward(weights, model_state, inputs, train=False, key=None)
    chosen = np.argmax(np.asarray(logits), axis=-1)
    found = json.loads((finished / "answers.json").read_text())
    confusion = [[0] * 10 for _ in range(10)]
    for label, answer in zip(labels.tolist(), chosen.tolist(), strict=True):
        confusion[label][answer] += 1
    assert found["confusion"] == confusion
    assert found["images"] == len(labels)
    result = json.loads((finished / "result.json").read_text())
    right = sum(confusion[i][i] for i in range(10))
    assert right / len(labels) == pytest.approx(result["test_accuracy"])

    wrong = {
        (str(label), str(answer)): []
        for label, answer in zip(labels.tolist(), chosen.tolist(), strict=True)
    }
    for image, label, answer in zip(
        run.splits.test.images, labels.tolist(), chosen.tolist(), strict=True
    ):
        wrong[str(label), str(answer)].append(np.rint(image[..., 0] * (255 / 16)))
    sample = found["samples"]
    assert len(sample) == min(24, len(labels) - right) > 0
    sure = [one["confidence"] for one in sample]
    assert sure == sorted(sure, reverse=True)
    for one in sample:
        assert one["truth"] != one["answer"]
        pixels = Image.open(io.BytesIO(base64.b64decode(one["png"])))
        candidates = wrong[one["truth"], one["answer"]]
        assert any(np.array_equal(pixels, image) for image in candidates)


def test_the_page_shows_classes_and_wrong_answers(finished):
    run = records.read(finished)
    text = report.page([run])
    picture = (
        r'aria-label="([^"]+, answered [^"]+)"><image [^>]*href="data:image/png;base64,'
    )
    pictures = re.findall(picture, text)
    assert pictures == [
        f"{one['truth']}, answered {one['answer']}" for one in run.answers["samples"]
    ]
    table = text.partition("taken for")[2].partition("</table>")[0]
    shares = [float(n) for n in re.findall(r">(\d+\.\d)<", table)]
    expected = [
        100 * row[i] / sum(row) for i, row in enumerate(run.answers["confusion"])
    ]
    assert shares == pytest.approx(sorted(expected), abs=0.05)


def made_answers(classes, samples=0):
    rng = np.random.default_rng(0)
    one = {"truth": "<a>", "answer": "b", "confidence": 0.5, "png": "iVBO"}
    return {
        "class_names": [f"name of class {n} & more" for n in range(classes)],
        "confusion": rng.integers(0, 50, (classes, classes)).tolist(),
        "samples": [one] * samples,
    }


@pytest.mark.parametrize("classes", [2, 12, 20, 200])
def test_matrices_of_any_size_are_bounded(finished, classes):
    run = records.read(finished)._replace(answers=made_answers(classes))
    text = report.page([run])
    drawn = text.partition(">Confusion<")[2].partition("</figure>")[0]
    assert len(drawn) < 150_000
    assert ("name of…" in drawn) == (classes <= charts.NAMED)
    assert text.count("name of class 1 &amp; more") >= 1


def test_a_run_without_answers_has_a_page_and_odd_ones_are_left_out(finished, tmp_path):
    path = copy_of(finished, tmp_path)
    good = made_answers(3, samples=2)
    for wrong in (
        {"confusion": [[1, 2], [3]]},
        {"confusion": [[1.5] * 3] * 3},
        {"class_names": ["a"]},
        {"samples": 7},
        {"samples": [{"truth": "a"}]},
        {"samples": [good["samples"][0] | {"png": '"><script>'}]},
        {"samples": [good["samples"][0] | {"confidence": None}]},
    ):
        (path / "answers.json").write_text(json.dumps(good | wrong))
        run = records.read(path)
        assert run.answers == {}, wrong
        assert "answers.json is damaged" in report.page([run])
    (path / "answers.json").write_text(json.dumps(good))
    text = report.page([records.read(path)])
    assert "&lt;a&gt;, answered b" in text
    (path / "answers.json").unlink()
    run = records.read(path)
    assert (run.answers, run.notes) == ({}, ())
    assert "Confusion" not in titles(report.page([run]))
    only_samples = {"samples": good["samples"]}
    (path / "answers.json").write_text(json.dumps(only_samples))
    text = report.page([records.read(path)])
    assert "Wrong answers" in text
    assert "Confusion" not in titles(text)


def test_runs_in_folders_of_one_name_are_numbered(finished):
    text = report.page([records.read(finished)] * 2)
    assert "tiny (1) " in text
    assert "tiny (2) " in text


def test_a_page_is_drawn_anew_with_the_same_bytes(finished):
    before = (finished / "report.html").read_bytes()
    command.main([f"--workdir={finished}"])
    assert (finished / "report.html").read_bytes() == before


def test_many_layers_are_split_over_charts_and_many_epochs_thinned(finished):
    run = records.read(finished)
    (layer, *_) = run.layer_names
    lines = [
        line | {"layer": f"Conv_{number}/kernel", "epoch": epoch, "step": epoch}
        for number in range(9)
        for epoch in range(40)
        for line in run.layers[:1]
        if line["layer"] == layer
    ]
    text = report.page([run._replace(layers=lines)])
    assert {"Saturated (1 of 2)", "Saturated (2 of 2)"} <= set(titles(text))
    rows = text.partition(">Conv_8<span")[2].partition("</figure>")[0]
    epochs = [int(n) for n in re.findall(r"text-anchor: end[^>]*>(\d+)<", rows)]
    assert len(epochs) == report.RIDGES
    assert (epochs[0], epochs[-1]) == (0, 39)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{0}/nowhere"], "is not the workdir of a run"),
        (["{1}", "{1}"], "--out"),
        (["{1}", "--out={1}/result.json/page.html"], "cannot write"),
        (["{1}"] * 8 + ["--out={0}/page.html"], "at most 7"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(
    tmp_path, finished, capsys, arguments, message
):
    given = [text.format(tmp_path, finished) for text in arguments]
    with pytest.raises(SystemExit) as status:
        command.main(["--workdir", *given])
    assert status.value.code == 1
    assert message in capsys.readouterr().out


def test_a_run_without_metrics_yet_is_an_error(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(errors.RunError, match="no metrics yet"):
        records.read(tmp_path)


def test_a_page_that_cannot_be_drawn_does_not_fail_the_run(tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise OSError("no space left on the canvas")

    monkeypatch.setattr(charts, "lines", broken)
    result = test_loop.run_once(tmp_path / "run", num_epochs=1, drawn=True)
    assert json.loads((tmp_path / "run/result.json").read_text()) == result
    assert not (tmp_path / "run" / "report.html").exists()


def test_every_colour_stands_out_from_the_page_in_light_and_dark():
    """Contrast of WCAG 2.2: 3 for graphics, 4.5 for text."""
    style = report.STYLE.read_text()
    for rules in re.findall(r":root \{(.*?)\}", style, re.S):
        shades = dict(re.findall(r"--(\w+): (#\w{6});", rules))
        assert set(figures.COLOURS) <= set(shades)
        for name in {*figures.COLOURS, "muted"} - {"paper", "grid"}:
            least = 4.5 if name in ("ink", "muted") else 3
            assert contrast(shades[name], shades["paper"]) >= least, name


def contrast(first, second):
    def luminance(colour):
        shades = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [
            s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shades
        ]
        return sum(w * s for w, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


EXTREME = {
    "nothing": None,
    "text": "7",
    "yes": True,
    "nested": {"a": [1]},
    "list": [1.0],
    "large": 1.7e308,
    "very low": -1.7e308,
    "almost large": 9e99,
    "tiny": 5e-324,
    "negative": -3.0,
    "whole": 10**18,
    "no number": float("nan"),
    "endless": float("-inf"),
    "beyond": 10**500,
}


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def copy_of(finished, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(finished, path, ignore=shutil.ignore_patterns("checkpoints"))
    return path


@pytest.mark.parametrize("value", EXTREME.values(), ids=EXTREME)
@pytest.mark.parametrize("which", ["some", "all"])
def test_extreme_numbers_make_a_page(finished, tmp_path, value, which):
    """In every place of the files of lines and of the result."""
    path = copy_of(finished, tmp_path)
    fixed = ("step", "epoch", "split", "layer")
    for name in ("metrics.jsonl", "layers.jsonl"):
        lines = lines_of(path / name)
        for line in lines if which == "all" else lines[::3]:
            line.update({key: value for key in line if key not in fixed})
        (path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = json.loads((path / "result.json").read_text())
    change(path / "result.json", **dict.fromkeys(result, value))
    run = records.read(path)
    others = [records.read(finished)] if which == "all" else []
    text = report.page([run, *others])
    assert "</html>" in text
    assert not re.search(r">(nan|inf|-inf|None)\b", text)
    odd = type(value) not in (int, float) or not abs(value) < 1e100
    if odd and not isinstance(value, str):
        assert any("not finite numbers" in note for note in run.notes)


def test_lines_that_cannot_be_read_are_said_and_the_others_count(finished, tmp_path):
    path = copy_of(finished, tmp_path)
    lines = (path / "metrics.jsonl").read_text().splitlines()
    broken = ["garbage", "[]", "{}", '{"epoch": true, "split": "train"}', "\x00\xff"]
    odd = ['{"epoch": -1, "split": "train", "loss": 1.0}']
    text = "\n".join([*lines[:3], *broken, *odd, *lines[3:]]) + "\n"
    (path / "metrics.jsonl").write_text(text)
    run = records.read(path)
    assert run.curve("loss") == records.read(finished).curve("loss")
    page = report.page([run])
    assert "5 lines of metrics.jsonl cannot be read and are left out: 4, 5, 6" in page
    assert "1 lines of impossible epochs" in page


@pytest.mark.parametrize("name", ["config", "summary", "result", "answers"])
@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 5000])
def test_a_file_that_is_no_object_is_an_error(finished, tmp_path, name, text):
    path = copy_of(finished, tmp_path)
    (path / f"{name}.json").write_text(text)
    with pytest.raises(errors.RunError, match=rf"{name}\.json"):
        records.read(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"rows": 3},
        {"rows": [{}]},
        {"rows": [7]},
        {"notes": None},
        {"bytes": "many"},
        {"one_bit_parameters": -1},
        {"activation_multiply_adds": None},
    ],
)
def test_a_damaged_summary_is_left_out_and_said(finished, tmp_path, fields):
    path = copy_of(finished, tmp_path)
    change(path / "summary.json", **fields)
    page = report.page([records.read(path)])
    assert "summary.json is damaged" in page
    assert "The run has no summary.json" in page


def test_a_config_and_a_result_without_fields_make_a_page(finished, tmp_path):
    path = copy_of(finished, tmp_path)
    for name in ("config", "result"):
        (path / f"{name}.json").write_text("{}")
    assert "? on ?, network ?" in report.page([records.read(path)])
    (path / "config.json").write_text('{"method": ["a"], "methods": 7, "seed": {}}')
    (path / "result.json").write_text('{"versions": [1], "device": null}')
    assert "</html>" in report.page([records.read(path), records.read(finished)])


@pytest.mark.parametrize(
    "layer", ["$x$", r"$\frac{", "_hidden", "a\x01b", "\ud800", "<i>&amp;", "x\ny"]
)
def test_names_of_layers_are_shown_as_they_are(finished, tmp_path, layer):
    """Neither formulas, nor left out, nor an end of the page."""
    path = copy_of(finished, tmp_path)
    lines = [line | {"layer": layer} for line in lines_of(path / "layers.jsonl")]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (path / "layers.jsonl").write_text(text)
    command.main([f"--workdir={path}"])
    page = (path / "report.html").read_text("utf-8")
    legend = re.findall(r"<text[^>]*> ?([^<]+)  [\d.,e+-]+</text>", page)
    shown = "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in layer
    )
    assert html.escape(shown, quote=False) in legend


def test_plots_leave_out_what_is_no_number(tmp_path):
    lines = [
        {"epoch": 1, "split": "train", "loss": None, "accuracy": 0.5},
        {"epoch": 2, "split": "train", "loss": 1.0, "flips_per_epoch": None},
        {"epoch": 3, "split": "test"},
    ]
    latents = {"a": np.array([np.nan, 1.0]), "b": np.full(2, np.inf), "c": np.zeros(2)}
    plots.draw_all(tmp_path / "plots", lines, latents)
    assert {file.name for file in (tmp_path / "plots").iterdir()} == {
        "curves.png",
        "latents.png",
    }
    plots.draw_all(tmp_path / "none", [], {})


@pytest.fixture(scope="module")
def browser():
    with chromium.started() as driver:
        yield driver


LOOK = """
const inside = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1
    && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
return [...document.querySelectorAll('figure')].map(figure => {
  const svg = figure.querySelector('svg'), box = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text')];
  return {
    title: figure.querySelector('figcaption').firstChild.textContent,
    width: box.width, height: box.height,
    visible: svg.checkVisibility({opacityProperty: true, visibilityProperty: true}),
    drawn: svg.querySelectorAll('path, use').length,
    image: Math.min(...[...svg.querySelectorAll('image')]
        .map(i => i.getBoundingClientRect().width)),
    cut: texts.filter(t => !inside(t.getBoundingClientRect(), box))
        .map(t => t.textContent),
    smallest: Math.min(...texts.map(t => t.getBoundingClientRect().height)),
    colour: getComputedStyle(texts[0]).fill,
    lines: [...svg.querySelectorAll('path, use')]
        .map(p => getComputedStyle(p).stroke),
  };
});
"""


@chromium.needed
@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_a_browser_shows_every_chart(browser, finished, overlaid, width, mode):
    for file in (finished / "report.html", overlaid):
        assert chromium.show(browser, file.as_uri(), width=width, mode=mode) == [
            file.as_uri()
        ]
        shown = browser.execute_script(LOOK)
        assert [chart["title"] for chart in shown] == titles(file.read_text())
        ink = "rgb(27, 27, 27)" if mode == "light" else "rgb(232, 232, 232)"
        for chart in shown:
            assert chart["visible"], chart
            assert 300 <= chart["width"] <= width, chart
            assert chart["height"] > 100, chart
            if chart["title"] == "Confusion":
                assert 200 < chart["image"] < chart["width"], chart
            else:
                assert chart["drawn"] > 5, chart
            assert chart["cut"] == [], chart
            assert chart["smallest"] >= 11, chart
            assert chart["colour"] == ink, chart
            assert "rgb(0, 0, 0)" not in chart["lines"], chart
        # The page itself does not scroll sideways; wide tables do, in themselves.
        script = "return document.documentElement.scrollWidth"
        assert browser.execute_script(script) <= width


class Silent(http.server.BaseHTTPRequestHandler):
    """Has nothing, and says nothing about it."""

    def do_GET(self):
        self.send_error(404)

    def log_message(self, *arguments):
        pass


@chromium.needed
def test_the_look_at_a_page_sees_what_is_wrong(browser, finished, tmp_path):
    """So that the test above can fail: hidden, empty, cut off, and a request."""
    with chromium.served(Silent) as root:
        address = f"{root}/nothing.css"
        text = (finished / "report.html").read_text()
        text = text.replace(
            "</style>", "#learning-0-title ~ svg {display: none}</style>"
        )
        text = text.replace("<head>", f'<head><link rel="stylesheet" href="{address}">')
        text = re.sub(r'(text-anchor: end[^>]* x=)"[^"]*"', r'\1"-60"', text)
        page = tmp_path / "page.html"
        page.write_text(text)
        requests = chromium.show(browser, page.as_uri(), width=360, mode="light")
    assert requests == [page.as_uri(), address]
    hidden, second, *_ = browser.execute_script(LOOK)
    assert not hidden["visible"]
    assert hidden["width"] == 0
    assert second["cut"]
