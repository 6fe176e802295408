"""A text that ships with Python, as bytes, for a small language model."""

import numpy as np

from experiments import errors

LENGTH = 128
"""Bytes in an example."""

VALUES = 256
"""Number of values of a byte."""


def pydoc_topics() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The language reference of this Python, which `help("while")` shows.

    The topics come in a fixed random order, cut into pieces of 128 bytes. Repeated
    paragraphs are removed, since many topics quote each other. The last tenth is for
    testing, so no sentence of it is in training. Other versions of Python have other
    texts.

    Returns:
        `"train"` (2,630 examples in Python 3.11.7) and `"test"` (292), each a pair of
        bytes, uint8 [n, 128], and the bytes that follow them, uint8 [n, 128].

    Raises:
        RunError: If this Python comes without the text.

    Reference:
        "The Python Language Reference", Python Software Foundation, PSF License
        Version 2; read from `pydoc_data.topics`.

    Example:
        >>> inputs, following = pydoc_topics()["test"]
        >>> inputs.shape[1], bool((inputs[:, 1:] == following[:, :-1]).all())
        (128, True)
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise errors.RunError(
            "this Python comes without pydoc_data, the text of its language reference: "
            "install its standard library in full."
        ) from error
    names = np.random.default_rng(0).permutation(sorted(topics))
    paragraphs = (part for name in names for part in topics[name].split("\n\n"))
    text = "\n\n".join(dict.fromkeys(part.strip("\n") for part in paragraphs))
    values = np.frombuffer(text.encode("utf-8"), np.uint8)
    size = (len(values) - 1) // LENGTH
    inputs, following = (
        values[shift : shift + size * LENGTH].reshape(size, LENGTH) for shift in (0, 1)
    )
    end = size - size // 10
    return {
        "train": (inputs[:end], following[:end]),
        "test": (inputs[end:], following[end:]),
    }
