"""Checkpoints come back bit for bit, and a broken one is skipped."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import train
from experiments import errors
from experiments.runs import checkpoints
from tests.experiments import disks

# Tasks of Orbax that still read when one of them has found a damaged file.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


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


def test_the_best_stays_besides_the_latest_also_over_restarts(tmp_path):
    lives = {1: 0.1, 2: 0.9, 3: None}, {4: 0.3, 5: None, 6: 0.2}
    for steps, kept in zip(lives, ([2, 3], [2, 5, 6]), strict=True):
        with checkpoints.Checkpoints(tmp_path / "c", keep=2) as store:
            for step, accuracy in steps.items():
                store.save(step, arrays(step), {}, accuracy=accuracy)
            store.wait()
            assert store.steps == kept


def test_the_latest_stays_where_it_is_the_worst(tmp_path):
    with checkpoints.Checkpoints(tmp_path / "c", keep=1) as store:
        for step, accuracy in ((1, 0.9), (2, 0.1), (3, 0.2)):
            store.save(step, arrays(step), {}, accuracy=accuracy)
        store.wait()
        assert store.steps == [1, 3]


def test_one_saved_on_four_devices_comes_back_on_one_and_on_two(tmp_path):
    with checkpoints.Checkpoints(tmp_path / "c") as store:
        store.save(3, train.replicate(arrays(3)), {})
        store.wait()
        for count in (1, 2):
            mesh = train.data_mesh(jax.devices()[:count])
            like = train.replicate(arrays(0), mesh)
            found, _, messages = store.restore(like)
            assert messages == []
            assert found["latent"].sharding == like["latent"].sharding
            assert_same(found, arrays(3))


def files_of(folder, step):
    files = pathlib.Path(folder, str(step)).rglob("*")
    return sorted(file for file in files if file.is_file())


def restored_step(folder):
    """Which checkpoint comes back; it must be the one it says it is."""
    with checkpoints.Checkpoints(folder, read_only=True) as store:
        found, record, messages = store.restore(arrays(0))
    step = record["position"]["index"]
    assert_same(found, arrays(step))
    assert bool(messages) == (step != 8)
    return step


def test_a_flipped_bit_is_never_restored(tmp_path):
    """In any file: it is noticed, or it is where nothing is read."""
    save_two(tmp_path / "c")
    rng = np.random.default_rng(0)
    found = []
    for file in files_of(tmp_path / "c", 8):
        original = file.read_bytes()
        for position in rng.integers(len(original), size=2) if original else ():
            changed = bytearray(original)
            changed[position] ^= 1 << int(rng.integers(8))
            file.write_bytes(changed)
            found.append(restored_step(tmp_path / "c"))
        file.write_bytes(original)
    assert {3, 8} == set(found)


def test_a_flipped_bit_in_a_latent_is_noticed(tmp_path):
    """Orbax alone restores it: the arrays themselves have no checksum there."""
    save_two(tmp_path / "c")
    file = max(files_of(tmp_path / "c", 8), key=lambda file: file.stat().st_size)
    changed = bytearray(file.read_bytes())
    changed[len(changed) // 2] ^= 1
    file.write_bytes(changed)
    with checkpoints.Checkpoints(tmp_path / "c") as store:
        _, record, messages = store.restore(arrays(0))
    assert record == {"position": {"index": 3}}
    assert "checksum" in messages[0]


@pytest.mark.parametrize("name", ["arrays", "record", "_CHECKPOINT_METADATA"])
def test_a_step_that_clean_up_has_half_deleted_is_passed_over(tmp_path, name):
    save_two(tmp_path / "c")
    part = tmp_path / "c" / "8" / name
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    assert restored_step(tmp_path / "c") in ((8,) if name.startswith("_") else (3,))


def test_reading_only_changes_nothing(tmp_path):
    save_two(tmp_path / "c")
    damage(tmp_path / "c", 8)
    (tmp_path / "c" / "9.orbax-checkpoint-tmp").mkdir()  # another program saves
    before = sorted(str(file) for file in tmp_path.rglob("*"))
    assert restored_step(tmp_path / "c") == 3
    assert sorted(str(file) for file in tmp_path.rglob("*")) == before


# The thread of Orbax that saves prints what it raises.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_is_an_error_and_leaves_the_one_before(tmp_path):
    with disks.small(tmp_path / "disk", "200k") as disk:
        with checkpoints.Checkpoints(disk / "c") as store:
            store.save(3, arrays(3), {"position": {"index": 3}})
        noise = np.random.default_rng(0).random(100_000, np.float32)
        big = {**arrays(8), "latent": jnp.asarray(noise)}
        store = checkpoints.Checkpoints(disk / "c")
        with pytest.raises(errors.RunError, match=r"No space left.*same command"):  # noqa: PT012
            store.save(8, big, {"position": {"index": 8}})
            store.close()
        with checkpoints.Checkpoints(disk / "c") as store:
            assert store.steps == [3]
            found, _, _ = store.restore(arrays(0))
            assert_same(found, arrays(3))
            store.save(8, arrays(8), {"position": {"index": 8}})  # it fits
            store.wait()
            assert store.steps == [3, 8]


def test_a_disk_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "c").write_text("a file in its place")
    with pytest.raises(errors.RunError, match="same command"):
        checkpoints.Checkpoints(tmp_path / "c")
