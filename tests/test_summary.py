"""The table of a network, against counts by hand."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import adaste_jax
from adaste_jax import estimators, methods
from adaste_jax.nn import linen
from experiments import models


def struct(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def of_linen(module, *inputs, **options):
    """The summary of a Linen module, from shapes alone."""
    params = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    forward = lambda params, *inputs: module.apply({"params": params}, *inputs)
    return adaste_jax.summary(forward, params, *inputs, **options)


def multiply_adds(table):
    """By path; rows without any are left out."""
    return {row.path: row.multiply_adds for row in table.rows if row.multiply_adds}


def test_mlp_by_hand():
    """64 -> 33 -> 10; the last kernel stays real, the latents pass an estimator."""
    where = adaste_jax.kernels(exclude="^last/")
    params = {
        "first": {"bias": struct(33), "kernel": struct(64, 33)},
        "last": {"bias": struct(10), "kernel": struct(33, 10, dtype=jnp.bfloat16)},
    }

    def forward(params, inputs):
        estimator = functools.partial(estimators.adaste, mu=0.1)
        weights = adaste_jax.binarize(params, estimator, where=where)
        first, last = weights["first"], weights["last"]
        hidden = jnp.maximum(inputs @ first["kernel"] + first["bias"][None], 0)
        return hidden @ last["kernel"].astype(jnp.float32) + last["bias"][None]

    table = adaste_jax.summary(forward, params, struct(7, 64), where=where)
    assert [
        (row.path, row.shape, row.one_bit, row.bytes, row.float32_bytes)
        for row in table.rows
    ] == [
        ("first/bias", (33,), False, 132, 132),
        ("first/kernel", (64, 33), True, 264, 8448),  # 2112 bits
        ("last/bias", (10,), False, 40, 40),
        ("last/kernel", (33, 10), False, 660, 1320),  # bfloat16
    ]
    assert multiply_adds(table) == {"first/kernel": 2112, "last/kernel": 330}
    assert (table.one_bit_parameters, table.real_parameters) == (2112, 373)
    assert (table.bytes, table.float32_bytes) == (1096, 9940)
    assert (table.one_bit_multiply_adds, table.real_multiply_adds) == (2112, 330)
    assert table.notes == ()


def test_bits_are_rounded_up_to_bytes_leaf_by_leaf():
    params = {"a": struct(9), "b": struct(1)}
    table = adaste_jax.summary(lambda params, x: x, params, struct(1), where="")
    assert [row.bytes for row in table.rows] == [2, 1]


class ConvNet(nn.Module):
    """Stride, "SAME" padding, groups and depth, with binary layers among them."""

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(8, (3, 3), use_bias=False, name="stem")(images)
        x = linen.BinaryConv(
            8,
            (3, 3),
            strides=2,
            feature_group_count=8,
            padding_value=1.0,
            use_scale=True,
            use_bias=False,
            dtype=jnp.bfloat16,
            estimator=estimators.ste_clipped,
            input_estimator=estimators.ste_clipped,
            name="depthwise",
        )(x)
        x = linen.BinaryConv(
            12,
            (1, 1),
            feature_group_count=4,
            use_bias=False,
            estimator=estimators.ste_clipped,
            name="grouped",
        )(x)
        x = nn.relu(x).mean((1, 2))
        return nn.Dense(5, name="head")(x)


def test_convolutions_by_hand():
    """Images of 9 x 7; after the stride of 2 they are 5 x 4."""
    where = ("depthwise/kernel", "grouped/kernel")
    table = of_linen(ConvNet(), struct(3, 9, 7, 2), where=where)
    assert multiply_adds(table) == {
        "stem/kernel": 9 * 7 * 8 * (3 * 3 * 2),
        "depthwise/kernel": 5 * 4 * 8 * (3 * 3),
        "grouped/kernel": 5 * 4 * 12 * 2,
        "head/kernel": 12 * 5,
    }
    assert table.one_bit_parameters == 3 * 3 * 8 + 2 * 12
    assert table.one_bit_multiply_adds == 5 * 4 * (8 * 9 + 12 * 2)
    assert table.notes == ()


def test_attention_has_products_between_activations():
    table = of_linen(nn.MultiHeadDotProductAttention(2), struct(3, 5, 8), where=False)
    assert multiply_adds(table) == {
        f"{name}/kernel": 5 * 8 * 8 for name in ("key", "out", "query", "value")
    }
    assert table.activation_multiply_adds == 2 * 5 * 5 * 8
    assert table.real_multiply_adds == 4 * 320 + 400
    assert table.one_bit_parameters == table.one_bit_multiply_adds == 0


def of_experiment(name, inputs, **options):
    """The summary of a network of the experiments."""
    network = models.create(name, 10, **options)
    variables = jax.eval_shape(
        functools.partial(network.init, train=False), jax.random.key(0), inputs
    )
    rest = {key: tree for key, tree in variables.items() if key != "params"}
    forward = lambda params, inputs: network.apply(
        {"params": params, **jax.tree.map(lambda s: jnp.zeros(s.shape), rest)},
        inputs,
        train=False,
    )
    return adaste_jax.summary(forward, variables["params"], inputs)


def test_resnet18_by_hand():
    """32 x 32 pixels; stages of 32, 16, 8 and 4 pixels a side, 64 to 512 channels."""
    table = of_experiment("resnet18", struct(2, 32, 32, 3))
    stem = 9 * 3 * 64
    first = 4 * 9 * 64 * 64
    # A stage: a convolution from half the channels, three more, and the shortcut.
    stages = [(9 + 3 * 18 + 1) * (c // 2) * c for c in (128, 256, 512)]
    assert table.one_bit_parameters == stem + first + sum(stages) + 5120
    pixels = [size**2 for size in (32, 16, 8, 4)]
    products = [stem + first, *stages]
    assert table.one_bit_multiply_adds == 5120 + sum(
        p * n for p, n in zip(pixels, products, strict=True)
    )
    assert (table.real_parameters, table.real_multiply_adds) == (0, 0)
    assert table.bytes == table.one_bit_parameters // 8
    assert table.notes == ()


def test_vision_transformer_by_hand():
    """28 x 20 pixels in patches of 4: 35 positions of 24 features, in 3 blocks."""
    table = of_experiment(
        "vit", struct(5, 28, 20, 2), patch=4, width=24, depth=3, heads=4
    )
    stem, block, head = 4 * 4 * 2 * 24, (4 + 2 * 4) * 24 * 24, 24 * 10
    assert table.one_bit_parameters == stem + 3 * block + head
    assert table.one_bit_multiply_adds == 35 * (stem + 3 * block) + head
    # Queries with keys, and the softmax with values, each over all heads.
    assert table.activation_multiply_adds == 3 * 2 * 35 * 35 * 24
    norms = 2 * 24 + 3 * (4 * 2 * 24 + 2 * 6) + 2 * 24 + 2 * 10
    assert table.real_parameters == 35 * 24 + norms
    assert table.real_multiply_adds == table.activation_multiply_adds
    assert table.notes == ()


class Block(nn.Module):
    """A residual block, to be scanned."""

    @nn.compact
    def __call__(self, hidden, _):
        kernel = functools.partial(linen.BinaryDense, estimator=estimators.ste)
        return hidden + kernel(6)(nn.relu(kernel(10)(hidden))), None


@pytest.mark.parametrize("remat", [False, True])
def test_scanned_layers_count_once_for_each_turn(remat):
    """The kernels are stacked; a slice of one is used in each turn."""
    stack = nn.scan(
        nn.remat(Block) if remat else Block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=4,
    )
    table = of_linen(stack(), struct(2, 6), None)
    assert multiply_adds(table) == {
        "BinaryDense_0/kernel": 4 * 60,
        "BinaryDense_1/kernel": 4 * 60,
    }
    assert table.one_bit_parameters == 2 * 4 * 60


def test_shared_kernel_has_its_parameters_once_and_its_products_twice():
    params = {"kernel": struct(6, 6)}
    forward = lambda params, x: jnp.tanh(x @ params["kernel"]) @ params["kernel"].T
    table = adaste_jax.summary(forward, params, struct(5, 6))
    assert (table.one_bit_parameters, table.one_bit_multiply_adds) == (36, 72)


def test_state_of_an_nnx_module():
    graphdef, params = nnx.split(nnx.Linear(4, 3, rngs=nnx.Rngs(0)), nnx.Param)
    forward = lambda params, x: nnx.merge(graphdef, params)(x)
    table = adaste_jax.summary(forward, params, np.ones((2, 4), np.float32))
    assert multiply_adds(table) == {"kernel/value": 12}


KERNEL, INPUTS = {"kernel": struct(4, 4)}, struct(2, 4)


def test_while_is_counted_once_and_says_so():
    def forward(params, x):
        return jax.lax.while_loop(
            lambda x: jnp.sum(x) < 10, lambda x: x @ params["kernel"] + 1, x
        )

    table = adaste_jax.summary(forward, KERNEL, INPUTS)
    assert multiply_adds(table) == {"kernel": 16}
    assert table.notes == ("The products within `while` loops are counted once.",)
    assert str(table).endswith(table.notes[0])


def test_cond_counts_its_largest_branch():
    def forward(params, x):
        return jax.lax.cond(
            jnp.sum(x) > 0,
            lambda x: x @ params["kernel"],
            lambda x: x @ params["kernel"] @ params["kernel"],
            x,
        )

    table = adaste_jax.summary(forward, KERNEL, INPUTS)
    assert multiply_adds(table) == {"kernel": 32}


def test_carry_of_a_loop_becomes_an_activation():
    """Its first value is a parameter; from the second turn on it is not."""
    params = {"start": struct(1, 4), "kernel": struct(4, 4)}

    def forward(params, x):
        def turn(hidden, _):
            return jnp.tanh(hidden @ params["kernel"]) + x, None

        start = jnp.broadcast_to(params["start"], x.shape)
        return jax.lax.scan(turn, start, length=3)[0]

    table = adaste_jax.summary(forward, params, INPUTS, where="start")
    assert multiply_adds(table) == {"kernel": 48}


def test_where_parameters_meet_the_one_bit_one_is_charged_then_the_largest():
    params = {"a": struct(4, 2), "b": struct(2, 4), "scale": struct(1, 2)}
    forward = lambda params, x: x @ (params["a"] * params["scale"]) @ params["b"]
    table = adaste_jax.summary(forward, params, INPUTS, where=False)
    assert multiply_adds(table) == {"a": 8, "b": 8}
    merged = lambda params, x: x @ (params["b"].T * params["scale"])
    table = adaste_jax.summary(merged, params, INPUTS, where="scale")
    assert multiply_adds(table) == {"scale": 8}


def test_a_selected_embedding_is_an_activation():
    """Else the embedding, the larger of the two, would be charged for the kernel."""
    params = {"embedding": struct(100, 4), "kernel": struct(4, 4)}
    forward = lambda params, tokens: params["embedding"][tokens] @ params["kernel"]
    table = adaste_jax.summary(forward, params, struct(2, 7, dtype=jnp.int32))
    assert multiply_adds(table) == {"kernel": 7 * 16}


def test_arrays_of_the_closure_are_constants():
    fixed = np.ones((4, 4), np.float32)
    forward = lambda params, x: x @ fixed @ params["kernel"]
    table = adaste_jax.summary(forward, KERNEL, INPUTS)
    assert multiply_adds(table) == {"kernel": 16}
    assert table.activation_multiply_adds == 16


def test_products_out_of_reach_are_noted():
    """Inside `shard_map` shapes are those of one device."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("data")
    forward = jax.shard_map(
        lambda params, x: x @ params["kernel"],
        mesh=mesh,
        in_specs=(jax.sharding.PartitionSpec(), spec),
        out_specs=spec,
    )
    table = adaste_jax.summary(forward, KERNEL, INPUTS)
    assert multiply_adds(table) == {}
    assert table.notes == ("The products within `shard_map` are not counted.",)


