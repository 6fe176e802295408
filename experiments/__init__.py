"""Programs that train, compare and export binary networks; run from a clone."""

import importlib.util

from experiments import _moved

if importlib.util.find_spec("ml_collections") is None:
    raise ImportError(
        'the programs need more packages: pip install -e ".[experiments]"'
    )

_moved.install()
