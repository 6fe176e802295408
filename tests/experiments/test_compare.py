"""Comparisons on the digits: the same training for all, resumed, failures as rows."""

import contextlib
import io
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rich.console
from PIL import Image

from adaste_jax import methods as library
from experiments import console as consoles
from experiments import errors, methods
from experiments.compare import comparison, entry, search, tables, trials, tuning
from experiments.configs import quickstart
from experiments.data import datasets, memory, streams
from experiments.training import loop
from experiments.training.run import Run
from tests.experiments import test_loop

QUIET = rich.console.Console(quiet=True)


def small_config(**fields):
    config = quickstart.get_config("smoke")
    config.model_options.features = (16,)
    config.num_epochs = 1
    config.num_train = 320
    config.reestimate_batches = 2
    config.tensorboard = False
    config.update(fields)
    config.lock()
    return config


def run(path, variants=("ste", "adaste"), *, drawn=False, **options):
    options = {
        "seeds": 2,
        "factors": (0.3, 1.0),
        "knobs": False,
        "console": QUIET,
        **options,
    }
    config = options.pop("config", None) or small_config()
    with contextlib.nullcontext() if drawn else test_loop.undrawn():
        return comparison.compare_config(config, variants, path, **options)


def by_name(rows):
    return {row["method"]: row for row in rows}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("compared") / "run"
    return path, run(path, ("ste", "adaste", "full_precision"), drawn=True)


def test_a_comparison_leaves_a_table_of_three_kinds(finished):
    path, rows = finished
    assert json.loads((path / "table.json").read_text()) == rows
    assert (path / "table.png").read_bytes().startswith(b"\x89PNG")
    lines = (path / "table.md").read_text().splitlines()
    assert len(lines) == 2 + 3
    assert {line.split("|")[1].strip() for line in lines[2:]} == {
        "ste",
        "adaste",
        "full_precision",
    }
    found = by_name(rows)
    assert "difference" not in found["ste"]
    assert found["full_precision"]["relative_time"] == 1.0
    assert "flips_first" not in found["full_precision"]
    assert 0 < found["adaste"]["flips_first"] < 1
    # Latents, two moments of Adam, and a few counters.
    assert 12 <= found["adaste"]["bytes_per_weight"] < 12.1
    gaps = [
        found["adaste"]["accuracies"][seed] - found["ste"]["accuracies"][seed]
        for seed in ("1", "2")
    ]
    assert found["adaste"]["difference"] == pytest.approx(np.mean(gaps))


def test_the_learning_rate_is_that_of_the_best_validation_accuracy(finished):
    path, rows = finished
    tried = {}
    for file in (path / "trials" / "ste").glob("validation-seed0-*.json"):
        tried[float(file.stem.split("-", 2)[2])] = json.loads(file.read_text())
    assert {0.003, 0.01} < set(tried)  # and beyond the edge, where the best one lay
    best = max(sorted(tried), key=lambda rate: tried[rate]["accuracy"])
    assert by_name(rows)["ste"]["learning_rate"] == pytest.approx(best, rel=1e-5)
    tested = {file.name for file in (path / "trials" / "ste").glob("test-*.json")}
    assert tested == {f"test-seed1-{best:g}.json", f"test-seed2-{best:g}.json"}


def test_what_is_finished_is_not_trained_again(finished, monkeypatch):
    path, rows = finished

    def refuse(self, trials, **arguments):
        raise AssertionError(f"trained again: {trials}")

    monkeypatch.setattr(trials.Trainer, "train", refuse)
    assert run(path, ("ste", "adaste", "full_precision")) == rows


def test_only_what_is_missing_is_trained(finished, monkeypatch):
    path, _ = finished
    trained = []
    train = trials.Trainer.train

    def spy(self, wanted, **arguments):
        trained.extend((self.run.config.method, trial.seed) for trial in wanted)
        return train(self, wanted, **arguments)

    monkeypatch.setattr(trials.Trainer, "train", spy)
    rows = run(path, ("ste",), seeds=3)
    assert trained == [("ste", 3)]
    assert set(rows[0]["accuracies"]) == {"1", "2", "3"}