@pytest.mark.parametrize(
    "inputs", [(), (struct(),), (struct(2, 4), struct(3, 4)), (struct(0, 4),)]
)
def test_inputs_need_one_leading_axis(inputs):
    with pytest.raises(ValueError, match="one leading axis, that of the batch"):
        adaste_jax.summary(lambda params, *x: x, KERNEL, *inputs)


def test_where_that_selects_nothing_is_an_error_but_false_is_not():
    forward = lambda params, x: x @ params["kernel"]
    with pytest.raises(ValueError, match="matches nothing"):
        adaste_jax.summary(forward, KERNEL, INPUTS, where="missing")
    table = adaste_jax.summary(forward, KERNEL, INPUTS, where=False)
    assert (table.bytes, table.real_multiply_adds) == (64, 16)


TABLE = """
parameter      shape      bits  parameters  bytes  float32 bytes  multiply-adds
-------------------------------------------------------------------------------
bias           10           32          10     40             40              0
kernel         1000 x 10     1      10,000  1,250         40,000         20,000
(activations)                                                                20
-------------------------------------------------------------------------------
one bit                             10,000  1,250         40,000         20,000
real                                    10     40             40             20
total                               10,010  1,290         40,040         20,020
"""


def test_table_and_dictionary():
    params = {"bias": struct(10), "kernel": struct(1000, 10)}
    forward = lambda params, x: (x @ params["kernel"]) @ (x @ params["kernel"]).T
    table = adaste_jax.summary(forward, params, struct(2, 1000))
    assert str(table) == TABLE.strip()
    read = json.loads(json.dumps(table.as_dict()))
    assert read["one_bit_parameters"] == 10_000
    assert read["rows"][1]["path"] == "kernel"
    assert read["rows"][1]["multiply_adds"] == 20_000


