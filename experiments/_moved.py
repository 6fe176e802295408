"""Modules of 0.1 under their old names: they give a warning; removed in 0.3."""

import importlib
import importlib.abc
import importlib.util
import sys
import warnings
from importlib import machinery
from types import ModuleType

_ROOMS = {
    "compare": "entry search tables trials",
    "data": "augmentation feeds image_folder images listing text",
    "deployment": "deployed description fits",
    "report": "charts plots",
    "runs": "checkpoints identity plain_path processes records small_files stopping "
    "workdir",
    "studies": "gallery order",
    "training": "checks layers loop losses progress restore run tally",
}
MOVED = {
    **{one: f"{room}.{one}" for room, names in _ROOMS.items() for one in names.split()},
    "data_identity": "data.fingerprint",
    "data_source": "data.sources",
    "data_stream": "data.streams",
    "report_tables": "report.tables",
    "seeds": "training.problem",
    "tfds_records": "data.tfds",
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
