"""Studies in the background: a kill costs one training, and the page says what is."""

import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import optax
import pytest

from adaste_jax import methods as library
from experiments import errors, methods
from experiments.compare import outcomes, search, trials
from experiments.runs import small_files
from experiments.studies import (
    annealing,
    annealing_pages,
    equal_size,
    pages,
    rivals,
    runner,
    study,
)
from experiments.studies.study import FLOAT, Book, Part, Row, Study, Task
from tests.experiments import test_loop

ROOT = pathlib.Path(__file__).parents[2]
QUIET = test_loop.QUIET


@pytest.fixture(autouse=True)
def entered(monkeypatch):
    """The methods of studies, in this test only."""
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    rivals.enter()


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def keys_of(lines):
    names = ("part", "row", "setup", "split", "seed", "learning_rate", "options")
    return [json.dumps([line.get(name) for name in names]) for line in lines]


def run(main, folder, *arguments):
    with test_loop.undrawn():
        places = [f"--workdir={folder / 'work'}", f"--out={folder / 'out'}"]
        main([*arguments, "--smoke", *places])


def refuse_to_train(monkeypatch):
    def refuse(self, wanted, **arguments):
        raise AssertionError(f"trained again: {wanted}")

    monkeypatch.setattr(trials.Trainer, "train", refuse)


def stop_after(monkeypatch, number):
    """Ends the program after so many trainings, as Ctrl-C does."""
    train = trials.Trainer.train
    done = []

    def stopping(self, wanted, **arguments):
        found = train(self, wanted, **arguments)
        while True:
            if len(done) == number:
                raise KeyboardInterrupt
            try:
                done.append(next(found))
            except StopIteration:
                return
            yield done[-1]

    monkeypatch.setattr(trials.Trainer, "train", stopping)


def test_a_study_that_is_killed_goes_on_where_it_was(tmp_path, monkeypatch):
    file = tmp_path / "out" / "annealing_which.jsonl"
    command = [sys.executable, "-m", "experiments.studies.annealing", "which"]
    command += ["--smoke", f"--workdir={tmp_path / 'work'}", f"--out={file.parent}"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        while process.poll() is None:
            if file.exists() and file.read_text().count("\n") >= 3:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    before = file.read_text()
    assert before.count("\n") >= 3
    with file.open("a") as out:
        out.write('{"part": "digits", "row": "S')  # a kill in the middle of a line
    run(annealing.main, tmp_path, "which")
    text = file.read_text()
    assert text.startswith(before)
    keys = keys_of(lines_of(file))
    assert len(set(keys)) == len(keys)
    book = Book(annealing.which(True), file)
    assert pages.missing(book) == []
    assert all(
        set(book.tested(part, row)) == {1, 2}
        for part in book.study.parts
        for row in part.rows
    )
    page = (file.parent / "annealing_which.md").read_text()
    assert page.startswith("# Is it AdaSTE, or any annealed map?\n\n**AdaSTE is ")
    assert "Still missing" not in page
    assert "| 12.71 |" in page  # the quantile of two seeds
    refuse_to_train(monkeypatch)
    run(annealing.main, tmp_path, "which")
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("main", "arguments", "make", "stop"),
    [
        (annealing.main, ("lasts",), annealing.lasts, 2),
        (annealing.main, ("from_float",), annealing.from_float, 1),
        pytest.param(
            *(equal_size.main, (), equal_size.equal_size, 1), marks=pytest.mark.slow
        ),
    ],
)
def test_a_study_that_is_stopped_is_finished_by_the_same_command(
    main, arguments, make, stop, tmp_path, monkeypatch
):
    wanted = make(True)
    file = tmp_path / "out" / f"{wanted.name}.jsonl"
    with monkeypatch.context() as patch:
        stop_after(patch, stop)
        with pytest.raises(KeyboardInterrupt):
            run(main, tmp_path, *arguments)
    before = file.read_text()
    assert [one["split"] in ("test", "validation") for one in lines_of(file)].count(
        True
    ) >= stop
    run(main, tmp_path, *arguments)
    assert file.read_text().startswith(before)
    keys = keys_of(lines_of(file))
    assert len(set(keys)) == len(keys)
    book = Book(wanted, file)
    assert pages.missing(book) == []
    if wanted.parts[0].start is not None:
        assert set(book.tested(wanted.parts[0].start, FLOAT)) == {1}
    page = (file.parent / f"{wanted.name}.md").read_text()
    assert "Nothing is trained yet" not in page
    assert "Still missing" not in page
    refuse_to_train(monkeypatch)
    main([*arguments, "--smoke", "--page", f"--out={file.parent}"])


