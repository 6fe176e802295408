"""Text reaches every terminal as it is: no markup, no letter that ends a program."""

import io
import os
import pathlib
import re
import subprocess
import sys

import jax.numpy as jnp
import pytest
import rich.console

from experiments import console as consoles
from experiments import export
from experiments.runs import checkpoints, plain_path
from experiments.training import progress

ROOT = pathlib.Path(__file__).parents[2]
TEXTS = ["a[/b]", "[red]x[/red]", "[bold", "w :smile: x", "été 2 ± 3", "x\udcff.png"]


def terminal(encoding):
    """A console on a terminal that raises an error at what it cannot show."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    console = consoles.create(file=stream, width=400)

    def written():
        stream.flush()
        return stream.buffer.getvalue().decode(encoding)

    return console, written


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("text", TEXTS)
def test_every_way_to_print_shows_the_text(text, encoding):
    console, written = terminal(encoding)
    expected = text.encode(encoding, "backslashreplace").decode(encoding)
    consoles.say(console, text)
    consoles.say_error(console, text)
    console.print(text)
    with consoles.bar(console, "epochs") as bar:
        task = bar.add_task(text, total=2)
        bar.advance(task)
    lines = written().splitlines()
    assert lines[:3] == [expected, f"error: {expected}", expected]
    assert any(line.startswith(f"{expected} ") for line in lines[3:])


def test_a_message_is_one_line_on_any_console_and_keeps_its_brackets():
    for console in (
        consoles.create(file=io.StringIO(), width=10),
        rich.console.Console(file=io.StringIO(), width=10),
    ):
        consoles.say(console, "results in runs/sweep[/a] and more")
        assert console.file.getvalue() == "results in runs/sweep[/a] and more\n"


def test_error_is_red_where_there_are_colours():
    console = rich.console.Console(
        file=io.StringIO(), force_terminal=True, color_system="standard", width=80
    )
    consoles.say_error(console, "wrong [x]")
    assert console.file.getvalue() == "\x1b[1;31merror:\x1b[0m wrong [x]\n"


def test_a_notebook_gets_plain_lines(monkeypatch):
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    console = progress.console()
    assert not console.is_jupyter
    assert not console.is_terminal
    assert console.width == 110


def test_layers_of_a_table_keep_their_names():
    size = {"float32_bytes": 4, "bytes": 1, "ratio": 4.0}
    report = {
        "tensors": [{"name": "Dense[/a]/kernel[é]", "shape": [2], **size}],
        "num_test": 1,
        "paths": {},
    }
    console, written = terminal("ascii")
    export.show(report, console)
    assert "Dense[/a]/kernel[\\xe9]  " in written()
    plain = rich.console.Console(file=io.StringIO(), width=100)
    export.show(report, plain)
    assert "Dense[/a]/kernel[é]  " in plain.file.getvalue()


def test_consoles_are_made_in_one_place_and_no_text_holds_markup():
    styles = "bold|dim|italic|red|green|yellow|blue|cyan|magenta"
    wrong = re.compile(
        rf"\bConsole\(|rich\.(get_console|print\b)|from rich|markup=True|Progress\("
        rf"|\.track\(|\[/?({styles})[ \w]*\]"
    )
    files = [
        file
        for folder in ("experiments", "benchmarks")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".py", ".ipynb") and file.name != "console.py"
    ]
    assert len(files) > 60
    for file in files:
        assert not wrong.findall(file.read_text("utf-8")), file


@pytest.mark.parametrize("name", ["[lr]=3*", os.fsdecode(b"no-utf8-\xff"), "süß"])
def test_checkpoints_below_folders_of_any_name_can_be_read(name, tmp_path):
    """Orbax takes names for patterns, and TensorStore takes UTF-8 only."""
    folder = tmp_path / name / "checkpoints"
    arrays = {"w": jnp.arange(3.0)}
    with checkpoints.Checkpoints(folder) as store:
        store.save(4, arrays, {"position": {}})
    assert (folder / "4").is_dir()
    with checkpoints.Checkpoints(folder, read_only=True) as store:
        assert store.steps == [4]
        found, record, messages = store.restore(arrays)
    assert (found["w"].tolist(), record, messages) == ([0, 1, 2], {"position": {}}, [])


def test_a_link_with_a_plain_name_is_removed_again(tmp_path):
    assert plain_path.of(tmp_path)[0] == tmp_path
    path, forget = plain_path.of(tmp_path / "[a]")
    assert path.readlink() == tmp_path / "[a]"
    forget()
    assert not path.parent.exists()


def test_a_program_on_an_ascii_terminal_ends_with_status_0(tmp_path):
    """In one process, whose streams are those of cron."""
    program = (
        "import sys; from experiments import console, errors\n"
        "out = console.program()\n"
        "text = sys.argv[1]\n"
        "console.say(out, text); console.say_error(out, text); print(text)\n"
        "print(text, file=sys.stderr)\n"
        "with console.bar(out) as bar: bar.add_task(text, total=1)\n"
        "raise errors.RunError(text)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, b"[/x]-\xc3\xa9-\xff"],
        capture_output=True,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONIOENCODING": "ascii:strict",
            "COLUMNS": "10",
        },
    )
    assert done.stdout.splitlines()[:3] == [
        b"[/x]-\\xe9-\\udcff",
        b"error: [/x]-\\xe9-\\udcff",
        b"[/x]-\\xe9-\\udcff",
    ]
    assert done.stderr.splitlines()[0] == b"[/x]-\\xe9-\\udcff"
    assert done.stderr.splitlines()[-1].endswith(b"RunError: [/x]-\\xe9-\\udcff")
    assert done.stderr.count(b"Traceback") == 1


def test_the_training_program_on_an_ascii_terminal(tmp_path):
    folder = os.fsencode(tmp_path) + "/[/bold]ü".encode() + b"\xfe"
    command = [
        *(sys.executable, "-m", "experiments.main", b"--workdir=" + folder),
        "--config=experiments/configs/quickstart.py:smoke",
        *("--config.num_epochs=1", "--config.num_train=128"),
        *("--config.tensorboard=False", "--config.model_options.features=(8,)"),
    ]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "10"}
    done = subprocess.run(
        command, capture_output=True, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith(b"/[/bold]\\xfc\\udcfe")
    page = pathlib.Path(os.fsdecode(folder), "report.html").read_text("utf-8")
    assert "bold]ü\\udcfe</title>" in page


EPOCH = [
    "epoch 100/100",
    "loss 0.3841",
    "train 100.00 %",
    "val 97.92 %",
    "1083 steps/s",
]


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_lines_and_bars_fit_a_terminal(width):
    file = io.StringIO()
    console = consoles.create(file=file, width=width, force_terminal=True)
    with consoles.bar(console, "epochs") as bar:
        for name in ("loss 0.384  accuracy 100.0 %", "adaste_averaged of a long name"):
            task = bar.add_task(name, total=100_000)
            bar.update(task, completed=99_999)
        consoles.say(console, consoles.fitted(console, EPOCH))
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert max(map(len, lines)) <= width
    # Each task is one line, and all of it is there where there is room.
    assert all(re.match(r"loss|adaste|epoch", line) for line in lines)
    full = "  ".join(EPOCH)
    shown = [line for line in lines if line.startswith("epoch")]
    assert shown == [full if width >= len(full) else shown[0]]
    assert full.startswith(shown[0])


def test_a_line_is_whole_where_there_is_no_terminal():
    console = consoles.create(file=io.StringIO(), width=20)
    assert consoles.fitted(console, EPOCH) == "  ".join(EPOCH)


@pytest.mark.parametrize("terminal", [True, False])
def test_no_cell_of_a_table_is_cut(terminal):
    file = io.StringIO()
    console = consoles.create(file=file, width=20, force_terminal=terminal)
    row = ("params/Block_7/kernel", "3x3x128x128", "589,824")
    consoles.table(console, ("tensor", "shape", "bytes"), [row])
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    assert [line.split() for line in text.splitlines()][1] == list(row)


def test_the_bar_of_a_notebook_is_one_line(monkeypatch):
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    file = io.StringIO()
    console = consoles.create(file=file)
    with consoles.bar(console) as bar:
        task = bar.add_task("loss 0.384  accuracy 100.0 %", total=3)
        for _ in range(3):
            bar.advance(task)
    (line,) = [line for line in file.getvalue().splitlines() if line.strip()]
    assert line.startswith("loss 0.384")
    assert "3/3" in line
