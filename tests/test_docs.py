"""What the pages say runs: code, commands, and a page with a picture for every method.

The blocks of Python of one page run in order, in one namespace and an empty folder. A
block with a title is a piece of that file: `test_adding.py`.
"""

import ast
import functools
import importlib.util
import pathlib
import re
import shlex

import jax
import numpy as np
import pytest

import adaste_jax
from adaste_jax import estimators, optim
from experiments import command_line, methods
from experiments.__main__ import COMMANDS
from experiments.studies import gallery

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]
}
BLOCKS = {
    page: re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    for page, text in PAGES.items()
}


def _check_scaling(names):
    assert np.isfinite(names["report"]["loss"])
    assert names["state"].params["first"]["kernel"].sharding.spec[-1] == "fsdp"


def _check_loop(names):
    assert names["accuracy"] > 0.9
    assert np.isfinite(names["report"]["loss"])


def _check_nnx(names):
    found = {name: after for name, (_, after) in names["networks"].items()}
    assert len(found) == 5
    assert min(found.values()) > 0.93


def _check_from_pytorch(names):
    assert names["accuracy"] > 0.93
    same = jax.tree.map(np.array_equal, names["again"], names["found"])
    assert jax.tree.all(same)


def _check_coming_from(names):
    shipped = names["shipped"]
    for block in shipped.blocks:
        assert set(np.unique(np.abs(block.conv.kernel[...]))) == {1.0}
    last = shipped.classifier.kernel[...]
    assert len(np.unique(np.abs(last))) > 10
    # The binary layer has the signs of the checkpoint, the last layer its numbers.
    images, loaded = jax.tree.map(np.asarray, (names["images"], names["loaded"]))
    first, norm, head = (loaded[f"layers_{number}"] for number in (0, 1, 3))
    hidden = images @ np.where(first["kernel"] >= 0, 1, -1) + first["bias"]
    hidden = (hidden - hidden.mean(-1, keepdims=True)) / np.sqrt(
        hidden.var(-1, keepdims=True) + 1e-6
    )
    hidden = np.maximum(hidden * norm["scale"] + norm["bias"], 0)
    expected = hidden @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(names["logits"], expected, atol=1e-4)


# Pages whose code `make test` runs.
QUICK = ("README.md", "docs/quickstart.md", "docs/loop.md", "docs/export.md")
# Pages whose code needs a package that is no part of the extra `test`.
NEEDS = {"docs/from_pytorch.md": "torch"}

# What is true once the blocks of a page have run.
CHECKS = {
    "docs/scaling.md": _check_scaling,
    "docs/loop.md": _check_loop,
    "docs/nnx.md": _check_nnx,
    "docs/from_pytorch.md": _check_from_pytorch,
    "docs/coming_from.md": _check_coming_from,
}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] * (page not in QUICK))
        for page, found in BLOCKS.items()
        if found
    ],
)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    if page in NEEDS:
        torch = pytest.importorskip(NEEDS[page], reason=f"needs {NEEDS[page]}")
        torch.set_num_threads(1)  # else its threads wait for those of other tests
    monkeypatch.chdir(tmp_path)
    names = {}
    with jax.numpy_rank_promotion("allow"):  # as a user has it
        for number, block in enumerate(BLOCKS[page]):
            exec(compile(block, f"{page}, block {number}", "exec"), names)
    CHECKS.get(page, lambda names: None)(names)


def test_the_guides_have_code():
    for page in ("README.md", *(f"docs/{name}.md" for name in GUIDES)):
        assert BLOCKS[page], page


GUIDES = (
    *("quickstart", "concepts", "loop", "models", "nnx", "scaling", "export", "format"),
    *("from_pytorch", "coming_from"),
)


# --- commands


def _commands():
    """Every `python -m` and `adaste` of the project's programs in the pages."""
    for page, text in PAGES.items():
        dedented = re.sub(r"^ {4}", "", text, flags=re.MULTILINE)  # of indented code
        joined = dedented.replace("\\\n", "")
        pattern = r"python -m ((?:experiments|benchmarks)\.[\w.]+)([^\n`;]*)"
        for module, arguments in re.findall(pattern, joined):
            if arguments.count('"') % 2:  # the command stands in quotes itself
                arguments = arguments.replace('"', "")
            yield pytest.param(module, arguments, id=f"{page}: {module} {arguments}")
        pattern = rf"\badaste ({'|'.join(COMMANDS)})\b([^\n`;]*)"
        for command, arguments in re.findall(pattern, joined):
            if command in ("train", "compare") and re.match(r" \w", arguments):
                arguments = f" --config={arguments.lstrip()}"
            name = f"{page}: adaste {command} {arguments}"
            yield pytest.param(COMMANDS[command][0], arguments, id=name)


@functools.cache
def _flags(module):
    """Names of the flags that a program defines, or a module that it imports."""
    found, seen, left = set(), set(), [module]
    while left:
        module = left.pop()
        if module not in seen:
            seen.add(module)
            flags, imported = _defined(module)
            found |= flags
            left += imported
    return found