def test_tuning_tries_on_while_the_best_is_at_an_edge_and_tests_nothing(
    tmp_path, monkeypatch, broken_methods
):
    """The best rate is 3^4 times the default; a rate fails where it is too large."""
    splits = []

    def train(self, wanted, *, split, advance):
        splits.append(split)
        for trial in wanted:
            off = abs(math.log(trial.learning_rate / 0.81, 3))
            outcome = {"accuracy": 0.9 - off / 100, "loss": 1.0}
            if trial.learning_rate > 2:
                outcome = {"failure": "the loss is not finite at step 3"}
            yield trial, {**outcome, "seconds_per_epoch": 1.0}

    monkeypatch.setattr(trials.Trainer, "train", train)
    file = io.StringIO()
    rows = run(
        tmp_path / "run",
        ("ste", "impossible"),
        factors=(1 / 3, 3.0),
        tune=True,
        console=consoles.create(file=file),
    )
    assert set(splits) == {"validation"}
    found = by_name(rows)
    assert "this cannot be built" in found["impossible"]["failure"]
    ste = found["ste"]
    assert ste["default"] == 0.01  # that of the config, tried though it is not named
    assert ste["learning_rate"] == pytest.approx(0.81)
    assert not ste["at_edge"]
    assert list(ste["tried"]) == ["0.00333333", "0.01", "0.03", "0.09", "0.27", "0.81"]
    assert ste["default_accuracy"] == pytest.approx(0.86)
    assert ste["good"] == pytest.approx([0.27, 0.81])
    assert json.loads((tmp_path / "run" / "tuned.json").read_text()) == rows
    lines = (tmp_path / "run" / "tuned.md").read_text().splitlines()
    assert lines[2].split(" | ")[1:5] == ["0.01", "0.81", "81", "86.0 → 90.0"]
    assert "learning rate 0.81  81 times the default" in file.getvalue()
    assert not (tmp_path / "run" / "table.md").exists()


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_the_table_of_learning_rates_fits_a_terminal(width):
    choice = search.Choice(search.Setting(0.03), at_edge=True)
    one = tuning.row("ste", choice, default=0.01, tried={0.01: 0.5, 0.03: 0.75})
    rows = [one, {"method": "bop", "failure": "a long story " * 9}]
    file = io.StringIO()
    tuning.show(consoles.create(file=file, width=width, force_terminal=True), rows)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert lines[2].split() == ["bop", "failed"]
    assert lines[1].split()[:4] == ["ste", "0.01", "0.03", "(edge)"]


def test_a_comparison_uses_what_tuning_trained(tmp_path, monkeypatch):
    run(tmp_path / "run", ("ste",), tune=True)
    tuned = {file.name for file in (tmp_path / "run" / "trials" / "ste").iterdir()}
    trained = []
    train = trials.Trainer.train

    def spy(self, wanted, *, split, **arguments):
        trained.extend((split, trial.seed) for trial in wanted)
        return train(self, wanted, split=split, **arguments)

    monkeypatch.setattr(trials.Trainer, "train", spy)
    run(tmp_path / "run", ("ste",), seeds=1)
    assert len([name for name in tuned if name.startswith("validation")]) >= 2
    assert trained == [("test", 1)]


