"""Programs that train, compare and export binary networks: the command `adaste`."""

import importlib.util
import pathlib
import sys

from experiments import _allocator, _moved

_NAME = pathlib.Path(sys.argv[0]).name

if _NAME in ("-m", "adaste"):  # a program, before it imports JAX
    _allocator.keep_memory()

if importlib.util.find_spec("ml_collections") is None:
    _MISSING = 'the programs need more packages: pip install "adaste_jax[train]"'
    if _NAME == "adaste":
        sys.exit(f"error: {_MISSING}")
    raise ImportError(_MISSING)

_moved.install()
