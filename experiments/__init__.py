"""Programs that train, compare and export binary networks; run from a clone."""

import importlib.util
import sys

from experiments import _allocator, _moved

if sys.argv[0] == "-m":  # `python -m experiments.main`, before any of it is imported
    _allocator.keep_memory()

if importlib.util.find_spec("ml_collections") is None:
    raise ImportError(
        'the programs need more packages: pip install -e ".[experiments]"'
    )

_moved.install()