def test_a_folder_of_photographs_is_compared(tmp_path, capfd):
    """Bright and dark pictures of many sizes, which a network tells apart."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 6)):
        for name, darkest in (("dark", 10), ("light", 150)):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                size = (*rng.integers(12, 20, 2), 3)
                level = rng.integers(darkest, darkest + 80)
                pixels = rng.integers(level, level + 20, size).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    config = small_config(
        dataset="folder/photos",
        data_dir=str(tmp_path),
        batch_size=8,
        num_train=0,
        num_epochs=40,
        validation=0.2,
    )
    rows = run(tmp_path / "run", ("ste",), seeds=1, factors=(1.0,), config=config)
    assert rows[0]["mean"] == 1.0
    said = capfd.readouterr().err
    assert "folder/photos/train: 40 images, 20 of each class" in said
    assert "are made 8 x 8" in said
    again = run(tmp_path / "run", ("ste",), seeds=1, factors=(1.0,), config=config)
    assert again == rows


def test_streamed_images_in_memory_are_those_of_an_evaluation(monkeypatch):
    rng = np.random.default_rng(0)
    examples = [
        {"image": Image.fromarray(rng.integers(0, 256, (9, side, 3), np.uint8))}
        for side in range(9, 16)
    ]
    examples = [one | {"label": number} for number, one in enumerate(examples)]
    moments = dict.fromkeys(("mean", "std"), np.zeros(3))
    streamed = datasets.Splits(
        examples, [], examples[:3], num_classes=7, max_value=255, **moments
    )
    found = memory.decoded(streamed, image_size=6)
    batch = next(
        iter(streams.stream(examples, batch_size=7, train=False, image_size=6))
    )
    np.testing.assert_array_equal(found.train.images, batch["image"])
    assert found.train.labels.tolist() == list(range(7))
    assert found.validation.images.shape == (0, 6, 6, 3)
    assert found.test.labels.tolist() == [0, 1, 2]
    pixels = batch["image"] / 255
    np.testing.assert_allclose(found.mean, pixels.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found.std, pixels.std((0, 1, 2)), rtol=1e-5)
    monkeypatch.setattr(memory, "MOST_BYTES", 2**28)
    with pytest.raises(errors.RunError, match=r"4096 x 4096 x 3 take 0\.5 GiB"):
        memory.decoded(streamed, image_size=4096)


def test_a_trial_is_the_run_of_the_loop(tmp_path):
    """What `experiments.main` gives with that seed, up to the order of sums."""
    config = small_config(seed=1, method="adaste", num_epochs=2)
    with test_loop.undrawn():
        result = loop.train_and_evaluate(config, tmp_path / "run", console=QUIET)
    trainer = trials.Trainer(config, "adaste")
    rate = config.methods.adaste.learning_rate
    [(_, outcome)] = trainer.train(
        [trials.Trial(1, rate)], split="test", advance=lambda epochs: None
    )
    assert outcome["accuracy"] == pytest.approx(result["test_accuracy"], abs=0.006)
    assert outcome["loss"] == pytest.approx(result["test_loss"], rel=2e-2)


@pytest.mark.parametrize("method", ["adaste", "bernoulli_pwgf"])
def test_trials_at_once_are_the_same_as_one_after_the_other(method):
    """Up to the order of sums, over seeds and learning rates."""
    wanted = [trials.Trial(1, 0.001), trials.Trial(2, 0.003)]
    found = []
    for together in (1, 2):
        trainer = trials.Trainer(small_config(), method, together=together)
        outcomes = trainer.train(
            wanted, split="validation", advance=lambda epochs: None
        )
        found.append([outcome for _, outcome in outcomes])
    for alone, mapped in zip(*found, strict=True):
        # 7e-6 here. With ten times these learning rates one sign can differ, and then
        # the loss does by 4 %.
        assert alone["loss"] == pytest.approx(mapped["loss"], rel=1e-3)
        assert alone["flips_per_epoch"] == pytest.approx(
            mapped["flips_per_epoch"], abs=3e-3
        )
    assert found[0][0]["loss"] != found[0][1]["loss"]


@pytest.fixture
def broken_methods(monkeypatch):
    """One that cannot be built, and one whose loss is not finite after a step."""

    def impossible(steps, *, learning_rate=1.0, **run):
        raise TypeError("this cannot be built")

    def explodes(steps, *, learning_rate=1.0, **run):
        tx = optax.with_extra_args_support(optax.scale(jnp.inf))
        return library.from_estimator(lambda latent: latent, tx)

    monkeypatch.setitem(methods.METHODS, "impossible", impossible)
    monkeypatch.setitem(methods.METHODS, "explodes", explodes)


def test_a_method_that_fails_is_a_row_that_says_so(tmp_path, broken_methods):
    rows = run(tmp_path / "run", ("impossible", "explodes", "ste"), factors=(1.0,))
    assert rows[0]["method"] == "ste"
    found = by_name(rows)
    assert "TypeError: this cannot be built" in found["impossible"]["failure"]
    assert "seed 1: the loss is not finite at step 1" in found["explodes"]["failure"]
    table = (tmp_path / "run" / "table.md").read_text()
    assert "| explodes | failed: seed 1: the loss is not finite" in table


@pytest.mark.parametrize(
    ("variants", "options", "message"),
    [
        (("stee",), {}, "no method 'stee'"),
        (("ste", "ste"), {}, "named twice"),
        ((), {}, "at least one method"),
        (("ste",), {"seeds": 0}, "--seeds must be at least 1, got 0"),
        (("ste",), {"factors": (0.0,)}, "factors above 0"),
        (("ste",), {"factors": (1.0, math.nan)}, "factors above 0"),
        (("ste",), {"factors": (math.inf,)}, "factors above 0"),
        (("ste",), {"factors": (1.0,), "tune": True}, "another than 1"),
        (("ste",), {"together": -1}, "--together must be at least 0, got -1"),
        (("ste",), {"config": {"validation": 0.0}}, "config.validation=0.1"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, variants, options, message):
    if "config" in options:
        options = {**options, "config": small_config(**options["config"])}
    with pytest.raises(errors.RunError, match=message):
        run(tmp_path / "run", variants, **options)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda found: "{", "cannot read"),
        (lambda found: "[]", "expected a JSON object"),
        (
            lambda found: json.dumps(found | {"loss": None}),
            "'loss' to be of type float",
        ),
        (lambda found: json.dumps(found | {"accuracy": "1"}), "'accuracy'"),
        (lambda found: json.dumps(found | {"accuracy": float("nan")}), "'accuracy'"),
        (lambda found: json.dumps({"accuracy": 1.0, "loss": 1.0}), "bytes_per_weight"),
        (lambda found: json.dumps(found | {"flips_per_epoch": 3}), "flips_per_epoch"),
    ],
)
def test_a_damaged_trial_is_a_row_that_names_the_file(finished, damage, message):
    """The other methods are whole, and the file says how to mend it."""
    path, rows = finished
    file = next((path / "trials" / "ste").glob("test-seed1-*.json"))
    whole = file.read_text()
    file.write_text(damage(json.loads(whole)))
    try:
        found = by_name(run(path, ("ste", "adaste", "full_precision")))
    finally:
        file.write_text(whole)
    assert message in found["ste"]["failure"]
    assert str(file) in found["ste"]["failure"]
    assert "Remove the file" in found["ste"]["failure"]
    assert found["adaste"]["mean"] == by_name(rows)["adaste"]["mean"]
    assert run(path, ("ste", "adaste", "full_precision")) == rows


def test_a_trial_without_a_finite_loss_has_failed(tmp_path, monkeypatch):
    def train(self, wanted, **arguments):
        for trial in wanted:
            yield trial, {"accuracy": 0.1, "loss": math.nan, "seconds_per_epoch": 1.0}

    monkeypatch.setattr(trials.Trainer, "train", train)
    [row] = run(tmp_path / "run", ("ste",), factors=(1.0,))
    assert row["failure"] == "seed 1: the loss is nan"
    for file in (tmp_path / "run").rglob("*.json"):
        assert "NaN" not in file.read_text()


def test_rows_without_a_common_seed_have_no_difference():
    common = {
        "options": {},
        "at_edge": False,
        "learning_rate": 1.0,
        "bytes_per_weight": 12.0,
    }
    outcome = {"accuracy": 0.5, "seconds_per_epoch": 1.0}
    rows = [
        tables.row("ste", {1: outcome}, **common),
        tables.row("ede", {2: outcome}, **common),
    ]
    done = by_name(tables.compare_rows(rows))
    assert "difference" not in done["ede"]
    failed = {"method": "ede", "failure": "a | b\nc"}
    assert r"failed: a \| b c |" in tables.markdown([failed])


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_the_table_of_a_terminal_fits_it_and_has_the_values_of_the_file(width):
    outcome = {"accuracy": 0.5, "seconds_per_epoch": 1.0, "flips_per_epoch": [0.2, 0.1]}
    common = {"learning_rate": 0.003, "at_edge": True, "bytes_per_weight": 12.0}
    rows = tables.compare_rows(
        [
            tables.row(name, {1: outcome, 2: outcome}, options=options, **common)
            for name, options in (("ste", {}), ("adaste", {"anneal_fraction": 0.5}))
        ]
        + [{"method": "bop", "failure": "it failed"}]
    )
    file = io.StringIO()
    tables.show(consoles.create(file=file, width=width, force_terminal=True), rows)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines[1:]] == ["ste", "adaste", "bop"]
    assert lines[3].split() == ["bop", "failed"]
    for cell in ("50.00 ± 0.00", "+0.00 ± 0.00")[: 1 + (width >= 60)]:
        assert cell in lines[2]
        assert cell in tables.markdown(rows)
    assert ("0.200 → 0.1000" in lines[1]) == (width == 140)
    plain = io.StringIO()
    tables.show(consoles.create(file=plain, width=width), rows)
    assert plain.getvalue().strip() == tables.markdown(rows).strip()


def test_other_data_or_options_need_another_workdir(finished):
    path, _ = finished
    with pytest.raises(errors.RunError, match="num_epochs"):
        run(path, ("ste",), config=small_config(num_epochs=2))
    [row] = run(path, {"ste": entry.Variant("ste", {"learning_rate": 0.5})})
    assert "belongs to another config" in row["failure"]


def test_the_interval_is_that_of_a_paired_t_test():
    """By hand: gaps 1, 2, 3; t(0.975, 2) = 4.302653."""
    first = {"1": 3.0, "2": 5.0, "3": 7.0, "9": 100.0}
    second = {"1": 2.0, "2": 3.0, "3": 4.0}
    difference, interval = tables.paired(first, second)
    assert difference == 2.0
    assert interval == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert tables.paired({"1": 1.0}, {"1": 0.5}) == (0.5, None)


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_takes_a_step(method):
    """Traced only: what a step needs is there, and the state keeps its form."""
    run = Run(small_config(method=method))
    state = jax.eval_shape(run.init)
    step = run.pure_step(jnp.float32(0.1))
    index = jax.ShapeDtypeStruct((64,), jnp.int32)
    after, report = jax.eval_shape(step, state, {"index": index}, run.feed.resident)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert ("flip_rate" in report) == (method != "full_precision")
    weights = jax.eval_shape(run.method.deploy, state.params)
    assert weights["Dense_0"]["kernel"].shape == (64, 16)


def test_every_method_has_defaults():
    assert set(methods.defaults()) == {*methods.METHODS, *methods.OLD_NAMES}
    assert all("learning_rate" in options for options in methods.defaults().values())


def scores_of(accuracy, log, *, loss=lambda one: 1.0):
    def scores(settings):
        log.extend(settings)
        found = {one: (accuracy(one), -loss(one)) for one in settings}
        return {one: search.Score(*s) for one, s in found.items() if s[0] is not None}

    return scores


@pytest.mark.parametrize(
    ("peak", "tried", "chosen", "at_edge"),
    [
        (1.0, [0.1, 1.0, 10.0], 1.0, False),
        (10.0, [0.1, 1.0, 10.0, 100.0], 10.0, False),
        (0.01, [0.1, 1.0, 10.0, 0.01, 0.001], 0.01, False),
        (1e6, [0.1, 1.0, 10.0, 100.0, 1000.0], 1000.0, True),
    ],
)
def test_the_search_goes_on_past_the_edge_twice(peak, tried, chosen, at_edge):
    log = []
    scores = scores_of(lambda one: -abs(np.log(one.learning_rate / peak)), log)
    choice = search.search(scores, [10.0, 0.1, 1.0])
    assert [one.learning_rate for one in log] == pytest.approx(tried)
    assert choice.setting.learning_rate == pytest.approx(chosen)
    assert choice.at_edge == at_edge


def test_the_search_tries_the_other_option_at_the_rate_it_found():
    """Its default counts with the accuracy that it had already."""
    log = []
    other = (("cap", 2.0),)
    gain = {(): 0.0, other: 0.5}
    scores = scores_of(
        lambda one: gain[one.options] - abs(one.learning_rate - 1.0), log
    )
    others = [other]
    choice = search.search(scores, [0.5, 1.0, 2.0], others)
    assert choice.setting == search.Setting(1.0, other)
    assert log[3:] == [search.Setting(1.0, other)]
    gain[other] = -0.5
    assert search.search(scores, [1.0], others).setting == search.Setting(1.0)


def test_of_equally_accurate_settings_that_of_the_lowest_loss_is_chosen():
    """And not the first, nor the last; a lower accuracy is not made up for."""
    scores = scores_of(
        lambda one: 0.5 if one.learning_rate < 4 else 0.4,
        [],
        loss=lambda one: {0.5: 3.0, 1.0: 2.0, 2.0: 2.5, 4.0: 1.0}[one.learning_rate],
    )
    choice = search.search(scores, [0.5, 1.0, 2.0, 4.0])
    assert choice == search.Choice(search.Setting(1.0), at_edge=False)


def test_settings_that_fail_are_not_chosen():
    fails = scores_of(lambda one: None, [])
    assert search.search(fails, [1.0, 2.0]) is None
    some = scores_of(lambda one: 1.0 if one.learning_rate < 2 else None, [])
    assert search.search(some, [1.0, 2.0, 4.0]).setting.learning_rate < 2


def test_a_comparison_chooses_the_option_on_validation(tmp_path):
    [row] = run(tmp_path / "run", ("bop",), seeds=1, factors=(1.0,), knobs=True)
    folder = tmp_path / "run" / "trials" / "bop"
    tried = {
        file.name: json.loads(file.read_text())["accuracy"]
        for file in folder.glob("validation-*.json")
    }
    prefix = "validation-seed0-0.001"
    assert set(tried) == {
        f"{prefix}.json",
        f"{prefix}-tau=1e-08.json",
        f"{prefix}-tau=1e-06.json",
    }
    tau = row["options"].get("tau", 1e-7)
    ending = f"-tau={tau}" if row["options"] else ""
    assert tried[f"{prefix}{ending}.json"] == max(tried.values())
    assert [file.name for file in folder.glob("test-*.json")] == [
        f"test-seed1-0.001{ending}.json"
    ]


def test_a_comparison_chooses_the_momentum_where_the_optimiser_is_open(tmp_path):
    """`bop` has a transformation of its own, so there is no momentum to choose."""
    options = {"seeds": 1, "factors": (1.0,), "momenta": (0.9, 0.5)}
    rows = by_name(run(tmp_path / "run", ("ste", "bop"), **options))
    folder = tmp_path / "run" / "trials"
    tried = {
        file.name.removeprefix("validation-seed0-0.01").removesuffix(".json"): (
            json.loads(file.read_text())
        )
        for file in (folder / "ste").glob("validation-*.json")
    }
    assert set(tried) == {"", "-config.momentum=0.5"}
    assert tried[""]["loss"] != tried["-config.momentum=0.5"]["loss"]
    best = max(tried, key=lambda end: (tried[end]["accuracy"], -tried[end]["loss"]))
    found = rows["ste"]["options"]
    assert found == ({"config.momentum": 0.5} if best else {})
    [tested] = (folder / "ste").glob("test-*.json")
    assert tested.name == f"test-seed1-0.01{best}.json"
    assert list((folder / "bop").glob("validation-*")) == []
    assert rows["bop"]["options"] == {}
    with pytest.raises(errors.RunError, match=r"--momenta\[0\] must be .*got 1"):
        run(tmp_path / "run", ("ste",), momenta=(1.0,))


def test_a_comparison_tells_equals_apart_by_their_loss(tmp_path):
    """Of what stands in the folder: all as accurate, the last option of lowest loss."""
    options = {"seeds": 1, "factors": (1.0,), "knobs": True}
    run(tmp_path / "run", ("bop",), **options)
    folder = tmp_path / "run" / "trials" / "bop"
    for loss, ending in enumerate(("-tau=1e-06", "", "-tau=1e-08")):
        file = folder / f"validation-seed0-0.001{ending}.json"
        outcome = json.loads(file.read_text()) | {"accuracy": 0.5, "loss": loss + 1.0}
        file.write_text(json.dumps(outcome))
    [row] = run(tmp_path / "run", ("bop",), **options)
    assert row["options"] == {"tau": 1e-6}


def test_knobs_are_options_and_hold_their_default():
    defaults = methods.defaults()
    for method, (knob, values) in search.KNOBS.items():
        assert defaults[method][knob] in values
        assert len(set(values)) == len(values) > 1
