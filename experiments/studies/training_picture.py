"""The moving picture of the README: what training with one-bit weights looks like.

    python -m experiments.studies.training_picture --out=docs/training.svg

It trains the first program of the README, with 1,500 steps, and the same network in
full precision, and shows some of the weights over time, the test accuracy of both, and
the bytes of both files. The picture is one SVG file without scripts. It does not move
where the reader asked for less motion, and is dark where the reader asked for dark
pages.
"""

import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import linen as nn

from adaste_jax import datasets, export, methods, train
from experiments import command_line
from experiments.runs import small_files

STEPS = 1500
EVERY = 50
SHOWN = 60
"""Number of weights that are drawn."""


class Course(NamedTuple):
    """What is recorded of a run, every `EVERY` steps from 0 on.

    Attributes:
        weights: Some weights of the first layer as the network sees them, [times,
            `SHOWN`].
        accuracy: Test accuracy of the network that would be shipped, in %, [times].
        size: Bytes of the file after the last step.
    """

    weights: np.ndarray
    accuracy: list[float]
    size: int


def record(method: methods.Method, steps: int = STEPS, every: int = EVERY) -> Course:
    """Trains the README's network on the digits.

    Args:
        method: The training method.
        steps: Number of steps.
        every: Steps between two records.
    """
    (images, labels), (test_images, test_labels) = [
        (x.reshape(-1, 64) / 16, y) for x, y in datasets.digits().values()
    ]
    network = nn.Sequential(
        [nn.Dense(256), nn.LayerNorm(), nn.relu, nn.Dense(10), nn.LayerNorm()]
    )
    state = train.init(network, method, images)
    step = train.make_train_step(network, method, report="short")
    size = state.params["layers_0"]["kernel"].size
    chosen = np.random.default_rng(0).choice(size, SHOWN, replace=False)

    @jax.jit
    def look(params: Any, number: Any) -> tuple[jax.Array, jax.Array]:
        weights = method.weights(params, number)["layers_0"]["kernel"]
        logits: Any = network.apply({"params": method.deploy(params)}, test_images)
        right = jnp.argmax(logits, axis=-1) == jnp.asarray(test_labels)
        return weights.reshape(-1)[chosen], 100 * jnp.mean(right)

    found = [look(state.params, state.step)]
    batches = datasets.batches(images, labels, batch_size=64, steps=steps)
    for number, batch in enumerate(batches, 1):
        state, _ = step(state, *batch)
        if number % every == 0:
            found.append(look(state.params, state.step))
    weights, accuracy = zip(*found, strict=True)
    return Course(
        np.stack(weights), [float(a) for a in accuracy], _bytes(method, state.params)
    )


def _bytes(method: methods.Method, params: Any) -> int:
    """The size of a file of the network, by `export.save` if it has binary weights."""
    if not any(jax.tree.leaves(method.where(params))):
        leaves = jax.tree_util.tree_leaves_with_path(params)
        named = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
        return len(safetensors.numpy.save(named))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "network.safetensors")
        export.save(path, params, method=method)
        return path.stat().st_size


WIDTH, HEIGHT = 720, 300
TOP, BOTTOM = 40, 230
LEFT = (48, 340)
RIGHT = (404, 700)
SECONDS = 9
STYLE = """
svg{--paper:#fff;--ink:#1b1b1b;--muted:#5a5a5a;--grid:#ddd;--up:#0072b2;--down:#c25400}
@media (prefers-color-scheme:dark){svg{--paper:#15181c;--ink:#e8e8e8;--muted:#a8a8a8;
--grid:#3a3f46;--up:#56b4e9;--down:#f0803c}}
text{font:12px system-ui,sans-serif;fill:var(--muted)}
.title{font-size:14px;font-weight:600;fill:var(--ink)}
path{fill:none;stroke-linejoin:round}
.up{stroke:var(--up)}.down{stroke:var(--down)}.float{stroke:var(--muted)}
.thin{stroke-width:.8;opacity:.6}.thick{stroke-width:2.2}
.grid{stroke:var(--grid)}
.moving{clip-path:url(#shown)}
.bit-text{fill:var(--up);font-weight:600}
@media (prefers-reduced-motion:reduce){.moving{clip-path:none}}
"""


