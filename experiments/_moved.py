"""Modules of 0.1 under their old names: they give a warning; removed in 0.3."""

import importlib
import importlib.abc
import importlib.util
import sys
import warnings
from importlib import machinery
from types import ModuleType

MOVED = {
    "augmentation": "data.augmentation",
    "charts": "report.charts",
    "checkpoints": "runs.checkpoints",
    "checks": "training.checks",
    "data_identity": "data.fingerprint",
    "data_source": "data.sources",
    "data_stream": "data.streams",
    "deployed": "deployment.deployed",
    "description": "deployment.description",
    "entry": "compare.entry",
    "feeds": "data.feeds",
    "fits": "deployment.fits",
    "gallery": "studies.gallery",
    "identity": "runs.identity",
    "image_folder": "data.image_folder",
    "images": "data.images",
    "layers": "training.layers",
    "listing": "data.listing",
    "loop": "training.loop",
    "losses": "training.losses",
    "order": "studies.order",
    "plain_path": "runs.plain_path",
    "plots": "report.plots",
    "processes": "runs.processes",
    "progress": "training.progress",
    "records": "runs.records",
    "report_tables": "report.tables",
    "restore": "training.restore",
    "run": "training.run",
    "search": "compare.search",
    "seeds": "training.problem",
    "small_files": "runs.small_files",
    "stopping": "runs.stopping",
    "tables": "compare.tables",
    "tally": "training.tally",
    "text": "data.text",
    "tfds_records": "data.tfds",
    "trials": "compare.trials",
    "workdir": "runs.workdir",
}
"""From the old name to the new one, both in `experiments`."""


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports the same module under its old name, not a second copy."""

    def find_spec(self, name, path=None, target=None):
        package, _, old = name.rpartition(".")
        if package != __package__ or old not in MOVED:
            return None
        new = f"{package}.{MOVED[old]}"
        warnings.warn(
            f"{name} is now {new}; the old name is removed in 0.3.",
            DeprecationWarning,
            stacklevel=2,
        )
        return machinery.ModuleSpec(name, self, origin=new)

    def create_module(self, spec: machinery.ModuleSpec) -> ModuleType:
        assert spec.origin is not None
        module = importlib.import_module(spec.origin)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """The module has run; it keeps its own name."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state

    def get_code(self, fullname: str):
        """For `python -m`."""
        old = fullname.rpartition(".")[2]
        spec = importlib.util.find_spec(f"{__package__}.{MOVED[old]}")
        assert spec is not None
        return spec.loader.get_code(spec.name)  # type: ignore[union-attr]

    def get_source(self, fullname: str) -> None:
        """Nothing: `python -m` needs the code alone."""
        return None


def install() -> None:
    """Makes the old names importable."""
    sys.meta_path.append(_Finder())
