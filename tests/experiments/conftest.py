"""Runs that the tests of several files compare theirs with."""

import functools

import pytest

from tests.experiments import test_loop


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A workdir of an unbroken run of four epochs of six steps, per way of feeding."""

    @functools.cache
    def run(**feeding):
        path = tmp_path_factory.mktemp("whole") / "run"
        test_loop.run_once(path, num_epochs=4, **feeding)
        return path

    return run
