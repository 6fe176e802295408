"""Training methods: everything that differs between ways of training one-bit weights.

A method says where latents start, what the network sees in a step, how parameters are
updated and what is shipped: see `Method`. Each function makes a method for a run of a
given number of steps. Use `adaste`, which is recommended, or `ste`, the baseline:

    method = methods.adaste(steps=1500)

`adaste` is the recommended form of AdaSTE: the paper's forward map in units of the
layer, with a straight-through backward rule. It was the most accurate form in our
measurements. `adaste_paper` is the paper's rule on each gradient, `adaste_averaged`
that rule on a moving average, and `adaste_released` the authors' code.

Besides their own options all functions take these keywords:

    where               Which leaves are latents: regular expressions on the path, a
                        tree of booleans, or a function that returns one. Default:
                        leaves called `kernel`.
    real_learning_rate  Learning rate of Adam for all other parameters; default 1e-3. A
                        number falls to 0 on a cosine of the step; a schedule of the
                        step is used unchanged. The same holds for `learning_rate`.
    warmup_steps        Steps in which both learning rates are multiplied by a factor
                        that rises from 0 to 1; default 0.
    steps_per_epoch     Steps in an epoch, for schedules that change once per epoch, as
                        published: those of `reste`, `ede`, `rbnn`, `irnet` and
                        `adaste_released`. Default: they change in every step, and those
                        of `adaste_released` 700 times in the run.
    num_examples        Size of the training set, by which `adaste_released` and
                        `bayesbinn` scale gradients; default 50,000, as in CIFAR-10.
    optimiser           Function from the schedule of `learning_rate` to the Optax
                        transformation of the latents, where the method has none of its
                        own; default `optax.adam`. `functools.partial(optax.adam,
                        b1=0.8)` has another momentum; `optax.contrib.muon` is another
                        optimiser.

Below, t is the latent, w the weight, g the gradient at w, h the gradient at t and d the
direction of Adam. Unless the docstring says otherwise, sign(t) is shipped.

`METHODS` has all of them by name. `from_estimator` makes a method of your own
estimator.

Example:
    >>> import jax, jax.numpy as jnp
    >>> from adaste_jax import methods
    >>> method = methods.adaste(steps=100, learning_rate=1e-2)
    >>> params = {"kernel": jnp.array([-0.2, 0.4]), "bias": jnp.array([0.3])}
    >>> params = method.init(jax.random.key(0), params)
    >>> method.weights(params, 0)["kernel"].round(2)  # soft at first
    Array([-0.78,  1.22], dtype=float32)
    >>> method.binary_from, method.weights(params, 80)["kernel"]
    (80, Array([-1.,  1.], dtype=float32))
"""

from collections.abc import Callable

from adaste_jax.methods._adaste import (
    adaste,
    adaste_averaged,
    adaste_paper,
    adaste_released,
)
from adaste_jax.methods._build import from_estimator
from adaste_jax.methods._method import NEVER, Method, Optimiser, Rate
from adaste_jax.methods._optimisers import (
    bop,
    freezing,
    full_precision,
    ovsw,
    proxquant,
)
from adaste_jax.methods._periodic import biper
from adaste_jax.methods._random import (
    bayesbinn,
    bernoulli_identity,
    bernoulli_pwgf,
    binary_connect_random,
    vispa,
)
from adaste_jax.methods._scaled import blend, cage, parq, progressive, scaled_sign
from adaste_jax.methods._soft import (
    fenbp,
    hardtanh_adaste,
    md_softmax,
    md_softmax_s,
    md_tanh,
    md_tanh_s,
    pmf,
    tanh,
)
from adaste_jax.methods._straight_through import (
    approx_sign,
    binary_connect,
    ede,
    fda,
    irnet,
    rbnn,
    reste,
    ste,
    ste_clipped,
    swish_sign,
)
from adaste_jax.methods._ternary import (
    ternary_absmean,
    ternary_fixed,
    ternary_tanh,
    ternary_twn,
)

# fmt: off
METHODS: dict[str, Callable[..., Method]] = {
    "adaste": adaste, "adaste_paper": adaste_paper,
    "adaste_averaged": adaste_averaged, "adaste_released": adaste_released,

    "full_precision": full_precision, "bop": bop, "proxquant": proxquant,
    "ovsw": ovsw, "freezing": freezing,

    "binary_connect_random": binary_connect_random, "bernoulli_pwgf": bernoulli_pwgf,
    "bernoulli_identity": bernoulli_identity, "bayesbinn": bayesbinn, "vispa": vispa,

    "tanh": tanh, "md_tanh_s": md_tanh_s, "md_softmax_s": md_softmax_s, "pmf": pmf,
    "md_tanh": md_tanh, "md_softmax": md_softmax, "hardtanh_adaste": hardtanh_adaste,
    "fenbp": fenbp,

    "ste": ste, "ste_clipped": ste_clipped, "binary_connect": binary_connect,
    "approx_sign": approx_sign, "swish_sign": swish_sign, "fda": fda, "reste": reste,
    "ede": ede, "rbnn": rbnn, "irnet": irnet, "blend": blend, "parq": parq,
    "scaled_sign": scaled_sign, "progressive": progressive, "cage": cage,
    "biper": biper,

    "ternary_absmean": ternary_absmean, "ternary_twn": ternary_twn,
    "ternary_fixed": ternary_fixed, "ternary_tanh": ternary_tanh,
}
# fmt: on
"""All methods by name; each takes `steps` and keywords."""

__all__ = [
    "METHODS",
    "NEVER",
    "Method",
    "Optimiser",
    "Rate",
    "adaste",
    "adaste_averaged",
    "adaste_paper",
    "adaste_released",
    "approx_sign",
    "bayesbinn",
    "bernoulli_identity",
    "bernoulli_pwgf",
    "binary_connect",
    "binary_connect_random",
    "biper",
    "blend",
    "bop",
    "cage",
    "ede",
    "fda",
    "fenbp",
    "freezing",
    "from_estimator",
    "full_precision",
    "hardtanh_adaste",
    "irnet",
    "md_softmax",
    "md_softmax_s",
    "md_tanh",
    "md_tanh_s",
    "ovsw",
    "parq",
    "pmf",
    "progressive",
    "proxquant",
    "rbnn",
    "reste",
    "scaled_sign",
    "ste",
    "ste_clipped",
    "swish_sign",
    "tanh",
    "ternary_absmean",
    "ternary_fixed",
    "ternary_tanh",
    "ternary_twn",
    "vispa",
]
