"""The networks: their parameters, their shapes, and what batch norm does in them."""

import functools
import itertools
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import adaste_jax
from experiments import errors, export, models, predict
from experiments.configs import base
from experiments.models import layers
from experiments.training import loop
from experiments.training.run import Run
from tests.experiments import test_loop

# The networks with batch norm: small enough to compile in seconds; all odd, so that no
# two sizes are confused.
SMALL = {
    "mlp": {"features": (7, 5)},
    "vgg_small": {"width": 3, "dense": 7},
    "vgg16": {"width": 3, "convolutions": (2, 1)},
    "resnet18": {"width": 3},
    "vit": {"patch": 8, "width": 6, "depth": 2, "heads": 3},
    "language_model": {"width": 6, "depth": 2, "heads": 3},
}
# What `binary_exclude` needs for a real first layer; the last is "^head/" in all.
FIRST = {
    "mlp": "^Dense_0/",
    "vgg_small": "^Conv_0/",
    "vgg16": "^Conv_0/",
    "resnet18": "^stem/",
}
NORMALISED = ("mlp", "resnet18", "vgg16", "vgg_small")  # by batch norm
TRANSFORMERS = ("language_model", "vit")
IMAGE = (16, 16, 3)
IMAGES = np.random.default_rng(1).standard_normal((6, *IMAGE), np.float32)
NUM_CLASSES = 11


class Outcome(NamedTuple):
    """What one compiled function says of a network, so that tests share it."""

    logits: jax.Array  # in training
    evaluated: jax.Array  # logits with the statistics as they were
    updated: dict  # statistics after the training pass
    captured: dict  # outputs of the submodules of the training pass


@functools.cache
def small(name, **options):
    """Variables of a small network and a function from images to its `Outcome`."""
    network = models.create(name, NUM_CLASSES, **SMALL[name], **options)
    shapes = jax.eval_shape(
        functools.partial(network.init, train=False), jax.random.key(0), IMAGES
    )
    rng = np.random.default_rng(0)
    variables = {
        # Variances are positive, kernels are not.
        collection: jax.tree.map(
            lambda leaf: jnp.asarray(rng.random(leaf.shape) + low, leaf.dtype),  # noqa: B023
            shapes[collection],
        )
        for collection, low in (("params", -0.4), ("batch_stats", 0.5))
    }

    @jax.jit
    def outcome(images):
        logits, state = network.apply(
            variables,
            images,
            train=True,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=True,
        )
        evaluated = network.apply(variables, images, train=False)
        return Outcome(logits, evaluated, state["batch_stats"], state["intermediates"])

    return variables, outcome


@functools.cache
def small_outcome(name, **options):
    return small(name, **options)[1](IMAGES)


def shapes_of(network, image):
    """Shapes of parameters and of statistics by path; nothing is computed."""
    init = functools.partial(network.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, *image)))
    return (
        flax.traverse_util.flatten_dict(variables[collection], sep="/")
        for collection in ("params", "batch_stats")
    )


def parameters(network, image):
    return next(shapes_of(network, image))


@pytest.mark.parametrize(
    ("name", "image", "count"),
    [
        # 784 512 + 512 512 + 512 10
        ("mlp", (28, 28, 1), 668_672),
        # 9 (3 128 + 128^2 + 128 256 + 256^2 + 256 512 + 512^2)
        #   + 512 4^2 1024 + 1024^2 + 1024 10
        ("vgg_small", (32, 32, 3), 14_022_016),
        # The usual 11,173,962 less 9,600 of batch norm and 10 biases of the head.
        ("resnet18", (32, 32, 3), 11_164_352),
        # 9 (3 64 + 64^2 + 64 128 + 128^2 + 128 256 + 2 256^2 + 256 512 + 5 512^2)
        #   + 512 10
        ("vgg16", (32, 32, 3), 14_715_584),
    ],
)
def test_default_networks_have_the_parameters_of_their_papers(name, image, count):
    shapes = parameters(models.create(name, 10), image).values()
    assert sum(np.prod(leaf.shape) for leaf in shapes) == count


