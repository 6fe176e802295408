"""Where the wheels of oneDNN and jaxlib have their files; run as a script by CMake."""

import importlib.metadata
import importlib.util
import pathlib

LIBRARY = "libdnnl.so.3"


def _file(distribution: str, ending: str) -> pathlib.Path:
    for file in importlib.metadata.files(distribution) or ():
        if file.as_posix().endswith(ending):
            return pathlib.Path(str(file.locate())).resolve()
    raise FileNotFoundError(f"The wheel of {distribution} has no {ending}.")


def onednn_library() -> pathlib.Path:
    """The library of the wheel `onednn-cpu-gomp`."""
    return _file("onednn-cpu-gomp", f"/{LIBRARY}")


def onednn_headers() -> pathlib.Path:
    """The folder of its headers."""
    header = "include/oneapi/dnnl/dnnl.hpp"
    return _file("onednn-devel-cpu-gomp", header).parents[2]


def xla_headers() -> pathlib.Path:
    """The folder of the headers of XLA's FFI; importing jaxlib would take longer."""
    spec = importlib.util.find_spec("jaxlib")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("jaxlib is not installed.")
    return pathlib.Path(spec.origin).parent / "include"


if __name__ == "__main__":
    print(xla_headers(), onednn_headers(), onednn_library(), sep=";")
