"""Programs that train, compare and export binary networks; run from a clone."""

import importlib.util

if importlib.util.find_spec("ml_collections") is None:
    raise ImportError(
        'the programs need more packages: pip install -e ".[experiments]"'
    )
