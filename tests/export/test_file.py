"""What `save` writes, `load` reads, and neither accepts."""

import collections
import hashlib
import json
import math
import os
import stat
import struct
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from flax import nnx

import adaste_jax
from adaste_jax import estimators, export
from tests.export import hostile

ONES = np.ones(2, np.float32)


def network(seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    params = {
        "stem": {"kernel": draw(3, 3, 3, 8), "bias": draw(8)},
        "body": {"kernel": draw(3, 3, 8, 5)},
        "depthwise": {"kernel": draw(3, 3, 1, 7)},
        "head": {"kernel": draw(16, 10), "bias": draw(10).astype(jnp.bfloat16)},
    }
    state = {"batch_stats": {"norm": {"mean": draw(8)}, "count": jnp.int32(7)}}
    return params, state


def assert_equal(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def packed_tensors(path):
    """What the safetensors library sees."""
    tensors = safetensors.deserialize(path.read_bytes())
    return {
        name: np.frombuffer(t["data"], np.uint8).reshape(t["shape"])
        for name, t in tensors
        if t["dtype"] == "U8"
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def test_a_network_comes_back_as_deployed(path):
    params, state = network()
    metadata = {"architecture": "demo", "config": {"layers": [1, 2]}, "commit": "abc"}
    export.save(path, params, model_state=state, metadata=metadata)
    loaded = export.load(path)
    assert_equal(loaded.params, adaste_jax.deploy(params))
    assert_equal(loaded.model_state, state)
    assert loaded.metadata == metadata
    assert loaded.header["format"] == 1
    assert loaded.header["jax"] == jax.__version__


def test_n_binary_weights_take_the_next_whole_number_of_bytes(path):
    params, _ = network()
    export.save(path, params)
    stored = packed_tensors(path)
    for layer, leaves in params.items():
        packed = stored[f"params/{layer}/kernel"]
        assert packed.nbytes == -(-leaves["kernel"].size // 8)


def test_bytes_of_a_dense_kernel_are_packed_along_its_inputs(path):
    params, _ = network()
    export.save(path, params, where="head/kernel")
    np.testing.assert_array_equal(
        packed_tensors(path)["params/head/kernel"],
        export.pack(params["head"]["kernel"], axis=0),
    )


SHIPPED = {
    "signs": (estimators.ste, "bits", None),
    "one scale": (lambda t: estimators.scaled_sign(t, axis=None), "bits", ()),
    "scaled channels": (estimators.scaled_sign, "bits", (6,)),
    "ternary": (estimators.ternary_absmean, "trits", ()),
    "ternary signs": (lambda t: jnp.sign(jnp.round(t)), "trits", None),
}


@pytest.mark.parametrize("kind", SHIPPED)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_with_a_scale_and_ternary_ones_come_back_exactly(path, kind, dtype):
    """Whatever `deploy` ships, at one bit or one trit a weight."""
    deploy, encoding, scale = SHIPPED[kind]
    latent = jax.random.normal(jax.random.key(0), (4, 10, 6), dtype)
    export.save(path, {"kernel": latent}, deploy=deploy)
    loaded = export.load(path)
    assert_equal(loaded.params, {"kernel": deploy(latent)})
    described = loaded.header["tensors"]
    assert described["params/kernel"]["encoding"] == encoding
    per_byte = 8 if encoding == "bits" else 5
    assert packed_tensors(path)["params/kernel"].nbytes == 240 // per_byte
    if scale is None:
        assert len(described) == 1
    else:
        assert described["scales/params/kernel"]["shape"] == list(scale)


def test_latents_may_have_more_axes_than_weights(path):
    latent = jax.random.normal(jax.random.key(0), (3, 5, 2))
    export.save(path, {"kernel": latent}, deploy=estimators.softmax_deploy)
    expected = estimators.softmax_deploy(latent)
    assert expected.shape == (3, 5)
    np.testing.assert_array_equal(export.load(path).params["kernel"], expected)


def test_a_number_alone_is_an_array_too(path):
    export.save(path, {"kernel": jnp.float32(-3.0)}, deploy=lambda t: t)
    (kernel,) = export.load(path).params.values()
    assert isinstance(kernel, np.ndarray)
    assert kernel == -3.0


def test_a_channel_of_zeros_has_the_scale_zero(path):
    latent = jnp.array([[0.0, -2.0], [0.0, 1.0]])
    export.save(path, {"kernel": latent}, deploy=estimators.scaled_sign)
    expected = np.float32([[0, -1.5], [0, 1.5]])
    np.testing.assert_array_equal(export.load(path).params["kernel"], expected)


@pytest.mark.parametrize(
    ("deploy", "message"),
    [
        (lambda t: t, "6 magnitudes in a tensor"),
        (lambda t: t * jnp.nan, "magnitudes"),
        (lambda t: t.astype(int), "floating point"),
    ],
)
def test_weights_of_another_kind_are_refused(path, deploy, message):
    latent = jnp.arange(1.0, 7.0).reshape(3, 2)
    with pytest.raises((TypeError, ValueError), match=message) as raised:
        export.save(path, {"kernel": latent}, deploy=deploy)
    assert raised.value.__notes__ == ["at the leaf 'params/kernel'"]
    with pytest.raises(ValueError, match="magnitudes"):
        export.save(path, {"kernel": latent[:, 0]}, deploy=lambda t: t)


def test_where_chooses_and_the_rest_stays_real(path):
    params, _ = network()
    where = adaste_jax.kernels(exclude="stem")
    export.save(path, params, where=where)
    assert_equal(export.load(path).params, adaste_jax.deploy(params, where=where))


def test_trees_of_other_kinds_come_back_in_their_structure(path):
    params = {"kernel": [np.ones((2, 3), np.float32), (np.float32(-2.0),)], "b": 3.5}
    export.save(path, params)
    like = jax.eval_shape(lambda: params)
    loaded = export.load(path, params_like=like).params
    assert loaded["kernel"][1] == (-1.0,)
    assert loaded["b"] == 3.5
    assert export.load(path).params["kernel"]["1"] == {"0": -1.0}


def test_the_state_of_an_nnx_model_comes_back(path):
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.layer = nnx.Linear(8, 3, rngs=rngs)
            self.norm = nnx.BatchNorm(3, rngs=rngs)

        def __call__(self, x):
            return self.norm(self.layer(x), use_running_average=True)

    model = Model(nnx.Rngs(0))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    export.save(path, params, model_state=rest)
    loaded = export.load(path, params_like=params, model_state_like=rest)
    x = jnp.ones((2, 8))
    expected = nnx.merge(graph, adaste_jax.deploy(params), rest)(x)
    outputs = nnx.merge(graph, loaded.params, loaded.model_state)(x)
    np.testing.assert_array_equal(outputs, expected)


def test_a_file_that_does_not_fit_is_refused(path):
    params, state = network()
    export.save(path, params, model_state=state)
    with pytest.raises(ValueError, match=r"differ in .*extra"):
        export.load(path, params_like=params | {"extra": jnp.ones(1)})
    with pytest.raises(ValueError, match="model_state_like"):
        export.load(path, model_state_like={})
    head = params | {"head": {"kernel": jnp.ones((16, 9)), "bias": jnp.ones(10)}}
    with pytest.raises(ValueError, match=r"\(16, 10\) in the file"):
        export.load(path, params_like=head)


def test_a_file_is_whole_or_absent(path, monkeypatch):
    """A full disk leaves the old file as it was, and nothing beside it."""
    params, _ = network()
    export.save(path, params)
    before = path.read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space"):
            export.save(path, network(1)[0])
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
    export.save(path, network(1)[0])
    assert path.read_bytes() != before
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_same_network_gives_the_same_file(path):
    export.save(path, *network()[:1])
    before = path.read_bytes()
    export.save(path, *network()[:1])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"a/../b": {"kernel": ONES}}, "'..' between slashes"),
        ({"..": {"kernel": ONES}}, "no name of a tensor"),
        ({"": {"kernel": ONES}}, "no name of a tensor"),
        ({"kernel": collections.OrderedDict({1: ONES, "1": ONES})}, "have one name"),
        ({"bias": ONES}, "no leaf is called `kernel`"),
    ],
)
def test_names_that_would_be_lost_are_refused(path, params, message):
    with pytest.raises(ValueError, match=message):
        export.save(path, params)
    assert not path.exists()


