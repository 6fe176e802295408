"""The code on the page about scaling runs as it stands there."""

import pathlib
import re

import numpy as np

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "scaling.md"


def test_the_code_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert len(blocks) == 4
    assert np.isfinite(names["report"]["loss"])
    assert names["state"].params["first"]["kernel"].sharding.spec[-1] == "fsdp"
