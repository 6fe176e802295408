"""Checkpoints come back bit for bit, and a broken one is passed over."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import checkpoints, errors


def arrays(step):
    return {
        "latent": jnp.linspace(-1, 1, 999) * (step + 1),
        "packed": [jnp.array([step, 255], jnp.uint8)],
        "nothing": None,
        "step": jnp.asarray(step, jnp.int32),
        "key": jax.random.fold_in(jax.random.key(7), step),
    }


def save_two(folder):
    store = checkpoints.Checkpoints(folder)
    for step in (3, 8):
        store.save(step, arrays(step), {"position": {"index": step}})
    store.close()


def damage(folder, step):
    """Cuts every array file of one checkpoint short."""
    files = [f for f in pathlib.Path(folder, str(step)).rglob("*") if f.is_file()]
    data = [file for file in files if "/d/" in str(file)]
    assert data
    for file in data:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def assert_same(found, expected):
    found["key"] = jax.random.key_data(found["key"])
    expected["key"] = jax.random.key_data(expected["key"])
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_the_latest_comes_back_bit_for_bit(tmp_path):
    save_two(tmp_path / "c")
    store = checkpoints.Checkpoints(tmp_path / "c")
    assert store.steps == [3, 8]
    found, record, messages = store.restore(arrays(0))
    store.close()
    assert_same(found, arrays(8))
    assert record == {"position": {"index": 8}}
    assert messages == []


def test_no_checkpoint_is_none(tmp_path):
    store = checkpoints.Checkpoints(tmp_path / "c")
    assert store.restore(arrays(0)) is None
    store.close()


def test_only_the_latest_are_kept(tmp_path):
    store = checkpoints.Checkpoints(tmp_path / "c", keep=2)
    for step in (1, 2, 3):
        store.save(step, arrays(step), {})
    store.wait()
    assert store.steps == [2, 3]
    store.close()


def test_a_broken_one_is_moved_aside_and_the_one_before_is_used(tmp_path):
    save_two(tmp_path / "c")
    damage(tmp_path / "c", 8)
    store = checkpoints.Checkpoints(tmp_path / "c")
    found, record, messages = store.restore(arrays(0))
    assert_same(found, arrays(3))
    assert record == {"position": {"index": 3}}
    assert len(messages) == 1
    assert "checkpoint 8 cannot be read" in messages[0]
    assert (tmp_path / "damaged_checkpoints" / "8").is_dir()
    store.save(8, arrays(8), {})  # the resumed run comes to that step again
    store.wait()
    assert store.steps == [3, 8]
    store.close()


def test_none_readable_is_an_error_that_changes_nothing(tmp_path):
    save_two(tmp_path / "c")
    for step in (3, 8):
        damage(tmp_path / "c", step)
    before = sorted(str(f) for f in tmp_path.rglob("*"))
    store = checkpoints.Checkpoints(tmp_path / "c")
    with pytest.raises(errors.RunError, match=r"none of the checkpoints .*\[3, 8\]"):
        store.restore(arrays(0))
    store.close()
    assert sorted(str(f) for f in tmp_path.rglob("*")) == before
