"""Typesets formulas: a fence `math` holds LaTeX, as GitHub and GitLab read it too.

The site has MathML, which browsers draw themselves, without a script or a font.
"""

import re
from typing import Any

from latex2mathml import converter
from pymdownx.superfences import SuperFencesException

# Spaces as in TeX, which browsers do not find in what the converter writes.
SPACES = (
    (r'<mo stretchy="false">', r'<mo stretchy="false" lspace="0" rspace="0">'),
    (r"<(m[io])>([a-z]{2,})</\1>", r'<mo lspace="0.17em" rspace="0">\2</mo>'),
    (
        r"(<mo[^>]*>(?:&#x0003D;|&#x02190;|&#x00028;|&#x0002C;|&#x0005B;|\[)</mo>)"
        r"<mo>&#x02212;</mo>",
        r'\1<mo form="prefix">&#x02212;</mo>',
    ),
)


def fence(source: str, *_: Any, **__: Any) -> str:
    """MathML of one formula; called for each fence, see `mkdocs.yml`.

    Raises:
        SuperFencesException: If the converter does not know a command: it would put
            its name on the page.
    """
    formula = converter.convert(source, display="block")
    if "\\" in formula or "<mi>&</mi>" in formula:
        raise SuperFencesException(f"not understood by latex2mathml: {source}")
    for found, better in SPACES:
        formula = re.sub(found, better, formula)
    return f'<div class="formula">{formula}</div>'
