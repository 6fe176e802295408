"""What is said of the project in one place is what the others say."""

import pathlib
import re
import tomllib

import pytest
import yaml

import adaste_jax

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def read(name):
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


def pins(extra):
    """Exact versions of an extra: {"ruff": "0.17.6"}."""
    wanted = PROJECT["project"]["optional-dependencies"][extra]
    return dict(one.split("==") for one in wanted if "==" in one)


def test_the_version_is_one():
    version = PROJECT["project"]["version"]
    assert adaste_jax.__version__ == version
    assert read("CITATION.cff")["version"] == version


def test_the_citation_names_the_paper_that_the_readme_links():
    [paper] = read("CITATION.cff")["references"]
    assert paper["url"] in (ROOT / "README.md").read_text("utf-8")


def test_the_hooks_run_what_make_lint_runs():
    ruff, local = read(".pre-commit-config.yaml")["repos"]
    assert ruff["rev"] == f"v{pins('lint')['ruff']}"
    assert [hook["id"] for hook in ruff["hooks"]] == ["ruff-format", "ruff-check"]
    assert [hook["entry"] for hook in local["hooks"]] == [".venv/bin/mypy"]
    assert pins("docs")["ruff"] == pins("lint")["ruff"]


def test_hosted_machines_run_what_a_change_must_pass_on_every_python():
    workflow = read(".github/workflows/ci.yml")
    [job] = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if ".ci/run" in step.get("run", "")]
    versions = job["strategy"]["matrix"]["python"]
    stated = {f"Programming Language :: Python :: {version}" for version in versions}
    assert stated <= set(PROJECT["project"]["classifiers"])
    assert PROJECT["project"]["requires-python"] == f">={versions[0]}"
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


@pytest.mark.parametrize("name", ["jax", "numpy", "optax"])
def test_the_lowest_versions_that_are_stated_are_those_of_the_package(name):
    page = (ROOT / "docs" / "stability.md").read_text("utf-8")
    [wanted] = [
        one
        for one in PROJECT["project"]["dependencies"]
        if re.match(rf"{name}[<>=]", one)
    ]
    assert f"`{wanted}`" in page
