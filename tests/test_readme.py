"""Every block of Python in the README runs as it stands."""

import pathlib
import re

import jax
import pytest

README = pathlib.Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


def test_there_is_a_block_for_each_front_door():
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number):
    with jax.numpy_rank_promotion("allow"):  # as a user has it
        exec(compile(BLOCKS[number], f"README block {number}", "exec"), {})