def test_an_estimate_writes_nothing(tmp_path, capsys):
    run(annealing.main, tmp_path, "which", "--dry_run")
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith("in all: 10 trainings, ")  # two rows: search 3, test 2
    assert not (tmp_path / "out").exists()


def test_two_programs_do_not_run_one_study(tmp_path):
    book = Book(annealing.which(True), tmp_path / "lines.jsonl")
    with (
        runner.Runner(book, tmp_path / "work", QUIET),
        pytest.raises(errors.RunError, match="another program"),
    ):
        runner.Runner(book, tmp_path / "work", QUIET)


def test_parts_and_seeds_are_those_of_the_command_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(annealing.main, tmp_path, "which", "--parts=CIFAR")
    assert "no part begins with 'CIFAR'; there are digits" in capsys.readouterr().err
    run(annealing.main, tmp_path, "which", "--dry_run", "--seeds=1", "--parts=dig")
    assert "in all: 8 trainings" in capsys.readouterr().out


# --- order


def small(name="digits", **options):
    config = test_loop.small_config().unlock()
    rows = {"STE": Row("ste"), "AdaSTE": Row("adaste", most=2)}
    return Part(name, config, rows, **options)


def test_rounds_give_every_part_some_seeds_before_one_gets_more():
    one, other = small("one"), small("other")
    found = study.tasks(Study("s", [one, other], (1, 3)))
    assert [(task.part.name, task.row, list(task.seeds)) for task in found] == [
        ("one", "STE", [1]),
        ("one", "AdaSTE", [1]),
        ("other", "STE", [1]),
        ("other", "AdaSTE", [1]),
        ("one", "STE", [2, 3]),
        ("one", "AdaSTE", [2]),
        ("other", "STE", [2, 3]),
        ("other", "AdaSTE", [2]),
    ]


def test_with_a_float_network_a_seed_is_finished_before_the_next():
    part = small(start=small("float"))
    found = study.tasks(Study("s", [part], (2,)))
    assert [(task.row, list(task.seeds)) for task in found] == [
        ("STE", [1]),
        ("AdaSTE", [1]),
        ("STE", [2]),
        ("AdaSTE", [2]),
    ]


def test_a_line_counts_only_for_what_it_was_trained_with(tmp_path):
    path = tmp_path / "lines.jsonl"
    part = small()
    book = Book(Study("s", [part], (2,)), path)
    setting = search.Setting(0.01)
    book.choose(part, "STE", search.Choice(setting, at_edge=False))
    fill(book, part, "STE", [0.5])
    assert book.missing(Task(part, "STE", [1, 2])) == [2]
    longer = part.config.copy_and_resolve_references()
    longer.num_epochs += 1
    for other in (
        Part(part.name, longer, part.rows),
        Part(part.name, part.config, {"STE": Row("ste_clipped")}),
        Part(part.name, part.config, {"STE": Row("ste", model={"features": (8,)})}),
        Part(part.name, part.config, part.rows, start=part_float()),
    ):
        again = Book(Study("s", [other], (2,)), path)
        assert again.missing(Task(other, "STE", [1, 2])) == [1, 2]
    assert Book(Study("s", [part], (2,)), path).missing(Task(part, "STE", [1])) == []


def part_float():
    config = test_loop.small_config().unlock()
    return Part("network", config, {FLOAT: Row("full_precision")})


# --- lines


