"""Loss curves of several runs in one picture.

python -m experiments.studies.curves --out=curves.png NAME=WORKDIR NAME=WORKDIR ...
"""

import pathlib
from collections.abc import Mapping, Sequence

from experiments import command_line, errors
from experiments.report import figures
from experiments.runs import records

NAMES = ("ink", "vermillion", "blue", "green", "purple")
"""Colours of the runs, in their order."""


def draw(workdirs: Mapping[str, str | pathlib.Path], out: str | pathlib.Path) -> None:
    """Draws training and validation loss over epochs.

    Args:
        workdirs: Folders of runs, by name in the legend.
        out: The PNG file to write.
    """
    figure, axes = figures.panels(1, 2, (10, 4), sharey=True)
    titles = {
        "train": "Training (mean of the epoch, weights of training)",
        "validation": "Validation (deployed weights)",
    }
    for axis, (split, title) in zip(axes, titles.items(), strict=True):
        for (name, workdir), colour in zip(workdirs.items(), NAMES, strict=False):
            points = records.read(workdir).curve("loss", split)
            style = {"color": figures.COLOURS[colour], "marker": "o", "markersize": 3}
            axis.plot(*points, label=name, **style)
        axis.set(title=title, xlabel="epoch")
    axes[0].set_ylabel("cross-entropy (nats)")
    axes[0].legend()
    figures.save(figure, out)


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the runs given on the command line."""
    parser = command_line.Parser(
        "experiments.studies.curves",
        "Draws loss curves of several runs in one picture.",
    )
    parser.add_argument("--out", required=True, help="PNG to write")
    parser.add_argument("runs", nargs="+", metavar="NAME=WORKDIR")
    arguments = parser.parse_args(argv)
    named = [run.partition("=") for run in arguments.runs]
    unnamed = [name for name, found, _ in named if not found]
    if unnamed:
        parser.error(f"give every run a name, NAME=WORKDIR; got {unnamed[0]!r}")
    try:
        draw({name: workdir for name, _, workdir in named}, arguments.out)
    except errors.RunError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
