"""The same steps on one device, on many, and in microbatches, by every strategy."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import adaste_jax
from adaste_jax import estimators, methods, optim, train
from experiments import models
from experiments.models import sharding as shardings

BATCH, INPUTS, HIDDEN, CLASSES, STEPS = 32, 6, 8, 3, 5
THRESHOLD = 1e-3  # of `released`, on the gradient

MU = optax.exponential_decay(0.5, 1, 2.0)


def forward(params, model_state, inputs, *, train, key):
    """Two binary layers, the first of which is used twice."""
    del train, key
    kernel = params["tied"]["kernel"]
    hidden = jax.nn.relu(jnp.tanh(inputs @ kernel) @ kernel.T)
    logits = hidden @ params["last"]["kernel"] + params["last"]["bias"][None]
    return logits, model_state


@pytest.fixture(scope="module")
def params():
    keys = jax.random.split(jax.random.key(1))
    draw = lambda key, shape: jax.device_get(jax.random.normal(key, shape))
    return {
        "tied": {"kernel": draw(keys[0], (INPUTS, HIDDEN))},
        "last": {
            "kernel": draw(keys[1], (INPUTS, CLASSES)),
            "bias": np.linspace(-0.2, 0.3, CLASSES, dtype=np.float32),
        },
    }


@pytest.fixture(scope="module")
def batches():
    keys = jax.random.split(jax.random.key(2))
    images = 0.3 * jax.random.normal(keys[0], (STEPS, BATCH, INPUTS))
    labels = jax.random.randint(keys[1], (STEPS, BATCH), 0, CLASSES)
    images, labels = np.asarray(images), np.asarray(labels)
    return [{"image": images[i], "label": labels[i]} for i in range(STEPS)]


def hard_tanh(threshold=1.0):
    """The rule of `ste_clipped` as a transformation."""
    return optax.stateless(
        lambda grads, params: jax.tree.map(
            lambda g, t: jnp.where(jnp.abs(t) <= threshold, g, 0.0), grads, params
        )
    )


SGD = functools.partial(optax.sgd, 0.3, momentum=0.9)


def rule_first(rule):
    return optax.chain(optax.masked(rule, adaste_jax.kernels()), SGD())


def annealed(rule):
    return {
        "estimator": functools.partial(estimators.adaste_paper, rule=rule),
        "hyperparameters": {"mu": MU},
    }


def scaled(rule):
    return optim.scale_by_adaste(MU, rule=rule)


METHODS = {
    ("adaptive", "estimator"): (SGD(), annealed("adaptive")),
    ("adaptive", "transform"): (rule_first(scaled("adaptive")), annealed("identity")),
    ("released", "estimator"): (SGD(), annealed("released")),
    ("released", "transform"): (rule_first(scaled("released")), annealed("identity")),
    ("ste", "estimator"): (SGD(), {"estimator": estimators.ste_clipped}),
    ("ste", "transform"): (
        rule_first(hard_tanh()),
        {"estimator": estimators.ste},
    ),
}


def new_state(params, tx, model_state=None):
    # The step donates its state, so every run gets arrays of its own.
    params = jax.tree.map(jnp.array, params)
    key = jax.random.key(3)
    return train.TrainState.create(params, tx, key=key, model_state=model_state)


def run(step, state, batches):
    for batch in batches:
        state, report = step(state, batch)
    return jax.device_get((state.params, state.opt_state)), jax.device_get(report)


@pytest.fixture(scope="module")
def one_device(params, batches):
    """Latents and moments after five steps on one device, one big batch; by method."""
    mesh = train.data_mesh(jax.devices()[:1])

    @functools.cache
    def take(method):
        tx, options = METHODS[method]
        step = train.make_train_step(forward, tx, mesh=mesh, **options)
        return run(step, new_state(params, tx), batches)

    return take


@pytest.fixture(scope="module")
def at_the_threshold(params, batches):
    """How many gradients of the run with `released` lie on its absolute threshold."""

    @jax.jit
    def gradient(params, batch, mu):
        weights = adaste_jax.binarize(
            params, functools.partial(estimators.adaste_paper, mu=mu)
        )

        def loss(weights):
            logits, _ = forward(weights, {}, batch["image"], train=True, key=None)
            return optax.softmax_cross_entropy_with_integer_labels(
                logits, batch["label"]
            ).mean()

        return jax.grad(loss)(weights)

    tx, options = METHODS["released", "estimator"]
    step = train.make_train_step(
        forward, tx, mesh=train.data_mesh(jax.devices()[:1]), **options
    )
    state, count, beyond = new_state(params, tx), 0, set()
    for number, batch in enumerate(batches):
        grads = jax.device_get(gradient(state.params, batch, MU(number)))
        for name in ("tied", "last"):
            sizes = np.abs(grads[name]["kernel"])
            count += int((np.abs(sizes - THRESHOLD) <= 1e-6).sum())
            beyond |= set((sizes > THRESHOLD).ravel())
        state, _ = step(state, batch)
    assert beyond == {True, False}  # the run visits both sides
    return count


def differing(found, expected):
    """Entries that are not the same but for the rounding of float32."""
    close = jax.tree.map(
        lambda a, b: np.isclose(a, b, rtol=1e-5, atol=1e-6), found, expected
    )
    return sum(int((~leaf).sum()) for leaf in jax.tree.leaves(close))


def bits_equal(found, expected):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("microbatches", [1, 4])
@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow), 8])
@pytest.mark.parametrize("strategy", ["jit", "shard_map", "pmap"])
@pytest.mark.parametrize("method", METHODS, ids="-".join)
def test_every_way_takes_the_steps_of_one_device(
    method, strategy, count, microbatches, params, batches, one_device, at_the_threshold
):
    """The same bits on one device without microbatches, else the same to rounding.

    An entry of `released` may jump where its gradient lies on the threshold.
    """
    tx, options = METHODS[method]
    step = train.make_train_step(
        forward,
        tx,
        strategy=strategy,
        microbatches=microbatches,
        mesh=train.data_mesh(jax.devices()[:count]),
        **options,
    )
    found, report = run(step, new_state(params, tx), batches)
    expected, expected_report = one_device(method)
    if count == microbatches == 1:
        assert bits_equal(found, expected)
    jumps = 2 * at_the_threshold if method[0] == "released" else 0
    assert differing(found, expected) <= jumps  # a latent and its moment
    assert differing(report, expected_report) == 0


@pytest.mark.parametrize(
    ("method", "wrong"), [("adaptive", True), ("released", True), ("ste", False)]
)
def test_a_mean_after_the_rule_fails_that_check(
    method, wrong, params, batches, one_device
):
    """Each device applies the rule to its own gradient: what this page is against."""
    tx, options = METHODS[method, "estimator"]
    mesh = train.data_mesh(jax.devices()[:8])
    split = {"image": P("data"), "label": P("data")}

    @jax.jit
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(), split, P()),
        out_specs=P(),
        check_vma=False,
    )
    def gradient(params, batch, mu):
        estimator = options["estimator"]
        if "hyperparameters" in options:
            estimator = functools.partial(estimator, mu=mu)

        def loss(params):
            weights = adaste_jax.binarize(params, estimator)
            logits, _ = forward(weights, {}, batch["image"], train=True, key=None)
            return optax.softmax_cross_entropy_with_integer_labels(
                logits, batch["label"]
            ).mean()

        return jax.lax.pmean(jax.grad(loss)(params), "data")

    latents, opt_state = params, tx.init(params)
    for number, batch in enumerate(batches):
        grads = gradient(latents, batch, MU(number))
        updates, opt_state = tx.update(grads, opt_state, latents)
        latents = optax.apply_updates(latents, updates)
    expected, _ = one_device((method, "estimator"))
    jumps = differing(jax.device_get((latents, opt_state)), expected)
    assert (jumps > 20) == wrong
    assert wrong or jumps == 0


def normalised(axis_name):
    """A network with a batch norm written out, that may average over devices."""

    def forward(params, model_state, inputs, *, train, key):
        del train, key
        hidden = inputs @ params["tied"]["kernel"]
        mean, square = hidden.mean(axis=0), jnp.square(hidden).mean(axis=0)
        if axis_name is not None:
            mean, square = jax.lax.pmean((mean, square), axis_name)
        state = {"mean": 0.5 * model_state["mean"] + 0.5 * mean}
        deviation = jnp.sqrt(square - mean**2 + 1e-3)
        hidden = jax.nn.relu((hidden - mean[None]) / deviation[None])
        logits = hidden[:, :INPUTS] @ params["last"]["kernel"]
        return logits + params["last"]["bias"][None], state

    return forward


def take_normalised(params, batches, *, axis_name=None, count=8, **options):
    tx, estimator = METHODS["adaptive", "estimator"]
    step = train.make_train_step(
        normalised(axis_name),
        tx,
        mesh=train.data_mesh(jax.devices()[:count]),
        **estimator,
        **options,
    )
    state = new_state(params, tx, {"mean": jnp.zeros(HIDDEN)})
    for batch in batches[:3]:
        state, report = step(state, batch)
    return jax.device_get((state.params, state.model_state, report["loss"]))


@pytest.mark.parametrize(
    ("strategy", "axis_name"),
    [("jit", None), ("shard_map", "data"), ("pmap", "data")],
)
def test_batch_statistics_are_those_of_the_whole_batch(
    strategy, axis_name, params, batches
):
    found = take_normalised(params, batches, strategy=strategy, axis_name=axis_name)
    expected = take_normalised(params, batches, count=1)
    assert differing(found, expected) == 0


@pytest.mark.parametrize("strategy", ["shard_map", "pmap"])
def test_statistics_of_one_device_are_refused_unless_asked_for(
    strategy, params, batches
):
    with pytest.raises(ValueError, match=r"\(mean\) differs by device.*axis_name"):
        take_normalised(params, batches, strategy=strategy)
    found = take_normalised(
        params, batches, strategy=strategy, batch_statistics="local"
    )
    expected = take_normalised(params, batches, count=1)
    # The mean of means is the mean; normalisation by parts of the batch is not the
    # same. The state of the first batch would be; here three have gone by.
    assert differing(found, expected) > 0
    np.testing.assert_allclose(found[2], expected[2], rtol=0.5)


def test_statistics_of_microbatches_are_refused_unless_asked_for(params, batches):
    with pytest.raises(ValueError, match=r"changes its state \(mean\).*local"):
        take_normalised(params, batches, microbatches=2)
    found = take_normalised(params, batches, microbatches=2, batch_statistics="local")
    assert np.isfinite(found[2])


@pytest.mark.parametrize(
    "options",
    [{"strategy": "shard_map"}, {"microbatches": 4}],
    ids=str,
)
def test_a_second_pass_with_the_deployed_weights(options, params, batches):
    tx, method = METHODS["adaptive", "estimator"]
    found = [
        run(
            train.make_train_step(forward, tx, deployed_pass=True, **method, **more),
            new_state(params, tx),
            batches[:2],
        )
        for more in ({"mesh": train.data_mesh(jax.devices()[:1])}, options)
    ]
    assert differing(*found) == 0


def test_the_gradient_of_a_group_is_clipped_after_the_average(params, batches):
    """By its global norm, which is that of neither a microbatch nor a device."""
    clipped = optax.chain(optax.clip_by_global_norm(0.01), optax.sgd(0.3))
    tx = optax.partition(
        {"latent": clipped, "real": optax.sgd(0.1)},
        functools.partial(optim.labels, rules={"latent": adaste_jax.kernels()}),
    )
    found = [
        run(
            train.make_train_step(forward, tx, **annealed("adaptive"), **options),
            new_state(params, tx),
            batches[:3],
        )
        for options in (
            {"mesh": train.data_mesh(jax.devices()[:1])},
            {"strategy": "shard_map", "microbatches": 2},
        )
    ]
    assert differing(*found) == 0
    before, after = params["tied"]["kernel"], found[0][0][0]["tied"]["kernel"]
    assert 0 < np.linalg.norm(after - before) <= 3 * 0.3 * 0.01 * 1.001


@pytest.mark.parametrize("method", ["adaptive", "released"])
def test_a_loss_scale_is_gone_before_the_rule(method, params, batches, one_device):
    """Powers of two are exact; `released` would see another gradient."""
    tx, options = METHODS[method, "estimator"]
    step = train.make_train_step(
        forward, tx, loss_scale=1024.0, microbatches=2, **options
    )
    found, report = run(step, new_state(params, tx), batches)
    expected, expected_report = one_device((method, "estimator"))
    assert differing(found, expected) == 0
    assert differing(report, expected_report) == 0


def test_a_loss_that_is_one_number_is_refused(params, batches):
    step = train.make_train_step(
        forward,
        SGD(),
        estimator=estimators.ste,
        loss=lambda outputs, labels: jnp.sum(outputs),
    )
    with pytest.raises(ValueError, match="one loss per label"):
        step(new_state(params, SGD()), batches[0])


def test_accumulation_by_optax_is_right_with_the_rule_inside(
    params, batches, one_device
):
    """`MultiSteps` around the chain, four parts of the batch one after the other."""
    constant = {"mu": lambda step: 1.0}
    inner = optax.chain(
        optax.masked(optim.scale_by_adaste(1.0), adaste_jax.kernels()), SGD()
    )
    parts = [
        {name: leaf[i::4] for name, leaf in batch.items()}
        for batch in batches[:2]
        for i in range(4)
    ]
    tx = optax.MultiSteps(inner, 4).gradient_transformation()
    straight = functools.partial(estimators.adaste_paper, rule="identity")
    step = train.make_train_step(
        forward, tx, estimator=straight, hyperparameters=constant
    )
    (found, _), _ = run(step, new_state(params, tx), parts)
    whole = train.make_train_step(
        forward, SGD(), estimator=estimators.adaste_paper, hyperparameters=constant
    )
    (expected, _), _ = run(whole, new_state(params, SGD()), batches[:2])
    assert differing(found, expected) == 0


def test_accumulation_by_optax_is_refused_after_a_rule_that_is_not_additive(
    params, batches
):
    tx = optax.MultiSteps(SGD(), 4).gradient_transformation()
    step = train.make_train_step(forward, tx, **annealed("adaptive"))
    with pytest.raises(ValueError, match=r"MultiSteps.*microbatches="):
        step(new_state(params, tx), batches[0])
    additive = train.make_train_step(forward, tx, estimator=estimators.ste_clipped)
    additive(new_state(params, tx), batches[0])


def in_the_network(params, model_state, inputs, *, train, key):
    """The estimator is a matter of the layers, out of reach of the step."""
    weights = adaste_jax.binarize(
        params, functools.partial(estimators.adaste_paper, mu=0.5)
    )
    return forward(weights, model_state, inputs, train=train, key=key)


@pytest.mark.parametrize(
    ("options", "right"),
    [
        ({"strategy": "jit"}, True),
        ({"strategy": "shard_map"}, True),
        ({"strategy": "pmap"}, False),
        ({"strategy": "jit", "microbatches": 4}, False),
    ],
    ids=str,
)
def test_a_rule_inside_the_network_is_right_where_the_docs_say(
    options, right, params, batches
):
    found = [
        run(
            train.make_train_step(in_the_network, SGD(), estimator=None, **more),
            new_state(params, SGD()),
            batches[:2],
        )[0]
        for more in ({"mesh": train.data_mesh(jax.devices()[:1])}, options)
    ]
    assert (differing(*found) == 0) == right


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "xmap"}, "`strategy` must be one of.*'shard_map'"),
        ({"microbatches": 0}, "`microbatches` must be at least 1"),
        ({"loss_scale": 0.0}, "`loss_scale` must be a number > 0"),
        ({"batch_statistics": "some"}, "`batch_statistics` must be one of"),
        ({"gather": "packed"}, "needs `sharding`"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        train.make_train_step(forward, SGD(), estimator=estimators.ste, **options)


def test_a_batch_that_microbatches_cannot_share_is_refused(params, batches):
    step = train.make_train_step(
        forward, SGD(), estimator=estimators.ste, microbatches=3
    )
    with pytest.raises(
        ValueError, match=r"8 devices in 3 microbatches.*multiple of 24"
    ):
        step(new_state(params, SGD()), batches[0])


# A language model in the shape of Qwen3, whose state lies split.

TOKENS = 24
DECODER = {"width": 32, "heads": 8, "kv_heads": 4, "hidden": 64}
LANGUAGE_METHODS = {
    "adaste": (methods.adaste_paper, {"depth": 1, "scan": "off"}),
    "ste": (methods.ste, {"depth": 2, "scan": "on"}),
}


def language_step(method, axes, strategy="jit", gather="float", **options):
    """A step on a mesh, its first state and two batches; no axes: on one device."""
    make, form = LANGUAGE_METHODS[method]
    network = models.create("decoder", TOKENS, **DECODER, **form)
    chosen = make(steps=10)._replace(tx=SGD())
    tokens = np.random.default_rng(3).integers(0, TOKENS, (2, 16, 9), np.uint8)
    batches = [(one[:, :-1], one[:, 1:].astype(np.int32)) for one in tokens]
    state = train.init(network, chosen, batches[0][0], key=jax.random.key(1))
    placement = train.Placement(mesh=train.data_mesh(jax.devices()[:1]))
    if axes:
        mesh = train.data_mesh(jax.devices()[:8], **axes)
        rules = shardings.decoder_rules(mesh)
        sharding = train.state_sharding(state, mesh, rules)
        state = jax.device_put(state, sharding)
        placement = train.Placement(strategy, sharding=sharding, gather=gather)
    step = train.make_train_step(
        network, chosen, placement=placement, report="short", **options
    )
    return step, state, batches


def language_run(*arguments, **options):
    """Latents, moments and report after the steps."""
    step, state, batches = language_step(*arguments, **options)
    for batch in batches:
        state, report = step(state, *batch)
    return jax.device_get((state.params, state.opt_state, report))


@pytest.fixture(scope="module")
def language_on_one_device():
    return functools.cache(lambda method: language_run(method, {}))


@pytest.mark.parametrize(
    ("method", "axes", "strategy", "gather", "microbatches"),
    [
        ("adaste", {"fsdp": 8}, "shard_map", "float", 2),
        ("adaste", {"tensor": 4}, "jit", "float", 1),
        ("ste", {"fsdp": 2, "tensor": 2}, "jit", "packed", 1),
    ],
    ids=str,
)
def test_a_language_model_takes_the_steps_of_one_device(
    method, axes, strategy, gather, microbatches, language_on_one_device
):
    found = language_run(
        method, axes, strategy=strategy, gather=gather, microbatches=microbatches
    )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, found, language_on_one_device(method))


def test_products_split_over_devices_send_activations_and_no_weight():
    """Twice in a block forward, as in Megatron; each device has a part of a kernel."""
    step, state, batches = language_step("adaste", {"tensor": 4})
    for name in ("gate", "contract"):
        kernel = state.params["Block_0"][name]["kernel"]
        assert kernel.addressable_shards[0].data.size == kernel.size // 4
    text = step.lower(state, *batches[0]).compile().as_text()
    gathered = {
        np.prod([int(n) for n in shape.split(",") if n])
        for shape in re.findall(r"= \w+\[([\d,]*)\]\S* all-gather\(", text)
    }
    assert not gathered & {leaf.size for leaf in jax.tree.leaves(state.params)}
    forward = re.findall(
        r'all-reduce\(.*op_name="[^"]*/jvp\(Decoder\)/Block_0/(\w+)/dot', text
    )
    assert sorted(forward) == ["contract", "out"]