def test_lines_are_found_again_and_what_is_not_finite_has_failed(tmp_path):
    lines = outcomes.Lines(tmp_path / "folder" / "lines.jsonl")
    row = lines.of(part="p", row="r")
    trial, options = trials.Trial(1, 0.1234567891), (("tau", 0.5),)
    flips = [0.5, 0.25, 0.123456789]
    outcome = {"accuracy": 0.5, "loss": 1.0, "bytes_per_weight": 12.0}
    kept = row.keep(trial, options, "test", {**outcome, "flips_per_epoch": flips})
    assert kept["flips_per_epoch"] == [0.5, 0.123457]
    again = outcomes.Lines(lines.path)
    assert again.of(part="p", row="r").find(trial, options, "test") == kept
    for part, found, split in (
        ("q", options, "test"),
        ("p", (), "test"),
        ("p", options, "validation"),
    ):
        assert again.of(part=part, row="r").find(trial, found, split) is None
    other = trials.Trial(2, 0.1)
    failed = row.keep(other, (), "test", {**outcome, "loss": math.nan})
    assert failed["failure"] == "the loss is nan"
    lines.path.write_text("[]\n" + lines.path.read_text())
    with pytest.raises(errors.RunError, match="line 1 is not an outcome"):
        outcomes.Lines(lines.path)


def test_other_data_are_refused(tmp_path):
    """A line says which data there were; those of another Python may differ."""
    wanted = annealing.which(True)
    path = tmp_path / "out" / "annealing_which.jsonl"
    head = {"part": '["digits", 128, 64, 0.05]', "row": "", "split": "data"}
    line = {**head, "seed": 0, "learning_rate": 0.0, "options": {}, "digest": "0"}
    path.parent.mkdir()
    path.write_text(small_files.dumps(line) + "\n")
    with (
        runner.Runner(Book(wanted, path), tmp_path / "work", QUIET) as one,
        pytest.raises(errors.RunError, match="is of other data"),
    ):
        next(one.run())


def test_a_row_of_which_nothing_works_does_not_stop_the_others(tmp_path, monkeypatch):
    def explodes(steps, *, learning_rate=1.0, **run):
        tx = optax.with_extra_args_support(optax.scale(jnp.inf))
        return library.from_estimator(lambda latent: latent, tx)

    monkeypatch.setitem(methods.METHODS, "explodes", explodes)
    config = test_loop.small_config(num_epochs=1, num_train=128).unlock()
    rows = {"bad": Row("explodes"), "STE": Row("ste")}
    part = Part("digits", config, rows, factors=(1.0, 3.0))
    study_of = Study("annealing_which", [part], (1,))
    path = tmp_path / "lines.jsonl"
    for _ in range(2):  # the second time nothing is left
        book = Book(study_of, path)
        with runner.Runner(book, tmp_path / "work", QUIET) as one:
            list(one.run())
            assert one.time_left(measure=False) == (0.0, True)
        text = path.read_text()
    assert text.count('"chosen"') == 2
    assert set(book.tested(part, "STE")) == {1}
    assert pages.missing(book) == []
    annealing_pages.write(book, tmp_path)
    page = (tmp_path / "annealing_which.md").read_text()
    assert "| bad |  |  | failed: at every learning rate; the loss is not fin" in page
    refuse_to_train(monkeypatch)
    with runner.Runner(Book(study_of, path), tmp_path / "work", QUIET) as one:
        assert list(one.run()) == []


# --- pages


def fill(book, part, row, values):
    """Lines of a row with these accuracies, or bits per byte, by seed from 1."""
    if book.chosen(part, row) is None:
        setting = search.Setting(0.01)
        book.choose(part, row, search.Choice(setting, at_edge=False))
    view = book.lines.of(**book.head(part, row, searched=False))
    for seed, value in enumerate(values, 1):
        outcome = {"accuracy": 0.5, "loss": 1.0, "bytes_per_weight": 12.0}
        outcome |= {"seconds_per_epoch": 1.0, part.measure: value}
        view.keep(trials.Trial(seed, 0.01), (), "test", outcome)