def draw(bits: Course, floats: Course, *, steps: int = STEPS) -> str:
    """The picture, an SVG file.

    Args:
        bits: The run with one-bit weights.
        floats: The run in full precision.
        steps: Number of steps of both.
    """
    most = 1.05 * float(np.abs(bits.weights).max())
    lowest = 10 * int(min(*bits.accuracy[1:], *floats.accuracy[1:]) // 10)
    weight = _scale((-most, most), (BOTTOM, TOP))
    accuracy = _scale((lowest, 100), (BOTTOM, TOP))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'role="img" aria-labelledby="name">',
        f'<title id="name">{SHOWN} weights of a network become +1 or -1 within {steps} '
        f"steps of training. Test accuracy {bits.accuracy[-1]:.1f} %, in full "
        f"precision {floats.accuracy[-1]:.1f} %. File of {bits.size:,} bytes, in full "
        f"precision {floats.size:,}.</title>",
        f"<style>{STYLE}</style>",
        '<clipPath id="shown">',
        *(_curtain(*edges) for edges in (LEFT, RIGHT)),
        "</clipPath>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="var(--paper)"/>',
        _text(LEFT[0], 24, f"{SHOWN} weights of the first layer", "title"),
        _text(RIGHT[0], 24, "test accuracy, %", "title"),
        *_axes(LEFT, steps, weight, (-1, 0, 1)),
        *_axes(RIGHT, steps, accuracy, range(lowest, 101, 10 if lowest >= 50 else 20)),
        '<g class="moving">',
        *(
            _curve(LEFT, [weight(w) for w in line], f"thin {_side(line)}")
            for line in bits.weights.T
        ),
        *(
            # The network before the first step guesses.
            _curve(RIGHT, [min(accuracy(a), BOTTOM) for a in run.accuracy], name)
            for name, run in (("thick float", floats), ("thick up", bits))
        ),
        "</g>",
        *(
            _text(RIGHT[1], BOTTOM - up, f"{text} {run.accuracy[-1]:.1f}", name, "end")
            for up, text, run, name in (
                (30, "one bit a weight", bits, "bit-text"),
                (12, "float", floats, ""),
            )
        ),
        *_sizes(bits.size, floats.size),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _scale(
    domain: tuple[float, float], place: tuple[float, float]
) -> Callable[[float], float]:
    ratio = (place[1] - place[0]) / (domain[1] - domain[0])
    return lambda value: place[0] + (float(value) - domain[0]) * ratio


def _side(line: np.ndarray) -> str:
    return "up" if line[-1] > 0 else "down"


def _curve(edges: tuple[int, int], heights: Sequence[float], name: str) -> str:
    xs = np.linspace(*edges, len(heights))
    points = " ".join(f"{x:.0f} {y:.1f}" for x, y in zip(xs, heights, strict=True))
    return f'<path class="{name}" d="M{points}"/>'


def _curtain(start: int, end: int) -> str:
    """Part of the clip path: it opens from the left, stays open, and begins again."""
    width = end - start + 4
    return (
        f'<rect x="{start - 2}" y="0" width="{width}" height="{HEIGHT}">'
        f'<animate attributeName="width" dur="{SECONDS}s" repeatCount="indefinite" '
        f'keyTimes="0;.65;1" values="2;{width};{width}"/></rect>'
    )


def _text(x: float, y: float, text: str, name: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" class="{name}" text-anchor="{anchor}">{text}</text>'
    )


def _axes(
    edges: tuple[int, int],
    steps: int,
    height: Callable[[float], float],
    marks: Sequence[int],
) -> list[str]:
    parts = []
    for mark in marks:
        y = height(mark)
        parts.append(f'<path class="grid" d="M{edges[0]} {y:.1f}H{edges[1]}"/>')
        sign = "\N{MINUS SIGN}" if mark < 0 else ""
        parts.append(_text(edges[0] - 8, y + 4, f"{sign}{abs(mark)}", anchor="end"))
    ends = ((edges[0], "step 0", "start"), (edges[1], f"{steps:,}", "end"))
    parts += [_text(x, BOTTOM + 18, text, anchor=anchor) for x, text, anchor in ends]
    return parts


def _sizes(bits: int, floats: int) -> list[str]:
    """Two bars, as long as the files."""
    width = 560
    parts = []
    for y, size, colour in ((264, bits, "up"), (281, floats, "muted")):
        length = width * size / floats
        parts.append(
            f'<rect x="{LEFT[0]}" y="{y}" width="{length:.1f}" height="9" rx="2" '
            f'fill="var(--{colour})"/>'
        )
        parts.append(_text(LEFT[0] + length + 8, y + 9, f"{size:,} bytes"))
    return parts


def main(argv: Sequence[str] | None = None) -> None:
    """Trains both networks and writes the picture."""
    parser = command_line.Parser(
        "experiments.studies.training_picture",
        "Draws weights that become +1 and -1, accuracy, and bytes.",
    )
    parser.add_argument("--out", default="docs/training.svg", help="SVG to write")
    arguments = parser.parse_args(argv)
    courses = [record(kind(STEPS)) for kind in (methods.adaste, methods.full_precision)]
    small_files.write(arguments.out, draw(courses[0], courses[1]))


if __name__ == "__main__":
    main()