@functools.cache
def _defined(module):
    """Names of the flags in the file of a module, and what it imports of ours."""
    path = _file(module)
    if path is None:
        return set(), []
    text = path.read_text("utf-8")
    found = set(re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", text))
    found |= set(re.findall(r"add_argument\(\s*\"--([\w-]+)\"", text))
    imported = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("experiments"):
            imported += [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
    return found, imported


def _file(module):
    """The file that `python -m` runs; None where there is none."""
    path = ROOT / module.replace(".", "/")
    files = (path.with_suffix(".py"), path / "__main__.py")
    return next((file for file in files if file.exists()), None)


def _config(argument):
    """The config of `FILE`, `FILE:variant` or its name."""
    path, _, variant = command_line.config_file(argument).partition(":")
    spec = importlib.util.spec_from_file_location("config", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*([variant] if variant else []))


@pytest.mark.parametrize(("module", "arguments"), list(_commands()))
def test_a_command_has_a_program_flags_a_config_and_its_fields(module, arguments):
    assert _file(module)
    flags = _flags(module)
    config = _config("experiments/configs/quickstart.py")
    for word in shlex.split(arguments, comments=True):
        name, _, value = word.strip("[]").removeprefix("--").partition("=")
        if not word.strip("[]").startswith("--"):
            continue
        assert name.split(".")[0] in flags, f"{module} has no flag --{name}"
        placeholder = value.isupper() or "..." in value
        if name == "config" and not placeholder:
            config = _config(value)
        elif name.startswith("config.") and name != "config.field":
            place = config
            for field in name.split(".")[1:]:
                assert field in place, f"no field {name}"
                place = place[field]
        if name in ("methods", "config.method") and not placeholder:
            assert set(value.split(",")) <= {*methods.METHODS, "all"}, value


@pytest.mark.parametrize("page", PAGES)
def test_make_knows_its_targets(page):
    known = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"^ *make ([a-z]+)", PAGES[page], re.MULTILINE):
        assert target in known[1].split()


# --- what has a page


def test_every_public_module_is_in_the_reference():
    text = "".join((DOCS / "api" / f.name).read_text() for f in DOCS.glob("api/*.md"))
    shown = set(re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE))
    public = {f"adaste_jax.{name}" for name in adaste_jax.__all__ if name != "nn"}
    assert public | {"adaste_jax.nn.linen", "adaste_jax.nn.nnx"} == shown


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_has_a_page_with_formula_picture_and_source(name):
    page = PAGES[f"docs/methods/{name}.md"]
    assert re.search(r"^```math\n.*(=|\\leftarrow).*\n```$", page, re.MULTILINE)
    if name == "full_precision":
        return
    assert re.search(r"^Source: \S", page, re.MULTILINE)
    pictures = re.findall(r"!\[.*?\]\(\.\./gallery/(\w+)\.png\)", page)
    assert pictures
    assert set(pictures) <= gallery.DRAWN.keys()


def test_no_page_is_left_of_a_method_that_is_gone():
    assert {path.stem for path in DOCS.glob("methods/*.md")} == {
        "index",
        *methods.METHODS,
    }


@pytest.mark.parametrize("module", [estimators, optim])
def test_every_estimator_and_transformation_is_on_the_page_of_a_method(module):
    linked = {
        name
        for page, text in PAGES.items()
        if page.startswith("docs/methods/")
        for name in re.findall(rf"#{re.escape(module.__name__)}\.(\w+)\)", text)
    }
    functions = {
        name
        for name in module.__all__
        if not name[0].isupper() and name != "labels"  # classes, constants, routing
    }
    assert functions == linked


def test_the_pictures_are_those_of_the_gallery():
    assert {path.stem for path in DOCS.glob("gallery/*.png")} == gallery.DRAWN.keys()


# --- what the site fills in


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rows_of_a_table(hooks, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n\n| file | what |\n|---|---|\n| a | b |\n\n"
        "| method | test accuracy, % |\n|---|---|\n| ste | 97 |\n"
        "| bop | 96 |\n\nEnd | x\n"
    )
    assert hooks.title(page) == "Title"
    assert hooks.rows(page) == {
        "ste": {"method": "ste", "test accuracy, %": "97"},
        "bop": {"method": "bop", "test accuracy, %": "96"},
    }


def test_a_method_page_has_defaults_and_measurements(hooks):
    page = hooks.method_page("adaste")
    assert "| `mu_init` | `0.01` |" in page
    for name in hooks.TABLES:
        row = hooks.rows(DOCS / "results" / f"{name}.md")["adaste"]
        assert row["test accuracy, %"] in page
    for name in methods.METHODS:
        assert f"--config.method={name}" in hooks.method_page(name)


def test_every_method_is_shown_in_its_family(hooks):
    page = hooks.methods_by_family()
    families = page.split("## ")
    for name in methods.METHODS:
        assert page.count(f"| `{name}` |") == 1
        assert bool(hooks.picture(name)) == (name != "full_precision")
        if hooks.picture(name):  # methods that differ in the optimiser share one
            image = re.search(r"gallery/\w+\.png", hooks.picture(name))[0]
            family = next(part for part in families if f"| `{name}` |" in part)
            assert family.count(image) == 1
