"""Pictures of the estimators, drawn from the code itself.

    python -m experiments.studies.gallery --out=docs/gallery

For an estimator, the left side shows the weight as a function of the latent. The right
side shows the result of the backward rule for gradients of +1 and -1. Colours go from
the start of annealing to its end. Estimators of a whole tensor get the latents of the
axis as one group; for random estimators the mean of many draws is shown. `bop` and
`proxquant` have no estimator, so their step is shown; those of other transformations
are in `steps.py`. The picture of `order.py` is drawn too.
"""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from adaste_jax import estimators, optim
from experiments import console as consoles
from experiments.report import figures
from experiments.studies import order, steps

DRAWS = 4000


@dataclasses.dataclass(frozen=True)
class Picture:
    """The picture of one estimator.

    Attributes:
        estimator: The estimator, a function of a latent and of `name` if it is given.
        name: Name of the hyperparameter that changes in training.
        values: Values of the hyperparameter, from the start to the end.
        random: Whether the estimator takes a key.
        lift: For weights with several latents, makes them from the latent on the axis.
        extent: Largest magnitude of the latents shown.
    """

    estimator: Callable[..., jax.Array]
    name: str = ""
    values: Sequence[float] = (0.0,)
    random: bool = False
    lift: Callable[[jax.Array], jax.Array] | None = None
    extent: float = 2.0


def _opposite(latent: jax.Array) -> jax.Array:
    """Two latents with this difference."""
    return jnp.stack([-latent / 2, latent / 2], axis=-1)


def _with_factors(latent: jax.Array) -> jax.Array:
    """A mean, and factors of norm 1."""
    return jnp.stack([latent, *[jnp.full_like(latent, 0.5)] * 4], axis=-1)


_MUS = (0.01, 0.3, 3.0, 100.0)
_BETAS = (1.0, 3.0, 10.0)

GALLERY: dict[str, Picture] = {
    "adaste": Picture(estimators.adaste, "mu", _MUS),
    "adaste_paper": Picture(estimators.adaste_paper, "mu", _MUS),
    "adaste_supremum": Picture(
        functools.partial(estimators.adaste_paper, rule="supremum", cap=2.0),
        "mu",
        (0.01, 0.3, 1.0, 100.0),
        extent=4.0,
    ),
    "adaste_released": Picture(
        functools.partial(estimators.adaste_paper, rule="released"), "mu", _MUS
    ),
    "approx_sign": Picture(estimators.approx_sign),
    "bayesbinn_sample": Picture(
        estimators.bayesbinn_sample, "temperature", (1.0, 0.3, 1e-10), random=True
    ),
    "bernoulli_hard": Picture(estimators.bernoulli_hard, random=True),
    "bernoulli_identity": Picture(estimators.bernoulli_identity, random=True),
    "bernoulli_pwgf": Picture(estimators.bernoulli_pwgf, random=True, extent=6.0),
    "biper": Picture(
        functools.partial(estimators.biper, omega=5.0), "stage", (1.0, 2.0), extent=1.0
    ),
    "blend": Picture(
        functools.partial(estimators.blend, axis=None), "share", (0.0, 0.3, 0.7, 1.0)
    ),
    "ede": Picture(estimators.ede, "sharpness", (0.1, 1.0, 3.0, 10.0)),
    "fda": Picture(estimators.fda, "order", (0, 1, 4)),
    "fenbp": Picture(estimators.fenbp, "beta", (0.1, 2.0, 10.0), extent=4.0),
    "hardtanh_adaste": Picture(estimators.hardtanh_adaste, extent=4.0),
    "irnet_weight": Picture(
        functools.partial(estimators.irnet_weight, axis=None),
        "sharpness",
        (0.1, 1.0, 10.0),
    ),
    "md_softmax_s": Picture(estimators.md_softmax_s, "beta", _BETAS, lift=_opposite),
    "md_tanh_s": Picture(estimators.md_tanh_s, "beta", _BETAS),
    "parq": Picture(
        functools.partial(estimators.parq, axis=None),
        "inverse_slope",
        (1.0, 0.5, 0.1, 0.0),
    ),
    "pmf": Picture(estimators.pmf, "beta", _BETAS, lift=_opposite),
    "progressive": Picture(
        functools.partial(estimators.progressive, axis=None),
        "sharpness",
        (0.0, 1.0, 5.0, 100.0),
    ),
    "rbnn": Picture(estimators.rbnn, "sharpness", (0.1, 1.0, 3.0)),
    "reste": Picture(estimators.reste, "exponent", (1.0, 2.0, 3.0)),
    "scaled_sign": Picture(functools.partial(estimators.scaled_sign, axis=None)),
    "ste_clipped": Picture(estimators.ste_clipped),
    "ste": Picture(estimators.ste),
    "swish_sign": Picture(estimators.swish_sign),
    "tanh": Picture(estimators.tanh, "beta", _BETAS),
    "ternary_absmean": Picture(estimators.ternary_absmean),
    "ternary_fixed": Picture(estimators.ternary_fixed, extent=0.3),
    "ternary_tanh": Picture(estimators.ternary_tanh, "beta", (1.0, 3.0, 10.0, 30.0)),
    "ternary_twn": Picture(estimators.ternary_twn),
    "vispa_sample": Picture(
        estimators.vispa_sample, random=True, lift=_with_factors, extent=3.0
    ),
}


