"""AdaSTE's transformations on the rows of their tables and on recorded trajectories."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adaste_jax
from adaste_jax import estimators, methods, optim

# Tables are printed to six digits and computed in float64.
DIGITS = 5e-6


def _steps(tx, latent, grads):
    """Latents after every gradient of `grads`."""

    @jax.jit
    def step(latent, state, grad):
        updates, state = tx.update(grad, state, latent)
        return optax.apply_updates(latent, updates), state

    state, trace = tx.init(latent), []
    for grad in grads:
        latent, state = step(latent, state, grad)
        trace.append(latent)
    return trace, state


def test_momentum_trace(float64):
    """One weight, the gradient at the latent given."""
    tx = optim.adaste_released(0.1, mu=1.0, grad_scale=1.0, rule="identity")
    grads = [jnp.array(g) for g in (0.5, -0.25, 0.1)]
    trace, state = _steps(tx, jnp.array(2.0), grads)
    np.testing.assert_allclose(trace, [1.75, 1.55263, 1.36711], rtol=DIGITS)
    averages = [leaf.ema for leaf in state if isinstance(leaf, optax.EmaState)]
    np.testing.assert_allclose(averages, [0.502763], rtol=DIGITS)


def test_whole_step_of_the_released_update(float64):
    tx = optim.adaste_released(0.1, mu=0.01, grad_scale=4.0, momentum=0.0)
    trace, _ = _steps(tx, jnp.array([10.0, -10.0, 0.5]), [jnp.array([0.2, 0.2, -0.2])])
    np.testing.assert_allclose(trace[0], [8.99192, -9.0, 0.529208], rtol=DIGITS)


# Epoch that is about to run, from 1; then mu at a rate of 1.05 and of 1.009.
ANNEALING = [
    (1, 0.0105, 0.01009),
    (94, 0.981283, 0.0232151),
    (95, 1.03035, 0.023424),
    (188, 96.2916, 0.0538939),
    (189, 100, 0.0543789),
    (190, 100, 0.0548683),
    (500, 100, 0.882233),
    (700, 100, 5.2944),
]


@pytest.mark.parametrize(("rate", "column"), [(1.05, 1), (1.009, 2)])
@pytest.mark.parametrize("offset", [0, 6])
def test_rows_of_mu_in_the_first_and_last_step_of_an_epoch(rate, column, offset):
    method = methods.adaste_released(4900, mu_rate=rate, steps_per_epoch=7)
    steps = np.array([7 * (row[0] - 1) + offset for row in ANNEALING])
    got = jax.vmap(method.values)(steps)["mu"]
    expected = [row[column] for row in ANNEALING]
    np.testing.assert_allclose(got, expected, rtol=1e-4)  # float32 powers
    assert [value == 100 for value in got] == [value == 100 for value in expected]


def test_the_released_cosine_is_one_epoch_ahead(float64):
    """So the last epoch trains at the end value; the learning rate moves by epochs."""
    method = methods.adaste_released(
        15, steps_per_epoch=3, learning_rate=0.5, momentum=0.0, num_examples=1
    )
    params = {"kernel": jnp.array([8.0, -8.0])}
    state, rates = method.tx.init(params), []
    for step in range(15):
        zero = jax.tree.map(jnp.zeros_like, params)
        updates, state = method.tx.update(zero, state, params, step=step)
        rates.append(-updates["kernel"] / params["kernel"])  # of the decay alone
    epochs = np.arange(15) // 3
    expected = 1e-16 + 0.5 * (1 + np.cos(np.pi * (epochs + 1) / 5)) / 2
    np.testing.assert_allclose(np.array(rates)[:, 0], expected, rtol=1e-10, atol=1e-18)
    np.testing.assert_allclose(rates[-1], 1e-16, rtol=1e-10)


# Recorded runs: learning rate, N, and whether the net has batch norm.
SCHEDULES = ("mu0.05", "mu5", "mu100", "anneal")
RUNS = {
    **{
        f"mlp_ada_n{n}_{schedule}_f64": (1e-3, n, False)
        for n in (1, 100)
        for schedule in SCHEDULES
    },
    **{
        f"mlp_{kind}_f{bits}": (1e-3, n, False)
        for kind, n, widths in (
            ("ada_n1_anneal", 1, (32,)),
            ("ada_n100_anneal", 100, (32,)),
            ("ste_n1", 1, (32, 64)),
            ("ste_n100", 100, (32, 64)),
        )
        for bits in widths
    },
    "bnmlp_ada_n100_anneal_f64": (1e-3, 100, True),
    "bnmlp_ada_n450000_paperlike_f64": (3e-4, 450_000, True),
}


def test_every_recorded_run_is_followed(golden):
    recorded = golden("adaste_trajectories")
    runs = {
        key.removesuffix("_latents") for key in recorded if key.endswith("_latents")
    }
    assert runs == set(RUNS)


def _tree(flat):
    """Weights as the recording lays them out: first (8, 16), then (4, 8), row-major."""
    return {"first": flat[:128].reshape(8, 16), "second": flat[128:].reshape(4, 8)}


def _flat(tree):
    return jnp.concatenate([tree["first"].ravel(), tree["second"].ravel()])


def _batch_norm(x, running, momentum):
    """Batch statistics in use; the running variance is of the unbiased estimate."""
    mean, var = jnp.mean(x, 0), jnp.var(x, 0)
    unbiased = var * (len(x) / (len(x) - 1))
    running = jax.tree.map(
        lambda old, new: (1 - momentum) * old + momentum * new,
        running,
        {"mean": mean, "var": unbiased},
    )
    return (x - mean[None]) / jnp.sqrt(var + 1e-5)[None], running


def _loss(weights, running, inputs, targets, *, norm):
    hidden = inputs @ weights["first"].T
    if norm:
        hidden, first = _batch_norm(hidden, running["bn1"], 0.2)
    logits = jnp.maximum(hidden, 0) @ weights["second"].T
    if norm:
        logits, second = _batch_norm(logits, running["bn2"], 0.1)
        running = {"bn1": first, "bn2": second}
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return jnp.mean(loss), running


def _follow(data, run):
    """Twenty steps of the released recipe, and everything that was recorded of them."""
    learning_rate, n, norm = RUNS[run]
    dtype = jnp.float64 if run.endswith("f64") else jnp.float32
    schedule = "paperlike" if "paperlike" in run else run.split("_")[3]
    rule = "identity" if "_ste_" in run else "released"
    if rule == "identity":  # the authors' STE mode: the sign, whatever mu is
        mus, alpha = np.full(20, 1e4), 0.5
    else:
        mus = data[f"schedule_{schedule}"]
        alpha = float(data[f"schedule_{schedule}_alpha"])
    mus = jnp.asarray(mus, dtype)
    tx = optim.adaste_released(
        learning_rate,
        mu=lambda count: mus[count],
        grad_scale=n**2,
        rule=rule,
        alpha=alpha,
    )
    start = data["mlp_latents10" if "paperlike" in run else "mlp_latents0"]
    latents = _tree(jnp.asarray(start, dtype))
    running = {
        name: {"mean": jnp.zeros(size, dtype), "var": jnp.ones(size, dtype)}
        for name, size in (("bn1", 8), ("bn2", 4))
    }
    loss_of = functools.partial(_loss, norm=norm)

    def step(carry, batch):
        latents, state, running = carry
        inputs, targets, mu = batch
        weights = adaste_jax.binarize(
            latents,
            functools.partial(
                estimators.adaste_paper, mu=mu, alpha=alpha, rule="identity"
            ),
            where=".",
        )
        (relaxed, running), grads = jax.value_and_grad(loss_of, has_aux=True)(
            weights, running, inputs, targets
        )
        scaled = jax.tree.map(
            functools.partial(
                estimators.adaste_gradient, mu=mu, alpha=alpha, rule=rule
            ),
            latents,
            grads,
        )
        signs = adaste_jax.deploy(latents, where=".")
        deployed, running = loss_of(signs, running, inputs, targets)
        updates, state = tx.update(grads, state, latents)
        latents = optax.apply_updates(latents, updates)
        momentum = next(s.ema for s in state if isinstance(s, optax.EmaState))
        record = {
            "latents": _flat(latents),
            "momentum": _flat(momentum),
            "loss_sign": deployed,
            "loss_relaxed": relaxed,
            "w_star": _flat(weights),
            "grad": _flat(grads),
            "scaled_grad": _flat(scaled),
        }
        for name, statistics in running.items():
            for kind, value in statistics.items():
                record[f"{name}_running_{kind}"] = value
        return (latents, state, running), record

    batches = jnp.asarray(data["mlp_X"], dtype), jnp.asarray(data["mlp_y"]), mus
    scan = jax.jit(lambda carry: jax.lax.scan(step, carry, batches)[1])
    record = scan((latents, tx.init(latents), running))
    record["latents"] = np.concatenate([start[None], record["latents"]])
    return record


@pytest.mark.parametrize("run", RUNS)
def test_follows_a_recorded_trajectory_of_the_released_code(float64, golden, run):
    """Latents, momentum, losses, weights, gradients and running statistics."""
    data = golden("adaste_trajectories")
    got = _follow(data, run)
    expected = {
        key.removeprefix(f"{run}_"): value
        for key, value in data.items()
        if key.startswith(f"{run}_")
    }
    assert {"latents", "momentum", "loss_sign", "loss_relaxed", "grad"} <= set(expected)
    tolerance = 1e-9 if run.endswith("f64") else 1e-6
    for name, array in expected.items():
        np.testing.assert_allclose(
            got[name],
            array,
            rtol=tolerance,
            atol=tolerance * np.abs(array).max(),
            err_msg=name,
        )
    np.testing.assert_array_equal(np.sign(got["latents"]), np.sign(expected["latents"]))


def test_the_rule_may_stand_before_or_after_momentum():
    """Before, it sees each gradient; after, it sees the average of its own state."""
    latent, grads = (
        jnp.array([3.0, -3.0]),
        [jnp.array([1.0, 1.0]), jnp.array([-0.5, 0.1])],
    )
    rule = functools.partial(
        estimators.adaste_gradient, latent, mu=0.7, alpha=0.2, rule="adaptive"
    )
    scale = optim.scale_by_adaste(0.7, alpha=0.2)
    for chain, expected in (
        ((scale, optax.trace(0.9)), 0.9 * rule(grads[0]) + rule(grads[1])),
        ((optax.trace(0.9), scale), rule(0.9 * grads[0] + grads[1])),
    ):
        tx = optax.chain(*chain)
        state = tx.init(latent)
        for grad in grads:
            updates, state = tx.update(grad, state, latent)
        np.testing.assert_allclose(updates, expected, rtol=1e-6)
    assert not np.allclose(0.9 * rule(grads[0]) + rule(grads[1]), expected)


def test_mu_follows_its_schedule_by_the_step():
    schedule = lambda count: jnp.where(count < 2, 0.5, 100.0)
    tx = optim.scale_by_adaste(schedule)
    latent, grad = jnp.array([-0.2, 4.0]), jnp.array([0.3, 0.3])
    state = tx.init(latent)
    for mu in (0.5, 0.5, 100.0):
        updates, state = tx.update(grad, state, latent)
        expected = estimators.adaste_gradient(latent, grad, mu=mu, alpha=0.01)
        np.testing.assert_array_equal(updates, expected)
    assert state.step == 3


def test_accumulated_microbatches_are_one_big_batch():
    """`MultiSteps` around the released chain: the same latents up to rounding."""
    rng = np.random.default_rng(0)
    latent = jnp.asarray(rng.normal(size=12), jnp.float32)
    grads = jnp.asarray(rng.normal(size=(6, 3, 12)), jnp.float32)  # steps, microbatches
    growing = optax.exponential_decay(1.0, 1, 2.0, end_value=100.0)
    mu = optim.per_epoch(growing, steps_per_epoch=2)
    tx = optim.adaste_released(0.1, mu=mu, grad_scale=3.0)
    big, _ = _steps(tx, latent, grads.mean(1))
    small, _ = _steps(optax.MultiSteps(tx, 3), latent, grads.reshape(18, 12))
    np.testing.assert_allclose(big, small[2::3], rtol=1e-5, atol=1e-6)


def test_latents_and_real_parameters_have_optimisers_of_their_own():
    params = {
        "body": {"kernel": jnp.array([3.0, -3.0]), "bias": jnp.array([0.5])},
        "head": {"kernel": jnp.array([2.0])},
    }
    grads = jax.tree.map(jnp.ones_like, params)
    where = adaste_jax.kernels(exclude="^head/")
    latents = optim.adaste_released(0.1, mu=100.0, grad_scale=1.0, momentum=0.0)
    tx = optax.partition(
        {"latent": latents, "real": optax.sgd(0.1)},
        lambda params: optim.labels(params, {"latent": where}),
    )
    updates, _ = tx.update(grads, tx.init(params), params)
    # Slopes min(1/2, 1/3) toward and 0 away, and the decay.
    np.testing.assert_allclose(
        updates["body"]["kernel"], [-0.1 * (1 / 3 + 3), 0.3], rtol=1e-5
    )
    np.testing.assert_allclose(updates["body"]["bias"], [-0.1], rtol=1e-6)
    np.testing.assert_allclose(updates["head"]["kernel"], [-0.1], rtol=1e-6)

    masked = optax.masked(optim.scale_by_adaste(100.0), where)
    updates, _ = masked.update(grads, masked.init(params), params)
    np.testing.assert_allclose(updates["body"]["kernel"], [0.5, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(updates["head"]["kernel"], [1.0])


def test_the_averaged_rule_is_an_average_and_then_the_rule():
    latent = jnp.array([0.3, -2.0, 0.7])
    grads = [jnp.array([0.1, -0.2, 0.3]), jnp.array([0.2, 0.1, -0.3])]
    tx = optim.adaste_averaged(0.5, mu=1.0, momentum=0.75, alpha=0.1)
    trace, _ = _steps(tx, latent, grads[:1])
    second, _ = _steps(tx, latent, grads)
    average = (0.75 * grads[0] + grads[1]) / 1.75
    slope = functools.partial(
        estimators.adaste_gradient, mu=1.0, alpha=0.1, cap=2.0, away=1.0
    )
    np.testing.assert_allclose(
        latent - trace[0], 0.5 * slope(latent, grads[0]), rtol=1e-5
    )
    np.testing.assert_allclose(
        trace[0] - second[1], 0.5 * slope(trace[0], average), rtol=1e-4
    )


def test_without_latents_the_error_says_how_to_pass_them():
    tx = optim.scale_by_adaste(1.0)
    latent = jnp.ones(2)
    with pytest.raises(ValueError, match=r"tx\.update\(updates, state, params\)"):
        tx.update(latent, tx.init(latent))