def test_leaves_that_a_file_cannot_hold_are_refused(path):
    kernel = {"kernel": jnp.ones(2)}
    with pytest.raises(TypeError, match=r"params/key.*key_data"):
        export.save(path, kernel | {"key": jax.random.key(0)})
    with pytest.raises(TypeError, match="floating point"):
        export.save(path, {"kernel": jnp.ones(2, int)})
    with pytest.raises(ValueError, match="Out of range"):
        export.save(path, kernel, metadata={"loss": math.nan})
    with pytest.raises(TypeError, match="not JSON serializable"):
        export.save(path, kernel, metadata={"array": jnp.ones(2)})
    with pytest.raises(ValueError, match="header takes"):
        export.save(path, kernel, metadata={"long": "x" * 2**22})


def test_the_file_made_by_hand_is_read(path):
    path.write_bytes(hostile.assemble(*hostile.parts()))
    loaded = export.load(path)
    np.testing.assert_array_equal(
        loaded.params["kernel"],
        [[1, -1, -1, -1, 1], [1, -1, -1, 1, 1], [1, -1, -1, -1, -1]],
    )
    np.testing.assert_array_equal(loaded.params["bias"], np.float32([0.5, -1.5]))


def _outer(**changes):
    """The file made by hand with changes in what safetensors says."""
    outer, inner = hostile.parts()
    outer["params/kernel"] |= changes
    return hostile.assemble(outer, inner)


