"""Who may import whom: arrows point down only, and the package needs no Flax."""

import ast
import graphlib
import importlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# Floor of each module or package of `adaste_jax`; a new one must be put on its floor.
FLOORS = {
    "_deprecated": 0,
    "_multiply_adds": 0,
    "_native": 0,
    "_numerics": 0,
    "_paths": 0,
    "estimators": 1,
    "_from_torch": 2,
    "_tree": 2,
    "metrics": 2,
    "nn": 2,
    "optim": 2,
    "methods": 2.5,
    "_summary": 3,
    "datasets": 3,
    "export": 3,
    "train": 3,
}

# Floor of each room and each top module of `experiments`.
EXPERIMENTS = {
    "__main__": 9,
    "_allocator": 0,
    "_moved": 0,
    "console": 0,
    "errors": 0,
    "fields": 1,
    "command_line": 2,
    "methods": 2,
    "models": 2,
    "configs": 3,
    "runs": 4,
    "data": 5,
    "report": 5,
    "deployment": 6,
    "predict": 7,
    "training": 7,
    "compare": 8,
    "export": 8,
    "generate": 8,
    "hub": 8,
    "main": 8,
    "studies": 9,
}


def _room(path: pathlib.Path) -> str:
    """The module or package of its root that a file belongs to."""
    return path.relative_to(ROOT).parts[1].removesuffix(".py")


def _imports(path: pathlib.Path) -> set[str]:
    """Full names of what a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _files(package: str) -> list[pathlib.Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize(
    "path", _files("adaste_jax"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_imports_point_to_lower_floors(path):
    room = _room(path)
    if room == "__init__":
        return
    for name in _imports(path):
        parts = name.split(".")
        assert parts[0] != "experiments", f"{path} imports {name}"
        if parts[0] != "adaste_jax" or parts[1] == room:
            continue
        assert FLOORS[parts[1]] < FLOORS[room], f"{path} imports {name}"


def test_every_room_has_a_floor():
    rooms = {_room(path) for path in _files("adaste_jax")} - {"__init__"}
    assert rooms == FLOORS.keys()


@pytest.mark.parametrize(
    "path", _files("experiments"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_rooms_of_the_experiments_import_lower_floors(path):
    room = _room(path)
    for name in _imports(path) if room != "__init__" else ():
        root, other, *_ = [*name.split("."), ""]
        if root == "experiments" and other != room:
            assert EXPERIMENTS[other] < EXPERIMENTS[room], f"{path} imports {name}"


def test_every_room_of_the_experiments_has_a_floor():
    rooms = {_room(path) for path in _files("experiments")} - {"__init__"}
    assert rooms == EXPERIMENTS.keys()


def test_modules_of_the_experiments_import_each_other_in_no_circle():
    modules = {}
    for path in _files("experiments"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        modules[name.removesuffix(".__init__")] = path
    arrows = {
        name: {
            imported if imported in modules else imported.rpartition(".")[0]
            for imported in _imports(path)
        }
        & modules.keys() - {name}
        for name, path in modules.items()
    }
    tuple(graphlib.TopologicalSorter(arrows).static_order())  # raises at a circle


def test_programs_draw_without_importing_matplotlib_before():
    program = (
        "import sys, experiments.main, experiments.export, experiments.predict, "
        "experiments.report, experiments.studies.curves, experiments.studies.order; "
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


@pytest.mark.parametrize("package", ["adaste_jax", "experiments", "benchmarks"])
def test_no_private_names_of_other_packages(package):
    own = ("adaste_jax", "experiments", "__future__")
    for path in _files(package):
        for name in _imports(path):
            foreign = not name.startswith(own)
            private = any(part.startswith("_") for part in name.split("."))
            assert not (foreign and private), f"{path} imports {name}"
            if package != "adaste_jax":
                assert not name.startswith("adaste_jax._"), f"{path} imports {name}"


def test_importing_the_package_imports_neither_flax_nor_tensorflow():
    program = (
        "import sys, adaste_jax; "
        "heavy = {'flax', 'tensorflow', 'tensorflow_datasets', 'orbax', 'grain', "
        "'safetensors', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("package", "needs", "extra"),
    [("adaste_jax.nn", "flax", "flax"), ("experiments", "ml_collections", "train")],
)
def test_a_missing_extra_is_named(package, needs, extra, monkeypatch):
    module = importlib.import_module(package)
    monkeypatch.setitem(sys.modules, needs, None)
    with pytest.raises(ImportError, match=rf"pip install .*\[{extra}"):
        importlib.reload(module)


@pytest.mark.parametrize("package", ["adaste_jax", "experiments"])
def test_no_file_is_longer_than_three_hundred_lines(package):
    lengths = {
        path: len(path.read_text("utf-8").splitlines()) for path in _files(package)
    }
    assert {path: length for path, length in lengths.items() if length > 300} == {}