def test_the_page_states_paired_differences_and_what_is_missing(tmp_path):
    """By hand: gaps 1, 2, 3 points; t(0.975, 2) = 4.3027, so 2 ± 2.48."""
    rows = {name: Row("ste") for name in ("STE", "AdaSTE", "PARQ")}
    rows = {name: Row(one.method, most=4) for name, one in rows.items()}
    part = Part("digits", test_loop.small_config().unlock(), rows)
    book = Book(Study("annealing_which", [part], (4,)), tmp_path / "lines.jsonl")
    fill(book, part, "STE", [0.90, 0.91, 0.92])
    fill(book, part, "AdaSTE", [0.91, 0.93, 0.95])
    fill(book, part, "PARQ", [0.80, 0.82, 0.84])
    annealing_pages.write(book, tmp_path)
    page = (tmp_path / "annealing_which.md").read_text()
    title, conclusion, *_ = page.split("\n\n")
    assert title == "# Is it AdaSTE, or any annealed map?"
    assert " ".join(conclusion.split()) == (
        "**AdaSTE is not told apart from STE on digits (+2.00 ± 2.48 points, 3 seeds). "
        "Told apart from AdaSTE are PARQ (behind it on digits, -11.00 ± 0.00); the "
        "others are not.**"
    )
    assert "| AdaSTE | 0.01 | 3 | 93.00 ± 2.00 | +2.00 ± 2.48 |  | 4.30 |" in page
    assert "- digits: STE (1), AdaSTE (1), PARQ (1)" in page
    assert (tmp_path / "annealing_which_digits.png").read_bytes()[:4] == b"\x89PNG"


def test_of_bits_fewer_are_better(tmp_path):
    rows = {"int8": Row("int8"), "binary, STE": Row("scaled_ste")}
    config = test_loop.small_config().unlock()
    part = Part("0.25 MB", config, rows, measure="bits_per_byte")
    book = Book(Study("equal_size", [part], (2,)), tmp_path / "lines.jsonl")
    fill(book, part, "int8", [2.5, 2.6])
    fill(book, part, "binary, STE", [2.4, 2.5])
    equal_size.write(book, tmp_path)
    page = " ".join((tmp_path / "equal_size.md").read_text().split())
    assert (
        "At 0.25 MB the best is binary, STE (2.450 bits per byte); the best with one "
        "bit, binary, STE, is +0.100 ± 0.000 bits better than int8 (2 seeds)."
    ) in page


def test_from_float_names_who_is_ahead_on_all_networks(tmp_path):
    """Ahead on one network of two is not enough; on the other the interval holds 0."""
    parts = []
    for name in ("one", "ResNet-8"):
        config = test_loop.small_config(num_epochs=10).unlock()
        rows = {n: Row("ste") for n in ("STE", "identity", "PARQ")}
        start = Part(name, config.copy_and_resolve_references(), part_float().rows)
        config.num_epochs = 1
        parts.append(Part(f"{name}, 10 %", config, rows, start=start))
    book = Book(Study("annealing_from_float", parts, (2,)), tmp_path / "lines.jsonl")
    for part in parts:
        fill(book, part, "STE", [0.90, 0.92])
        fill(book, part, "identity", [0.91, 0.93])
        fill(book, part, "PARQ", [0.91 if part is parts[0] else 0.90, 0.93])
        fill(book, part.start, FLOAT, [0.95, 0.97])
    annealing_pages.write(book, tmp_path)
    page = " ".join((tmp_path / "annealing_from_float.md").read_text().split())
    assert (
        "At 10 % of the float steps, ahead of STE on all 2 networks by an interval "
        "that excludes 0: identity. On ResNet-8 at 10 % the best row is identity, "
        "-4.00 ± 0.00 points to float."
    ) in page
    assert "| identity | 92.00 (+1.00 ± 0.00) |" in page
    assert "| float | 96.00 |" in page


def test_the_studies_as_they_are_have_lines_of_their_own():
    """Every row of every part can be set up, and no two share a line."""
    for make in (*annealing.QUESTIONS.values(), equal_size.equal_size):
        heads = set()
        for part in make().parts:
            for row in part.rows:
                head = part.name, row, part.setup(row, searched=False)
                assert head not in heads
                heads.add(head)
    networks = annealing.from_float().parts
    shares = {round(annealing_pages.share(part)) for part in networks}
    assert shares == {2, 5, 10, 20}


def test_networks_of_a_size_fill_it():
    for size in equal_size.SHAPES:
        for kind in equal_size.KINDS:
            found = equal_size.file_bytes(size, kind) / 1e6
            assert 0.89 * float(size.split()[0]) < found <= float(size.split()[0])
