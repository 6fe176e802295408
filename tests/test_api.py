"""The public names are those of `api.txt`: what changes there is seen in review."""

import difflib

import pytest

from tests import api


def test_public_names_and_signatures_are_those_of_the_list():
    listed = api.FILE.read_text("utf-8").splitlines()
    found = api.text().splitlines()
    difference = list(difflib.unified_diff(listed, found, "api.txt", "code", n=0))
    if difference:
        pytest.fail(
            "the public names have changed. If that is meant, run `python -m tests.api`"
            ", add a line to CHANGELOG.md, and let an old form warn for one release"
            " (docs/stability.md):\n" + "\n".join(difference),
            pytrace=False,
        )


def test_the_list_has_no_private_name_and_no_address():
    text = api.text()
    assert "adaste_jax.train.make_train_step(network, " in text
    assert " at 0x" not in text
    assert "._" not in text.replace(".__call__(", "")
