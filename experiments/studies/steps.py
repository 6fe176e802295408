"""Pictures of steps: what a transformation makes of gradients and latents.

`gallery.py` draws them.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaste_jax import estimators, optim
from experiments.report import figures

Frame = Callable[[str, pathlib.Path], Any]
"""From a name and the path of a PNG to a context with two axes."""


def draw_ovsw(frame: Frame, path: pathlib.Path) -> None:
    """Draws the norm that `optim.scale_by_ovsw` gives a gradient, and its decay.

    Args:
        frame: Context of the picture.
        path: PNG to write.
    """
    sizes = jnp.logspace(-4, 0, 201)  # of gradients, each of a channel of its own
    latents = jnp.linspace(-1.0, 1.0, 201)
    with frame("ovsw", path) as (left, right):
        for delta, colour in zip((0.01, 0.04), figures.shades(2), strict=True):
            tx, ones = optim.scale_by_ovsw(delta, decay=0.0), jnp.ones((1, 201))
            scaled, _ = tx.update(sizes[None], tx.init(ones), ones)
            left.loglog(sizes, scaled[0], color=colour, label=f"delta = {delta:g}")
        left.set(title="norm after scaling, |t| = 1", xlabel="|g| of a channel")
        tx = optim.scale_by_ovsw(0.0)
        state = tx.init(latents)
        for name, flips in (("silent", 0.0), ("flips", 1.0)):
            rates = jnp.full_like(latents, flips)
            none = jnp.zeros_like(latents)
            pull, _ = tx.update(none, state._replace(flips=rates), latents)
            right.plot(latents, pull, label=name)
        right.set(title="decay, which is added to g", xlabel="latent")


def draw_freezing(frame: Frame, path: pathlib.Path) -> None:
    """Draws latents that oscillate until `optim.freeze_oscillations` holds them.

    Args:
        frame: Context of the picture.
        path: PNG to write.
    """
    number, threshold = 400, 0.1
    turns = (8, 20)  # steps between two flips
    tx = optim.freeze_oscillations(threshold, momentum=0.02)
    count = jnp.arange(1, number + 1)
    rounds = [0.4 + jnp.cos(jnp.pi * count / turn) for turn in turns]
    wanted = jnp.stack(rounds, axis=-1)

    def step(carry: Any, to: jax.Array) -> Any:
        latent, state = carry
        update, state = tx.update(to - latent, state, latent)
        return (latent + update, state), (latent + update, state.frequency)

    start = jnp.full(len(turns), 1.4)
    _, (path_of, frequency) = jax.lax.scan(step, (start, tx.init(start)), wanted)
    with frame("freezing", path) as (left, right):
        for index, turn in enumerate(turns):
            label = f"a flip in {turn} steps"
            left.plot(path_of[:, index], label=label)
            right.plot(frequency[:, index], label=label)
        right.axhline(threshold, color="grey", linestyle="--", label="threshold")
        left.set(title="latent", xlabel="step")
        right.set(title="frequency f of oscillations", xlabel="step")


def draw_cage(frame: Frame, path: pathlib.Path) -> None:
    """Draws what `optim.apply_cage` adds to a step, and where latents are led.

    Args:
        frame: Context of the picture.
        path: PNG to write.
    """
    latents = jnp.linspace(-2.0, 2.0, 401)
    signs = functools.partial(estimators.blend, share=1.0, axis=None)
    none = jnp.zeros_like(latents)
    with frame("cage", path) as (left, right):
        strengths = (0.01, 0.03, 0.1)
        for strength, colour in zip(strengths, figures.shades(3), strict=True):
            tx = optim.apply_cage(signs, strength)
            label = f"s = {strength:g}"
            pull, state = tx.update(none, tx.init(latents), latents)
            left.plot(latents, pull, color=colour, label=label)
            moved = latents
            for _ in range(30):
                update, state = tx.update(none, state, moved)
                moved = moved + update
            right.plot(latents, np.asarray(moved), color=colour, label=label)
        left.set(title="pull of a step", xlabel="latent")
        right.set(title="latent after 30 pulls", xlabel="latent")
