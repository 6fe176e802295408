"""Writes the page."""

import os
import pathlib
from collections.abc import Sequence

from experiments import command_line, errors
from experiments import console as consoles
from experiments.report.html import page
from experiments.runs import records, small_files


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page."""
    parser = command_line.Parser(
        "experiments.report", "Draws a run, or several over each other, on one page."
    )
    parser.add_argument(
        "--workdir", required=True, nargs="+", help="folders of runs; or A,B,C"
    )
    parser.add_argument(
        "--out", help="file to write; default with one workdir: report.html in it"
    )
    console = consoles.program()
    arguments = parser.parse_args(argv)
    folders = [
        folder
        for given in arguments.workdir
        for folder in ([given] if os.path.exists(given) else given.split(","))
        if folder
    ]
    with command_line.refusals(console):
        if arguments.out is None and len(folders) > 1:
            raise errors.RunError("give --out=FILE for the page of several runs.")
        out = pathlib.Path(arguments.out or pathlib.Path(folders[0]) / "report.html")
        text = page([records.read(folder) for folder in folders])
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            small_files.write(out, text)
        except OSError as error:
            raise errors.RunError(f"cannot write {out}: {error}.") from error
    consoles.say(console, f"wrote {out}")


if __name__ == "__main__":
    main()
