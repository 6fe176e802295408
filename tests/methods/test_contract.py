"""What every method must do, over all of `METHODS`."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaste_jax import estimators, export, methods
from adaste_jax.methods import _method
from tests.methods import problem

every = pytest.mark.parametrize("name", methods.METHODS)


def _same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def _close(one, other):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, other
    )


def _latents(name):
    """Parameters of the method, some latents small and some beyond 1."""
    method = problem.small(name)
    params = method.init(problem.KEY, problem.drawn())
    chosen = method.where(params)
    if name == "bop":
        return method, params
    return method, jax.tree.map(lambda p, c: p * 1.5 if c else p, params, chosen)


def test_names_are_functions_of_the_package():
    assert len(methods.METHODS) == 42
    for name, function in methods.METHODS.items():
        assert function is getattr(methods, name)
        assert function.__name__ == name
        assert name in methods.__all__


@every
def test_the_signature_is_steps_and_keywords_with_defaults(name):
    first, *rest = inspect.signature(methods.METHODS[name]).parameters.values()
    assert first.name == "steps"
    assert [p.name for p in rest if p.kind is p.VAR_KEYWORD] == ["run"]
    options = [p for p in rest if p.kind is p.KEYWORD_ONLY]
    assert options[0].name == "learning_rate"
    assert all(option.default is not option.empty for option in options)
    documented = inspect.getdoc(methods.METHODS[name])
    assert all(f"{option.name}: " in documented for option in options)


def test_the_keywords_of_every_method_are_documented_and_have_defaults():
    fields = {field.name for field in dataclasses.fields(_method.Length)}
    assert fields - {"steps"} == _method.Run.__annotations__.keys()
    for name in _method.Run.__annotations__:
        assert f"    {name}  " in methods.__doc__


@every
def test_steps_alone_are_enough(name):
    method = methods.METHODS[name](50)
    assert isinstance(hash(method), int)  # so that `jit` can hold it fixed
    params = method.init(problem.KEY, problem.drawn())
    weights = method.weights(params, 0, problem.KEY)
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = method.tx.update(
        grads, method.tx.init(params), params, weights=weights, step=0
    )
    for leaf in jax.tree.leaves((updates, weights, method.deploy(params))):
        assert np.isfinite(leaf).all()


@every
def test_from_binary_from_on_weights_are_those_that_are_shipped(name):
    method, params = problem.trained(name)
    if method.binary_from == methods.NEVER:
        return
    shipped = method.deploy(params)
    compiled = jax.jit(method.weights)
    for step in (0, 1, problem.STEPS, 10 * problem.STEPS):
        step += method.binary_from
        _same(method.weights(params, step), shipped)
        _same(compiled(params, step), shipped)


@pytest.mark.parametrize(
    "method",
    [
        methods.adaste(10),
        methods.adaste(10, alpha=0.5, mu_end=2.0, anneal_fraction=1.0),
        methods.adaste_paper(50),
        methods.adaste_released(3000, steps_per_epoch=4),
        methods.adaste_released(90, steps_per_epoch=3, mu_rate=2.0, alpha=0.3),
        methods.adaste_released(90, steps_per_epoch=7, mu_init=3.0, mu_rate=6.0),
    ],
)
def test_one_step_before_they_are_not(method):
    params = problem.drawn()  # soft: within (-1, 1), most of them
    before = method.weights(params, method.binary_from - 1)
    after = method.weights(params, method.binary_from)
    assert np.any(before["first"]["kernel"] != after["first"]["kernel"])
    _same(after, method.deploy(params))


@pytest.mark.parametrize(
    "method",
    [
        methods.adaste(10, mu_end=50.0),
        methods.adaste_released(10, mu_rate=1.0),
        methods.proxquant(10),
        methods.tanh(10),
    ],
)
def test_weights_that_stay_soft_never_are_binary(method):
    assert method.binary_from == methods.NEVER
    assert np.any(
        method.weights(problem.drawn(), 10**6)["last"]["kernel"]
        != method.deploy(problem.drawn())["last"]["kernel"]
    )


def test_batch_statistics_are_those_of_the_shipped_weights():
    assert methods.adaste(100).statistics_from == 80
    assert methods.adaste_released(100).statistics_from == 0
    soft = methods.adaste_released(100, deployed_pass=False)
    assert soft.statistics_from == soft.binary_from > 0
    assert methods.ste(100).statistics_from == 0
    assert methods.tanh(100).statistics_from == methods.NEVER


@every
def test_real_parameters_pass_and_latents_are_where_it_says(name):
    method, params = problem.trained(name)
    weights = method.weights(params, 0, problem.KEY)
    mask = method.where(params)
    for layer in ("first", "last"):
        assert mask[layer] == {"kernel": name != "full_precision", "bias": False}
        for tree in (weights, method.deploy(params)):
            assert tree[layer]["bias"] is params[layer]["bias"]
            assert tree[layer]["kernel"].shape == problem.drawn()[layer]["kernel"].shape


@every
def test_what_is_saved_and_loaded_is_the_network_that_was_shipped(name, tmp_path):
    method, params = problem.trained(name)
    if name == "full_precision":
        return  # nothing to pack
    weights = method.deploy(params)
    path = tmp_path / "network.safetensors"
    export.save(path, weights, where=method.where, deploy=lambda weights: weights)
    loaded = jax.tree.map(jnp.asarray, export.load(path).params)
    inputs = problem.batches()[0][0]
    _same(problem.network(weights, inputs), problem.network(loaded, inputs))


@every
def test_additive_is_what_the_gradient_of_the_weights_is(name):
    method, params = _latents(name)
    weights, pull = jax.vjp(lambda p: method.weights(p, 1, problem.KEY), params)
    rng = np.random.default_rng(2)
    one, two = (
        jax.tree.map(lambda w: jnp.asarray(rng.normal(size=w.shape), w.dtype), weights)
        for _ in range(2)
    )
    (both,) = pull(jax.tree.map(jnp.add, one, two))
    (apart,) = (jax.tree.map(jnp.add, *pull(one), *pull(two)),)
    close = [
        np.allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(a).max())
        for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(apart), strict=True)
    ]
    assert all(close) == method.additive


@every
def test_random_weights_need_a_key_and_others_look_at_none(name):
    method, params = _latents(name)
    params = jax.tree.map(lambda leaf: leaf / 20, params)
    one, other = (method.weights(params, 0, jax.random.key(i)) for i in (1, 2))
    if method.random:
        assert np.any(one["first"]["kernel"] != other["first"]["kernel"])
        with pytest.raises(ValueError, match="with another key"):
            method.weights(params, 0)
    else:
        _same(one, other)
        _same(one, method.weights(params, 0))


@every
def test_a_step_is_compiled_once_and_maps_over_seeds(name):
    method = problem.small(name)
    traces = []

    def step(params, state, number, batch, key):
        traces.append(name)
        return problem.update(method, params, state, number, batch, key)

    mapped = jax.jit(jax.vmap(step, in_axes=(0, 0, None, None, 0)))

    def run(keys):
        params = [method.init(key, problem.drawn(key)) for key in keys]
        states = [(each, method.tx.init(each)) for each in params]
        states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        for number, *batch in zip(range(2), *problem.batches(2), strict=True):
            states = mapped(*states, jnp.asarray(number), batch, jnp.stack(keys))
        return states

    one, other = jax.random.split(jax.random.key(1), 2)
    last = lambda states: jax.tree.map(lambda leaf: leaf[1], states)
    _same(last(run([one, other])), last(run([other, other])))
    assert len(traces) == 1


@pytest.mark.parametrize(
    "name",
    [
        *("adaste", "binary_connect", "irnet", "scaled_sign", "ternary_twn", "vispa"),
        *("progressive", "cage", "ovsw"),
    ],
)
def test_split_data_and_latents_are_one_device(name):
    """Methods that look at more than one latent at a time."""
    method, params = _latents(name)
    batch = jax.tree.map(lambda leaf: leaf[0], problem.batches())
    step = jax.jit(lambda p, s, b: problem.update(method, p, s, 2, b, problem.KEY))
    expected, _ = step(params, method.tx.init(params), batch)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def place(tree, *axes):
        spec = jax.sharding.PartitionSpec(*axes)
        return jax.device_put(tree, jax.sharding.NamedSharding(mesh, spec))

    params["first"]["kernel"] = place(params["first"]["kernel"], None, "data")
    got, _ = step(params, method.tx.init(params), place(batch, "data"))
    assert len(got["first"]["kernel"].devices()) == 2
    _close(got, expected)


def test_methods_do_not_touch_each_other():
    params = problem.drawn()
    one = methods.adaste(10)
    before = one.weights(params, 3)
    other = methods.adaste(10, alpha=0.5, where="^last/")
    assert np.any(
        other.weights(params, 3)["last"]["kernel"] != before["last"]["kernel"]
    )
    _same(one.weights(params, 3), before)
    _same(methods.adaste(10).weights(params, 3), before)


@pytest.mark.parametrize(
    "where",
    [
        "^first/kernel",
        ["^first/kernel"],
        lambda params: {
            "first": {"kernel": True, "bias": False},
            "last": {"kernel": False, "bias": False},
        },
        {"first": {"kernel": True, "bias": False}, "last": False},
    ],
    ids=["pattern", "patterns", "function", "mask"],
)
def test_any_where_will_do(where):
    params = problem.drawn()
    method = methods.bop(10, where=where)
    start = method.init(problem.KEY, params)
    assert (jnp.abs(start["first"]["kernel"]) == 1).all()
    assert start["last"]["kernel"] is params["last"]["kernel"]
    assert (jnp.abs(method.deploy(params)["first"]["kernel"]) == 1).all()
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = method.tx.update(grads, method.tx.init(start), start, step=0)
    assert set(np.unique(updates["first"]["kernel"])) <= {-2.0, 0.0}
    assert (updates["last"]["kernel"] < 0).all()


def test_a_method_of_an_own_estimator():
    doubled = lambda latent, scale: scale * estimators.ste(latent)
    method = methods.from_estimator(
        doubled,
        optax.sgd(1.0),
        where="^first/kernel",
        schedules={"scale": lambda step: 1.0 + step},
        starts=(lambda key, leaf: leaf + 7.0, None),
    )
    params = problem.drawn()
    first, last = params["first"]["kernel"], params["last"]["kernel"]
    sign = np.where(first >= 0, 1.0, -1.0)
    np.testing.assert_array_equal(
        method.weights(params, 2)["first"]["kernel"], 3 * sign
    )
    np.testing.assert_array_equal(method.deploy(params)["first"]["kernel"], sign)
    assert method.weights(params, 2)["last"]["kernel"] is last
    start = method.init(problem.KEY, params)
    np.testing.assert_array_equal(start["first"]["kernel"], first + 7)
    _same(method.init(problem.KEY, params, trained=True), params)
    assert method.binary_from == methods.NEVER
    with pytest.raises(ValueError, match="`beta`"):
        methods.from_estimator(
            functools.partial(estimators.tanh, beta=-1.0), optax.sgd(1.0)
        )


def test_one_array_is_a_tree_too():
    latent = jnp.array([0.3, -0.4, 0.9])
    method = methods.adaste(10, where=True)
    updates, _ = method.tx.update(
        jnp.ones(3), method.tx.init(latent), latent, weights=latent, step=4
    )
    assert (updates < 0).all()
    _same(method.deploy(latent), jnp.array([1.0, -1.0, 1.0]))


def test_a_where_that_selects_nothing_is_an_error_from_the_start():
    with pytest.raises(ValueError, match=r"matches nothing.*first/kernel"):
        methods.ste(10, where="^stem/").init(problem.KEY, problem.drawn())


def test_a_learning_rate_may_be_a_schedule_or_traced():
    params = {"kernel": jnp.array([0.5, -0.5])}
    grads = {"kernel": jnp.array([0.25, -4.0])}

    def size(rate, step, **options):
        method = methods.ste(100, learning_rate=rate, **options)
        updates, _ = method.tx.update(grads, method.tx.init(params), params, step=step)
        return jnp.abs(updates["kernel"])[0]  # Adam's first step is the learning rate

    schedule = lambda step: 0.25 * step
    np.testing.assert_allclose(size(schedule, 3), 0.75, rtol=1e-4)
    np.testing.assert_allclose(size(schedule, 3, warmup_steps=8), 0.375, rtol=1e-4)
    np.testing.assert_allclose(size(0.5, 50), 0.25, rtol=1e-4)
    np.testing.assert_allclose(size(0.5, 50, warmup_steps=102), 0.125, rtol=1e-4)
    rates = jnp.array([0.25, 0.5])
    np.testing.assert_allclose(jax.vmap(lambda r: size(r, 0))(rates), rates, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "steps", "options", "message"),
    [
        ("ste", 0, {}, "`steps` must be at least 1, got 0"),
        ("adaste", -3, {}, "`steps`"),
        ("proxquant", 0, {}, "`steps`"),
        ("tanh", 9, {"warmup_steps": -1}, "`warmup_steps`"),
        ("ede", 9, {"steps_per_epoch": 0}, "`steps_per_epoch`"),
        ("bayesbinn", 9, {"num_examples": 0}, "`num_examples`"),
        ("fda", 9, {"learning_rate": 0.0}, "`learning_rate` must be greater than 0"),
        ("adaste_released", 9, {"learning_rate": -1.0}, "`learning_rate`"),
        ("full_precision", 9, {"learning_rate": float("nan")}, "`learning_rate`"),
        ("ste", 9, {"real_learning_rate": 0}, "`real_learning_rate`"),
        ("adaste", 9, {"alpha": 1.0}, r"`alpha` must be in \(0, 1\), got 1.0"),
        ("adaste_released", 9, {"alpha": 0.0}, "`alpha`"),
        ("adaste", 9, {"mu_init": 0.0}, "`mu_init`"),
        ("adaste_paper", 9, {"mu_end": 0.001}, "`mu_end` must be at least `mu_init`"),
        ("adaste", 9, {"anneal_fraction": 1.5}, "`anneal_fraction`"),
        ("md_tanh", 9, {"anneal_fraction": 0.0}, "`anneal_fraction`"),
        ("adaste", 9, {"mu_end": float("inf")}, "`mu_end`.* got inf"),
        ("ste", 9, {"learning_rate": float("inf")}, "`learning_rate`.* got inf"),
        ("adaste_paper", 9, {"rule": "best"}, "`rule` must be one of"),
        ("adaste_averaged", 9, {"rule": "best"}, "`rule` must be one of"),
        ("adaste_released", 9, {"rule": "best"}, "`rule` must be one of"),
        ("adaste_paper", 9, {"cap": -1.0}, "`cap`"),
        ("adaste_averaged", 9, {"away": -0.5}, "`away`"),
        ("adaste_averaged", 9, {"momentum": 1.0}, "`momentum`"),
        ("adaste_released", 9, {"momentum": -0.1}, "`momentum`"),
        ("adaste_released", 9, {"decay": -1.0}, "`decay`"),
        ("adaste_released", 9, {"multiplier": 0.0}, "`multiplier`"),
        ("adaste_released", 9, {"mu_init": 101.0}, "`mu_init`"),
        ("adaste_released", 9, {"mu_rate": 0.9}, "`mu_rate`"),
        ("adaste_released", 9, {"initial_latent": 0.0}, "`initial_latent`"),
        ("bop", 9, {"tau": -1e-9}, "`tau`"),
        ("proxquant", 9, {"pull": -1.0}, "`pull`"),
        ("bayesbinn", 9, {"temperature": 0.0}, "`temperature`"),
        ("bayesbinn", 9, {"momentum": 1.0}, "`momentum`"),
        ("bayesbinn", 9, {"multiplier": -1.0}, "`multiplier`"),
        ("bayesbinn", 9, {"initial_latent": -1.0}, "`initial_latent`"),
        ("vispa", 9, {"rank": 0}, "`rank`"),
        ("vispa", 9, {"momentum": 2.0}, "`momentum`"),
        ("tanh", 9, {"beta_end": 0.5}, "`beta_end`"),
        ("ternary_tanh", 9, {"beta_end": 0.0}, "`beta_end`"),
        ("pmf", 9, {"jacobian": "other"}, "`jacobian`"),
        ("fenbp", 9, {"beta": -1.0}, "`beta`"),
        ("swish_sign", 9, {"beta": -1.0}, "`beta`"),
        ("fda", 9, {"order": -1}, "`order`"),
        ("reste", 9, {"exponent_end": 0.5}, "`exponent_end`"),
        ("ede", 9, {"sharpness_init": 0.0}, "`sharpness_init`"),
        ("irnet", 9, {"sharpness_end": -1.0}, "`sharpness_end`"),
        ("scaled_sign", 9, {"scale_grad": "none"}, "`scale_grad`"),
        ("scaled_sign", 9, {"group": -1}, "`group`"),
        ("ternary_absmean", 9, {"group": -128}, "`group`"),
        ("ternary_fixed", 9, {"threshold": -0.1}, "`threshold`"),
        ("biper", 9, {"omega": 0.0}, "`omega` must be greater than 0"),
        ("biper", 9, {"soft_fraction": 1.2}, r"`soft_fraction` must be in \[0, 1\]"),
        ("progressive", 9, {"phases": 0}, "`phases`"),
        ("cage", 9, {"pull": -1.0}, "`pull`"),
        ("cage", 9, {"silence": 1.0}, "`silence`"),
        ("ovsw", 9, {"delta": -0.1}, "`delta`"),
        ("ovsw", 9, {"decay": -0.1}, "`decay`"),
        ("freezing", 9, {"threshold_end": -0.1}, "`threshold_end`"),
        ("freezing", 9, {"free_fraction": 1.0}, "`free_fraction`"),
        ("freezing", 9, {"momentum": 2.0}, "`momentum`"),
    ],
)
def test_an_option_out_of_range_is_named(name, steps, options, message):
    with pytest.raises(ValueError, match=message):
        methods.METHODS[name](steps, **options)


@every
def test_an_option_that_there_is_not_is_named(name):
    with pytest.raises(TypeError, match=r"unknown options \['mu_ned'\].*warmup_steps"):
        methods.METHODS[name](10, mu_ned=3.0)


@pytest.mark.parametrize("name", ["scaled_sign", "ternary_absmean", "ternary_twn"])
def test_groups_are_mapped_alone_and_what_is_seen_is_shipped(name):
    method = methods.METHODS[name](9, group=4)
    kernel = jax.random.normal(problem.KEY, (8, 3))
    params = {"kernel": kernel, "bias": jnp.ones(3)}
    weights = method.weights(params, 0)
    _same(weights, method.deploy(params))
    estimator = getattr(estimators, name)
    for rows in (slice(0, 4), slice(4, 8)):
        for output in range(3):
            alone = estimator(kernel[rows, output], axis=None)
            np.testing.assert_allclose(
                weights["kernel"][rows, output], alone, rtol=1e-6
            )
    assert method.scales((8, 3)) == 6
    with pytest.raises(ValueError, match="groups of 4 inputs do not fill 6") as refused:
        method.weights({"body": {"kernel": jnp.ones((6, 3))}}, 0)
    assert refused.value.__notes__ == ["at the leaf ['body']['kernel']"]