@pytest.mark.parametrize(
    ("name", "options", "image", "classes", "biases", "published"),
    [
        ("resnet18", {}, (32, 32, 3), 10, 0, 11_173_962),
        ("resnet18", {"stem": "7x7_pool"}, (224, 224, 3), 1000, 0, 11_689_512),
        ("resnet18", {"stem": "7x7_pool", "blocks": (3, 4, 6, 3)}, (224, 224, 3), 1000,
         0, 21_797_672),
        ("vgg16", {}, (32, 32, 3), 10, 4_224, 14_728_266),
    ],
)  # fmt: skip
def test_with_biases_and_affine_norms_they_have_the_published_number_of_parameters(
    name, options, image, classes, biases, published
):
    """Of torchvision, and of the usual networks for CIFAR-10.

    They have a scale and a shift for every mean, a bias of the head, and VGG-16 one for
    each of its 2 (64 + 128) + 3 (256 + 512 + 512) channels.
    """
    kernels, statistics = shapes_of(models.create(name, classes, **options), image)
    means = [
        leaf.size
        for path, leaf in statistics.items()
        if path.endswith("/mean") and not path.startswith("head_norm/")
    ]
    count = sum(leaf.size for leaf in kernels.values())
    assert count + 2 * sum(means) + classes + biases == published


def test_vgg16_has_the_layers_of_its_paper():
    shapes = parameters(models.create("vgg16", 10), (32, 32, 3))
    widths = [3, 64, 64, 128, 128, *[256] * 3, *[512] * 6]
    convolutions = [shapes[f"Conv_{i}/kernel"].shape for i in range(13)]
    assert convolutions == [(3, 3, *pair) for pair in itertools.pairwise(widths)]
    assert shapes["head/kernel"].shape == (512, 10)
    assert len(shapes) == 14


@pytest.mark.parametrize(
    ("stem", "side", "first", "last"),
    [
        ("3x3", 32, 32, 4),
        ("3x3_stride2", 64, 32, 4),
        ("7x7_pool", 160, 40, 5),
        ("7x7_pool", 224, 56, 7),
    ],
)
def test_stem_brings_an_image_to_the_size_of_the_first_stage(stem, side, first, last):
    network = models.create("resnet18", 10, width=2, stem=stem)

    def activations(images):
        variables = network.init(jax.random.key(0), images, train=False)
        _, state = network.apply(
            variables, images, train=False, capture_intermediates=True
        )
        return state["intermediates"]

    found = jax.eval_shape(activations, jnp.zeros((1, side, side, 3)))
    blocks = [found[f"Block_{i}"]["__call__"][0].shape[1:] for i in (0, 7)]
    assert blocks == [(first, first, 2), (last, last, 16)]


def test_unknown_stem_is_refused_with_the_stems_there_are():
    with pytest.raises(errors.RunError, match=r"'5x5'.*3x3, 3x3_stride2, 7x7_pool"):
        models.create("resnet18", 10, stem="5x5")


@pytest.mark.parametrize("name", FIRST)
def test_first_and_last_layer_can_stay_real(name):
    shapes = parameters(models.create(name, 10, **SMALL[name]), IMAGE)
    binary = adaste_jax.kernels(exclude=(FIRST[name], "^head/"))(shapes)
    real = sorted(
        (path for path, is_binary in binary.items() if not is_binary),
        key=lambda path: path.startswith("head"),
    )
    assert real == [f"{FIRST[name].strip('^/')}/kernel", "head/kernel"]
    channels = np.prod(IMAGE) if name == "mlp" else IMAGE[-1]
    assert shapes[real[0]].shape[-2] == channels


@pytest.mark.parametrize("name", NORMALISED)
def test_every_parameter_is_a_kernel(name):
    network = models.create(name, NUM_CLASSES, **SMALL[name])
    shapes = parameters(network, IMAGE)
    assert all(path.endswith("/kernel") for path in shapes)
    assert shapes["head/kernel"].shape[-1] == NUM_CLASSES
    assert all(jax.tree.leaves(adaste_jax.kernels()(shapes)))


