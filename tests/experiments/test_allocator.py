"""Programs keep the memory of a step for the next one."""

import os
import platform
import subprocess
import sys

import pytest

from experiments import _allocator

FAULTS = """
import resource, sys
sys.argv[0] = sys.argv[1]
import experiments
import jax, jax.numpy as jnp
program = jax.jit(lambda x: jnp.sort(jnp.sin(x) + jnp.cos(x)[::-1]).sum())
x = jnp.ones(4_000_000)
count = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
faults = []
for _ in range(9):
    before = count()
    program(x).block_until_ready()
    faults.append(count() - before)
print(min(faults))
"""


def faults(started_as, **environment):
    """Minor page faults of a call that needs 16 MB of temporary memory at least.

    The least of some calls: the first ones fetch the memory, and one whose predecessor
    is not tidied up yet, on a busy machine, fetches more of it.
    """
    found = subprocess.run(
        [sys.executable, "-c", FAULTS, started_as],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(found.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")
def test_a_program_fetches_no_memory_anew_in_each_step():
    assert faults("-m") < 100
    # As a library, and where it is switched off, the allocator is left as it is.
    assert faults("own.py") > 2000
    assert faults("-m", **{_allocator.VARIABLE: "0"}) > 2000


def test_the_variable_leaves_the_allocator_alone(monkeypatch):
    monkeypatch.setenv(_allocator.VARIABLE, "0")
    assert not _allocator.keep_memory()


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not _allocator.keep_memory()
