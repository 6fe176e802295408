"""Loss curves of several runs in one picture.

python -m experiments.studies.curves --out=curves.png NAME=WORKDIR NAME=WORKDIR ...
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib import ticker

from experiments import errors
from experiments.report import charts
from experiments.runs import records

COLOURS = tuple(
    charts.COLOURS[name] for name in ("ink", "vermillion", "blue", "green", "purple")
)


def draw(workdirs: Mapping[str, str | pathlib.Path], out: str | pathlib.Path) -> None:
    """Draws training and validation loss over epochs.

    Args:
        workdirs: Folders of runs by the name that they get in the legend.
        out: PNG to write.
    """
    figure, axes = plt.subplots(
        1, 2, figsize=(10, 4), layout="constrained", sharey=True
    )
    titles = {
        "train": "Training (mean of the epoch, weights of training)",
        "validation": "Validation (deployed weights)",
    }
    for axis, (split, title) in zip(axes, titles.items(), strict=True):
        for (name, workdir), colour in zip(workdirs.items(), COLOURS, strict=False):
            epochs, losses = records.read(workdir).curve("loss", split)
            axis.plot(epochs, losses, color=colour, label=name, marker="o", ms=3)
        axis.set(title=title, xlabel="epoch")
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes[0].set_ylabel("cross-entropy (nats)")
    axes[0].legend()
    figure.savefig(out, dpi=120)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the runs that are named."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.curves",
        description="Draws loss curves of several runs in one picture.",
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