def curves(picture: Picture, value: float) -> dict[str, np.ndarray]:
    """Weights, and the backward rule, over latents from -extent to extent.

    Args:
        picture: The picture to compute.
        value: Value of its hyperparameter.

    Returns:
        `latent`, `weight`, and `up` and `down`: the results of the rule for g = +1 and
        g = -1, for all weights at once. For pairs of latents, `latent` is their
        difference.
    """
    latent = jnp.linspace(-picture.extent, picture.extent, 401)
    hyper = {picture.name: value} if picture.name else {}

    def weight(latent: jax.Array, key: Any) -> jax.Array:
        keyed = {"key": key} if picture.random else {}
        if picture.lift is not None:
            latent = picture.lift(latent)
        return picture.estimator(latent, **hyper, **keyed)

    keys = jax.random.split(jax.random.key(0), DRAWS if picture.random else 1)

    def at(key: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        found, pull = jax.vjp(lambda latent: weight(latent, key), latent)
        (up,), (down,) = pull(jnp.ones_like(found)), pull(-jnp.ones_like(found))
        return found, up, down

    found = jax.tree.map(lambda x: jnp.mean(x, axis=0), jax.jit(jax.vmap(at))(keys))
    names = ("weight", "up", "down")
    arrays = {name: np.asarray(x) for name, x in zip(names, found, strict=True)}
    return {"latent": np.asarray(latent), **arrays}


@contextlib.contextmanager
def _picture(name: str, path: pathlib.Path) -> Iterator[tuple[Any, Any]]:
    """Context with two axes, which are finished and written as a PNG at its end."""
    figure, axes = figures.panels(1, 2, (9, 3.2))
    yield axes
    for axis in axes:
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize=8)
        figures.cross(axis)
    figure.suptitle(name)
    figures.save(figure, path, dpi=90)


def draw(name: str, path: pathlib.Path) -> None:
    """Draws one estimator of `GALLERY`.

    Args:
        name: Name of the estimator.
        path: PNG to write.
    """
    picture = GALLERY[name]
    mean = ", mean of draws" if picture.random else ""
    latent = "latent"
    if picture.lift is not None:
        latent = "difference of the latents" if picture.lift is _opposite else "mean"
    with _picture(name, path) as (left, right):
        colours = figures.shades(len(picture.values))
        for value, colour in zip(picture.values, colours, strict=True):
            found = curves(picture, value)
            label = f"{picture.name} = {value:g}" if picture.name else None
            left.plot(found["latent"], found["weight"], color=colour, label=label)
            right.plot(found["latent"], found["up"], color=colour)
            right.plot(found["latent"], -found["down"], color=colour, linestyle="--")
        left.set(title=f"weight{mean}", xlabel=latent)
        right.set(title="h/g of the backward rule", xlabel=latent)
        right.plot([], [], color="grey", label="g = +1")
        right.plot([], [], color="grey", linestyle="--", label="g = -1")


def draw_bop(path: pathlib.Path) -> None:
    """Draws the step of `optim.bop` over the gradient, for both weights.

    Args:
        path: PNG to write.
    """
    grads = jnp.linspace(-2.0, 2.0, 401)
    with _picture("bop", path) as axes:
        for axis, sign in zip(axes, (1.0, -1.0), strict=True):
            weights = jnp.full_like(grads, sign)
            for tau, style in ((0.3, "-"), (1.0, "--")):
                tx = optim.bop(1.0, tau=tau)  # of one step: the average is the gradient
                update, _ = tx.update(grads, tx.init(weights), weights)
                axis.plot(grads, weights + update, style, label=f"tau = {tau:g}")
            axis.set(title=f"from w = {sign:+g} to", xlabel="average gradient m")


def draw_proxquant(path: pathlib.Path) -> None:
    """Draws `optim.prox` in two of its forms.

    Args:
        path: PNG to write.
    """
    latent = jnp.linspace(-2.0, 2.0, 401)
    strengths = (0.1, 0.5, 2.0)
    forms: tuple[Literal["l1", "squared"], ...] = ("l1", "squared")
    with _picture("proxquant", path) as axes:
        for axis, form in zip(axes, forms, strict=True):
            for strength, colour in zip(strengths, figures.shades(3), strict=True):
                mapped = optim.prox(latent, strength, form=form)
                label = f"strength = {strength:g}"
                axis.plot(latent, mapped, color=colour, label=label)
            axis.set(title=f"prox, {form}", xlabel="latent")


DRAWN: dict[str, Callable[[pathlib.Path], Any]] = {
    **{name: functools.partial(draw, name) for name in GALLERY},
    "bop": draw_bop,
    "order": order.draw,
    "cage": functools.partial(steps.draw_cage, _picture),
    "freezing": functools.partial(steps.draw_freezing, _picture),
    "ovsw": functools.partial(steps.draw_ovsw, _picture),
    "proxquant": draw_proxquant,
}
"""All pictures by name; each function takes the path of the PNG file."""

_OUT = flags.DEFINE_string("out", "docs/gallery", "Folder of the pictures.")


def main(argv: list[str]) -> None:
    """Draws all of them."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    console = consoles.program()
    folder = pathlib.Path(_OUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    for name, drawn in DRAWN.items():
        drawn(folder / f"{name}.png")
        consoles.say(console, str(folder / f"{name}.png"))


if __name__ == "__main__":
    app.run(main)