def _inner(**changes):
    """The same with changes in what this format says."""
    outer, inner = hostile.parts()
    inner["tensors"]["params/kernel"] |= changes
    return hostile.assemble(outer, inner)


def _header(**changes):
    outer, inner = hostile.parts()
    return hostile.assemble(outer, inner | changes)


def _renamed(name, **header):
    outer, inner = hostile.parts()
    inner |= header
    for names in (outer, inner["tensors"]):
        names[name] = names.pop("params/kernel")
    return hostile.assemble(outer, inner)


def _repeated():
    whole = hostile.assemble(*hostile.parts())
    (length,) = struct.unpack("<Q", whole[:8])
    header = whole[8 : 8 + length].decode()
    entry = json.dumps(hostile.parts()[0]["params/bias"])
    header = header[:-1] + f', "params/bias": {entry}}}'
    return hostile.container(header.encode(), hostile.DATA)


def _shapes(shape):
    """Both headers claim a shape; the offsets stay."""
    outer, inner = hostile.parts()
    outer["params/kernel"]["shape"] = [-(-math.prod(shape) // 8)]
    inner["tensors"]["params/kernel"] |= {
        "shape": shape,
        "axes": list(range(len(shape))),
    }
    return hostile.assemble(outer, inner)


def _scaled(name="scales/params/kernel", shape=(5,), dtype="float32"):
    """The file made by hand with a scale of its kernel."""
    outer, inner = hostile.parts()
    kind, code = {"float32": ("F32", "f"), "float64": ("F64", "d")}[dtype]
    numbers = [0.5] * math.prod(shape)
    data = struct.pack(f"<{len(numbers)}{code}", *numbers)
    inner["tensors"][name] = hostile.description(
        data, encoding="real", dtype=dtype, shape=list(shape)
    )
    outer[name] = {
        "dtype": kind,
        "shape": list(shape),
        "data_offsets": [10, 10 + len(data)],
    }
    return hostile.assemble(outer, inner, hostile.DATA + data)


def _trits(byte):
    """The kernel is five ternary weights in one byte, behind which one byte is free."""
    outer, inner = hostile.parts()
    data = bytes([byte]) + hostile.DATA[2:]
    outer["params/kernel"] |= {"shape": [1], "data_offsets": [0, 1]}
    outer["params/bias"]["data_offsets"] = [1, 9]
    sha256 = hashlib.sha256(data[:1]).hexdigest()
    inner["tensors"]["params/kernel"] |= {
        "encoding": "trits",
        "shape": [5],
        "axes": [0],
        "sha256": sha256,
    }
    return hostile.assemble(outer, inner, data)


def test_scales_and_trits_made_by_hand_are_read(path):
    path.write_bytes(_scaled())
    np.testing.assert_array_equal(
        export.load(path).params["kernel"][0], np.float32([0.5, -0.5, -0.5, -0.5, 0.5])
    )
    path.write_bytes(_trits(2 + 9 + 2 * 27))
    np.testing.assert_array_equal(
        export.load(path).params["kernel"], np.float32([1, -1, 0, 1, -1])
    )


WHOLE = hostile.assemble(*hostile.parts())
BROKEN = {
    "empty": b"",
    "seven bytes": WHOLE[:7],
    "no header": WHOLE[:8],
    "half a header": WHOLE[:100],
    "half the data": WHOLE[:-1],
    "a byte too many": WHOLE + b"\0",
    "another kind": b"PK\x03\x04" + bytes(60),
    "a pickle": b"\x80\x04\x95" + bytes(60),
    "header of 2^63 bytes": hostile.container(b"{}", length=2**63),
    "header of 5 MiB": hostile.container(b" " * 5 * 2**20 + b"{}"),
    "not UTF-8": hostile.container(b'{"\xff\xfe": 1}'),
    "not JSON": hostile.container(b"{'a': 1}"),
    "a list": hostile.container(b"[1, 2]"),
    "nested deeply": hostile.container(b'{"a":' * 200_000 + b"1" + b"}" * 200_000),
    "nested metadata": hostile.assemble(
        hostile.parts()[0], '{"metadata":' + "[" * 100_000 + "]" * 100_000 + "}"
    ),
    "a number of 10^6 digits": hostile.container(b'{"a": ' + b"9" * 10**6 + b"}"),
    "NaN": hostile.container(b'{"a": NaN}'),
    "a plain safetensors file": safetensors.numpy.save({"a": np.ones(2)}),
    "half a surrogate pair": hostile.assemble(hostile.parts()[0], '"\ud800"'),
    "checksum of the header": WHOLE.replace(b"float32", b"float64", 1),
    "checksum of the data": WHOLE[:-1] + bytes([WHOLE[-1] ^ 1]),
    "checksum of no text": _inner(sha256=7),
    "version 3 without its checksum": _header(format=3),
    "version 4": _header(format=4),
    "version 2.0": _header(format=2.0),
    "version 0": _header(format=0),
    "an escape of nothing": _renamed("params/a~2kernel", format=2),
    "half an escape": _renamed("params/kernel~", format=2),
    "a key above the folder": _renamed("params/a~1..~1..~1etc", format=2),
    "a key that is a dot": _renamed("params/.~1kernel", format=2),
    "an escape of two dots": _renamed("params/../kernel", format=2),
    "an escaped root": _renamed("params~1kernel", format=2),
    "version true": _header(format=True),
    "version of text": _header(format="1" * 5000),
    "no metadata": _header(metadata=None),
    "tensors that differ": _header(tensors={}),
    "tensors of no kind": _header(tensors={"params/kernel": 1, "params/bias": 2}),
    "a field too many": _inner(code="import os"),
    "another encoding": _inner(encoding="pickle"),
    "an encoding of no kind": _inner(encoding=["bits"]),
    "bits of integers": _inner(dtype="int8"),
    "a dtype of no kind": _inner(dtype=["float32"]),
    "axes that are not there": _inner(axes=[1, 2]),
    "axes out of order": _inner(axes=[1, 0]),
    "no checksum": WHOLE.replace(b'adaste_jax": "', b'adaste_jax": 7, "x": "', 1),
    "no axes": _inner(axes=[]),
    "negative axes": _inner(axes=[-2, -1]),
    "shape without bytes": _shapes([2**40, 2**20]),
    "shape that overflows": _shapes([2**32, 2**32]),
    "shape of nothing and much": _shapes([0, 2**61, 2**61]),
    "shape of a thousand axes": _shapes([1] * 1000),
    "shape of fractions": _inner(shape=[3.0, 5.0]),
    "shape below zero": _inner(shape=[-3, -5]),
    "shape of truths": _inner(shape=[True, 15]),
    "shape of text": _inner(shape="35"),
    "stored as floats": _outer(dtype="F32"),
    "stored shape": _outer(shape=[1, 2]),
    "offsets that overlap": _outer(data_offsets=[0, 4]),
    "offsets with a gap": _outer(data_offsets=[1, 3]),
    "offsets out of range": _outer(data_offsets=[2**40, 2**40 + 2]),
    "offsets backwards": _outer(data_offsets=[2, 0]),
    "three offsets": _outer(data_offsets=[0, 1, 2]),
    "no offsets": _outer(data_offsets=None),
    "a name twice": _repeated(),
    "name above the folder": _renamed("params/../../etc/passwd"),
    "absolute name": _renamed("/params/kernel"),
    "name with backslash": _renamed("params\\kernel"),
    "name with a line break": _renamed("params/ker\nnel"),
    "name with a null": _renamed("params/\0"),
    "empty name": _renamed(""),
    "long name": _renamed("params/" + "x" * 2000),
    "deep name": _renamed("params/" + "/".join("x" * 500)),
    "name below a tensor": _renamed("params/bias/kernel"),
    "a scale of nothing": _scaled("scales/params/other"),
    "a scale of a real tensor": _scaled("scales/params/bias", shape=(2,)),
    "a scale that does not fit": _scaled(shape=(3,)),
    "a scale of rows": _scaled(shape=(3, 1)),
    "a scale of another dtype": _scaled(dtype="float64"),
    "a byte above 242": _trits(243),
    "name of no part of a network": _renamed("optimizer/kernel"),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_broken_and_hostile_files_are_refused(path, data):
    path.write_bytes(data)
    with pytest.raises(export.FormatError) as raised:
        export.load(path)
    assert 10 < len(str(raised.value)) < 500
    assert raised.value.__notes__ == [f"in the file {str(path)!r}"]


def test_a_file_that_is_not_there_is_no_format_error(path):
    with pytest.raises(FileNotFoundError):
        export.load(path)


def test_writing_without_safetensors_names_the_extra(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"adaste_jax\[export\]"):
        export.save(path, network()[0])


def test_a_compact_file_holds_the_same_with_a_short_header(tmp_path):
    """Also groups, ternary weights, and keys with slashes."""
    rng = np.random.default_rng(0)
    params = {
        "a/b": {"kernel": jnp.asarray(rng.normal(size=(64, 6)), jnp.float32)},
        "odd": {"kernel": jnp.asarray(rng.normal(size=(3, 3)), jnp.float32)},
        "real": {"bias": jnp.arange(3, dtype=jnp.bfloat16)},
    }
    sizes = []
    for deploy in (
        None,
        estimators.ternary_absmean,
        estimators.per_group(estimators.scaled_sign, 8),
    ):
        part = {k: v for k, v in params.items() if k != "odd" or deploy is None}
        found = []
        for compact in (False, True):
            path = tmp_path / f"{compact}.safetensors"
            export.save(path, part, deploy=deploy, compact=compact)
            found.append(export.load(path))
            sizes.append(path.stat().st_size)
        plain, short = found
        assert short.header["format"] == 3
        jax.tree.map(np.testing.assert_array_equal, short.params, plain.params)
        for name, tensor in plain.header["tensors"].items():
            del tensor["sha256"]
            assert short.header["tensors"][name] == tensor
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(export.FormatError, match="the data does not have its checksum"):
        export.load(path)
    assert all(b < a - 200 for a, b in zip(sizes[::2], sizes[1::2], strict=True))