@pytest.mark.parametrize("name", NORMALISED)
def test_normalised_logits_have_mean_zero_and_variance_one_over_the_batch(name):
    logits = small_outcome(name).logits
    assert logits.shape == (len(IMAGES), NUM_CLASSES)
    np.testing.assert_allclose(logits.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(logits.std(axis=0), 1, atol=1e-2)


def test_logit_norm_can_be_left_out():
    outcome = small_outcome("mlp", use_logit_norm=False)
    (head,) = outcome.captured["head"]["__call__"]
    np.testing.assert_array_equal(outcome.logits, head)


@pytest.mark.parametrize(
    ("name", "keep"), [*((name, 0.9) for name in NORMALISED), ("mlp", 0.8)]
)
def test_training_moves_the_statistics_by_the_share_it_does_not_keep(name, keep):
    options = {} if keep == 0.9 else {"norm_momentum": keep}
    before = small(name, **options)[0]["batch_stats"]["head_norm"]["mean"]
    outcome = small_outcome(name, **options)
    (head,) = outcome.captured["head"]["__call__"]
    np.testing.assert_allclose(
        outcome.updated["head_norm"]["mean"],
        keep * before + (1 - keep) * head.mean(axis=0),
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize("name", NORMALISED)
def test_in_evaluation_the_rest_of_the_batch_has_no_influence(name):
    _, outcome = small(name)
    others = jnp.concatenate([IMAGES[:1], -2 * IMAGES[1:]])
    first, second = small_outcome(name), outcome(others)
    np.testing.assert_allclose(first.evaluated[0], second.evaluated[0], rtol=1e-4)
    assert np.isfinite(first.evaluated).all()
    assert not np.allclose(first.logits[0], second.logits[0], rtol=1e-2)


@pytest.mark.parametrize("name", ["mlp", "vgg_small", "vgg16"])
def test_bfloat16_activations_keep_float32_parameters_statistics_and_logits(name):
    variables, _ = small(name, dtype="bfloat16")
    outcome = small_outcome(name, dtype="bfloat16")
    for leaf in jax.tree.leaves((variables, outcome.updated, outcome.logits)):
        assert leaf.dtype == jnp.float32
    first = FIRST[name].strip("^/")
    hidden = outcome.captured[first]["__call__"][0]
    assert hidden.dtype == jnp.bfloat16
    exact = small_outcome(name).logits
    assert np.corrcoef(np.ravel(outcome.logits), np.ravel(exact))[0, 1] > 0.9


@pytest.mark.parametrize("shape", [(2, 6, 4, 3), (2, 7, 5, 3)])
def test_max_pool_is_the_maximum_of_each_block(shape):
    x = jax.random.normal(jax.random.key(2), shape)
    np.testing.assert_array_equal(
        layers.max_pool_2x2(x), nn.max_pool(x, (2, 2), strides=(2, 2))
    )


def test_max_pool_sends_the_gradient_to_the_largest_entry():
    x = jnp.array([[1.0, 4.0], [3.0, 2.0]]).reshape(1, 2, 2, 1)
    grad = jax.grad(lambda x: layers.max_pool_2x2(x).sum())(x)
    assert grad[0, :, :, 0].tolist() == [[0.0, 1.0], [0.0, 0.0]]


def test_max_pool_refuses_an_image_without_a_whole_block():
    with pytest.raises(ValueError, match="1 x 4 pixels"):
        layers.max_pool_2x2(jnp.zeros((1, 1, 4, 1)))


def test_strided_convolution_is_centred_as_in_the_usual_definition():
    """Output (i, j) looks at the 3 x 3 pixels around input (2i, 2j)."""

    class Strided(layers.Network):
        dtype: str | None = None

        @nn.nowrap
        def wire(self, make, x):
            return make.conv(1, 3, stride=2)(x)

    x = jax.random.normal(jax.random.key(3), (1, 4, 4, 1))
    ones = {"params": {"Conv_0": {"kernel": jnp.ones((3, 3, 1, 1))}}}
    output = Strided().apply(ones, x, train=False)[0, :, :, 0]
    padded = np.pad(np.asarray(x)[0, :, :, 0], 1)
    expected = [[padded[i : i + 3, j : j + 3].sum() for j in (0, 2)] for i in (0, 2)]
    np.testing.assert_allclose(output, expected, rtol=1e-5)


def test_resnet_halves_the_image_three_times():
    captured = small_outcome("resnet18").captured
    blocks = [captured[f"Block_{i}"]["__call__"][0].shape[1:] for i in range(8)]
    sizes = [(16, 16, 3)] * 2 + [(8, 8, 6)] * 2 + [(4, 4, 12)] * 2 + [(2, 2, 24)] * 2
    assert blocks == sizes


TOKENS = np.random.default_rng(2).integers(0, NUM_CLASSES, (2, 5), np.uint8)


@functools.cache
def transformer(name):
    """Parameters with binary kernels, and the compiled logits of a transformer."""
    network = models.create(name, NUM_CLASSES, **SMALL[name])
    inputs = TOKENS if name == "language_model" else IMAGES[:2]
    params = jax.jit(functools.partial(network.init, train=False))(
        jax.random.key(4), inputs
    )["params"]
    logits = jax.jit(
        lambda params, inputs: network.apply({"params": params}, inputs, train=False)
    )
    return adaste_jax.deploy(params), logits, inputs


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_kernels_of_transformers_are_binary_and_all_else_is_real(name):
    network = models.create(name, NUM_CLASSES, **SMALL[name])
    init = functools.partial(network.init, train=False)
    params = jax.eval_shape(init, jax.random.key(0), transformer(name)[2])["params"]
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    block = ("key", "out", "query", "value")
    binary = {f"Block_{i}/attention/{part}/kernel" for i in range(2) for part in block}
    binary |= {
        f"Block_{i}/{part}/kernel" for i in range(2) for part in ("expand", "contract")
    }
    binary |= {"head/kernel", "stem/kernel"} if name == "vit" else {"head/kernel"}
    chosen = flax.traverse_util.flatten_dict(adaste_jax.kernels()(params), sep="/")
    assert {path for path, one_bit in chosen.items() if one_bit} == binary
    real = {path.split("/")[-1] for path in set(flat) - binary}
    assert real == {"bias", "scale", "positions"} | (
        set() if name == "vit" else {"embedding"}
    )


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_size_of_the_kernels_of_transformers_has_no_influence(name):
    """Norms take it out, but for `expand`, after which there is a GELU."""
    params, logits, inputs = transformer(name)
    where = adaste_jax.kernels(exclude="expand")
    small = adaste_jax.binarize(params, lambda weight: weight / 4, where=where)
    found = logits(params, inputs)
    np.testing.assert_allclose(found, logits(small, inputs), atol=2e-2)
    assert found.std() > 0.5
    assert found.dtype == jnp.float32


def test_language_model_looks_back_only():
    """A changed byte changes the logits from its position on, and none before."""
    params, logits, tokens = transformer("language_model")
    before = logits(params, tokens)
    assert before.shape == (2, 5, NUM_CLASSES)
    for position in range(5):
        changed = tokens.copy()
        changed[:, position] = (changed[:, position] + 1) % NUM_CLASSES
        after = logits(params, changed)
        np.testing.assert_allclose(after[:, :position], before[:, :position], atol=1e-5)
        different = np.abs(after - before).max(axis=(0, 2)) > 1e-3
        assert different[position:].all()


def test_vision_transformer_knows_where_a_patch_is():
    params, logits, images = transformer("vit")
    assert logits(params, images).shape == (2, NUM_CLASSES)
    swapped = np.concatenate([images[:, 8:], images[:, :8]], axis=1)
    assert not np.allclose(logits(params, images), logits(params, swapped), atol=1e-3)
    blind = params | {"positions": jnp.zeros_like(params["positions"])}
    np.testing.assert_allclose(logits(blind, images), logits(blind, swapped), atol=1e-4)


def test_vision_transformer_refuses_an_image_that_patches_do_not_fill():
    network = models.create("vit", 10, patch=5)
    with pytest.raises(ValueError, match="16 x 16 pixels cannot be cut into patches"):
        network.init(jax.random.key(0), IMAGES, train=False)


# --- both APIs of Flax

# The others are made of the same layers. Heads have eight features: a norm of two
# would magnify rounding.
IN_BOTH = {
    "vgg_small": SMALL["vgg_small"],
    "resnet18": {"width": 3, "blocks": (1, 1), "stem": "7x7_pool"},
    "vit": {"patch": 8, "width": 16, "depth": 1, "heads": 2},
    "language_model": {"width": 16, "depth": 1, "heads": 2},
}


@pytest.mark.parametrize("name", IN_BOTH)
def test_linen_and_nnx_give_the_same_logits_and_statistics(name):
    inputs = TOKENS if name == "language_model" else IMAGES
    network = models.create(name, NUM_CLASSES, **IN_BOTH[name])
    shapes = jax.eval_shape(
        functools.partial(network.init, train=False), jax.random.key(0), inputs
    )
    rng = np.random.default_rng(0)

    def drawn(leaf):
        small = leaf.ndim < 2  # scales, shifts and statistics
        draw = (
            rng.uniform(0.5, 1.5, leaf.shape)
            if small
            else rng.normal(0, 0.2, leaf.shape)
        )
        return jnp.asarray(draw, leaf.dtype)

    variables = jax.tree.map(drawn, shapes)
    state = {name: part for name, part in variables.items() if name != "params"}

    @functools.partial(jax.jit, static_argnames="flax_api")
    def both_modes(params, *, flax_api):
        forward = models.functional(network, inputs, flax_api=flax_api)
        training, new = forward(params, state, inputs, train=True, key=None)
        evaluated, old = forward(params, state, inputs, train=False, key=None)
        return training, evaluated, new, old

    in_linen = both_modes(variables["params"], flax_api="linen")
    in_nnx = both_modes(variables["params"], flax_api="nnx")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
        in_linen,
        in_nnx,
    )
    changed = jax.tree.map(lambda a, b: not np.allclose(a, b), in_nnx[2], in_nnx[3])
    assert all(jax.tree.leaves(changed))  # batch norm took new statistics


@pytest.mark.parametrize("name", ["resnet18", "language_model"])
def test_an_nnx_network_is_one_of_nnx_with_the_paths_of_linen(name):
    inputs = TOKENS if name == "language_model" else IMAGES
    options = IN_BOTH[name]
    model = models.create_nnx(name, NUM_CLASSES, inputs, rngs=nnx.Rngs(0), **options)
    assert isinstance(model, nnx.Module)
    shapes = jax.eval_shape(
        functools.partial(models.create(name, NUM_CLASSES, **options).init, train=True),
        jax.random.key(0),
        inputs,
    )
    for kind, part in ((nnx.Param, "params"), (nnx.BatchStat, "batch_stats")):
        found = nnx.to_pure_dict(nnx.state(model, kind))
        expected = shapes.get(part, {})
        assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, expected)
    kernels = [x for x in jax.tree.leaves(nnx.state(model, nnx.Param)) if x.ndim > 1]
    assert all(float(jnp.std(leaf)) > 0 for leaf in kernels)
    if name == "resnet18":
        before = model.stem_norm.mean[...]
        assert not np.any(before)  # building it has not moved the statistics
        model(inputs)
        assert np.any(model.stem_norm.mean[...])


