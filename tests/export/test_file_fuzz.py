"""Thousands of damaged files: a clear error or the same network, and little memory."""

import copy
import struct
import tracemalloc

import jax
import numpy as np

from adaste_jax import export
from tests.export import hostile

FILES = 2400
ALLOWED = 2**20  # bytes; the whole file has about one thousand


def _bytes_changed(rng, whole):
    data = bytearray(whole)
    for position in rng.integers(0, len(data), rng.integers(1, 4)):
        data[position] ^= 1 << rng.integers(0, 8)
    return bytes(data)


def _bytes_moved(rng, whole):
    a, b, c = np.sort(rng.integers(0, len(whole) + 1, 3))
    cut = [
        whole[:a],
        whole[:a] + whole[b:],
        whole[:a] + whole[b:c] + whole[a:b] + whole[c:],
        whole[:b] + whole[a:b] + whole[b:],
        whole + rng.bytes(int(a) % 64),
        whole[:a] + rng.bytes(int(b - a)) + whole[b:],
    ]
    return cut[rng.integers(len(cut))]


def _header_changed(rng, whole):
    """JSON that says something else, under a checksum that is right again."""
    outer, inner, *data = _kinds()[rng.integers(3)]
    values = ["~", "~1", "params/~0~1", "params/..~1x", 2, 3, 8, 16]
    values += ["group", "float16", [8, 1], [16, 2], [4, 1], [1, 5], [0, 2], [8]]
    values += [0, -1, 1, 7, 2**31, 2**62, 2**70, 1.5, True, None, "", "bits", "float64"]
    values += [
        "trits",
        [],
        [0],
        [1, 2],
        [2**40, 2**40],
        {},
        "../x",
        "\u0000",
        ["a"],
        [[1]],
    ]
    for _ in range(rng.integers(1, 3)):
        tree = [outer, inner][rng.integers(2)]
        while True:
            keys = list(tree) if isinstance(tree, dict) else range(len(tree))
            key = keys[rng.integers(len(keys))]
            child = tree[key]
            if isinstance(child, dict | list) and child and rng.random() < 0.8:
                tree = child
                continue
            break
        if isinstance(tree, dict) and rng.random() < 0.2:
            tree[str(values[rng.integers(len(values))])] = tree.pop(key)
        elif isinstance(tree, dict) and rng.random() < 0.1:
            tree["group"] = copy.deepcopy(values[rng.integers(len(values))])
        else:
            tree[key] = copy.deepcopy(values[rng.integers(len(values))])
    return hostile.assemble(outer, inner, *data)


def _text_changed(rng, whole):
    """JSON cut and spliced as text, with the length put right."""
    (length,) = struct.unpack("<Q", whole[:8])
    text = whole[8 : 8 + length]
    return hostile.container(_bytes_moved(rng, text), whole[8 + length :])


def _kinds():
    """Good files of each version, in parts; the last two have scales of groups."""
    two = hostile.parts(version=2), hostile.grouped()
    return hostile.parts(), *two, hostile.compact()


def wholes():
    """The same files, as bytes."""
    return [hostile.assemble(*parts) for parts in _kinds()]


def mutations(count):
    """Changed files, what changed each, and the number of the good one.

    They are the same every time.
    """
    files = wholes()
    rng = np.random.default_rng(0)
    changes = [_bytes_changed, _bytes_moved, _header_changed, _text_changed]
    for number in range(count):
        change = changes[number % len(changes)]
        which = number // len(changes) % len(files)
        yield change(rng, files[which]), change, which


def test_damaged_files_end_in_an_error_or_in_the_same_network(tmp_path):
    path = tmp_path / "model.safetensors"
    expected = []
    for whole in wholes():
        path.write_bytes(whole)
        expected.append(export.load(path))
    errors = 0
    tracemalloc.start()
    try:
        for data, change, which in mutations(FILES):
            path.write_bytes(data)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            try:
                loaded = export.load(path)
            except export.FormatError:
                errors += 1
            else:
                if change is not _header_changed:  # those are sealed anew, so valid
                    _assert_same(loaded, expected[which])
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before < ALLOWED, data
    finally:
        tracemalloc.stop()
    assert errors > FILES // 2


def _assert_same(loaded, expected):
    assert loaded.header == expected.header
    assert jax.tree.structure(loaded) == jax.tree.structure(expected)
    for a, b in zip(
        jax.tree.leaves(loaded.params), jax.tree.leaves(expected.params), strict=True
    ):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