def test_leaves_without_entries_cost_nothing_and_paths_are_told_apart():
    params = {
        "x/y": {"kernel": struct(0, 4)},
        "x": {"y": {"kernel": struct(5, 4)}},
    }

    def forward(params, x):
        none = x[:, :0] @ params["x/y"]["kernel"]
        return none + x @ params["x"]["y"]["kernel"]

    table = adaste_jax.summary(forward, params, struct(3, 5))
    rows = {row.path: row for row in table.rows}
    assert set(rows) == {"x/y/kernel", "x~1y/kernel"}
    empty = rows["x~1y/kernel"]
    assert (empty.parameters, empty.bytes, empty.multiply_adds) == (0, 0, 0)
    assert table.one_bit_multiply_adds == 20
    assert "x~1y/kernel" in str(table)


@pytest.mark.parametrize(
    ("method", "scale_dtype", "size", "bits"),
    [
        (methods.ste(9), None, 320, "1"),
        (methods.scaled_sign(9), None, 320 + 40, "1.125"),
        (methods.scaled_sign(9, group=128), None, 320 + 80, "1.25"),
        (methods.scaled_sign(9, group=128), jnp.float16, 320 + 40, "1.125"),
        (methods.ternary_fixed(9), None, 512, "1.6"),
        (methods.ternary_tanh(9), None, 512, "1.6"),
        (methods.ternary_twn(9, scale=False), None, 512, "1.6"),
        (methods.ternary_twn(9), None, 512 + 4, "1.6125"),
        (methods.ternary_absmean(9), jnp.float16, 512 + 2, "1.60625"),
        (methods.ternary_absmean(9, group=64), jnp.float16, 512 + 80, "1.85"),
        (methods.irnet(9), None, 320 + 40, "1.125"),
        (methods.full_precision(9), jnp.float16, 4 * 2560, "32"),
    ],
)
def test_scales_and_trits_are_counted(method, scale_dtype, size, bits):
    """Of a kernel [256, 10], in bytes, and in the table as bits a weight."""
    table = adaste_jax.summary(
        lambda params, x: x @ params["kernel"],
        {"kernel": struct(256, 10)},
        struct(1, 256),
        method=method,
        scale_dtype=scale_dtype,
    )
    assert table.bytes == size
    (row,) = table.rows
    assert row.bits == pytest.approx(float(bits), rel=1e-12)
    assert bits in str(table).splitlines()[2].split()