@pytest.mark.slow
def test_a_run_in_nnx_is_that_in_linen_and_ships_the_same_file(tmp_path):
    """From the same seed: figures alike to rounding, files of one form."""
    found = {}
    for flax_api in models.FLAX_APIS:
        config = base.get_config()
        config.update(model="resnet18", num_epochs=4, batch_size=64)
        config.model_options.update(width=4, blocks=(1, 1))
        config.flax_api = flax_api
        folder = tmp_path / flax_api
        with test_loop.undrawn():
            result = loop.train_and_evaluate(config.lock(), folder)
        file = tmp_path / f"{flax_api}.safetensors"
        export.export_run(folder, file, num_test=20)
        shipped = predict.evaluate(file)["accuracy"]
        assert shipped == pytest.approx(result["test_accuracy"], abs=1e-6)
        found[flax_api] = shipped, file.stat().st_size
    linen, in_nnx = found["linen"], found["nnx"]
    assert linen[0] > 0.25
    assert in_nnx[0] == pytest.approx(linen[0], abs=0.05)
    assert abs(in_nnx[1] - linen[1]) < 100  # digits of figures in the metadata

    config = base.get_config()
    config.update(model="resnet18", num_epochs=1, batch_size=64)
    config.model_options.update(width=4, blocks=(1, 1))
    config.init_from = str(tmp_path / "nnx")  # latents of NNX go on in Linen
    run = Run(config.lock())
    started = run.warm_started(run.init())
    accuracy = run.evaluate(started, "test")["accuracy"]
    assert accuracy == pytest.approx(in_nnx[0], abs=0.1)


def test_unknown_network_is_refused_with_the_names_there_are():
    with pytest.raises(errors.RunError, match=r"language.*mlp.*vgg16, vgg_small, vit"):
        models.create("resnet", 10)


@pytest.mark.parametrize("option", ["depth", "name", "parent"])
def test_unknown_option_is_refused_with_the_options_there_are(option):
    with pytest.raises(errors.RunError, match=rf"'{option}'.*width=128, dense=1024"):
        models.create("vgg_small", 10, **{option: 3})
