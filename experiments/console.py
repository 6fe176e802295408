r"""Prints text unchanged, on every terminal. All output goes through this module.

Rich reads `[...]` in a string as a style, and printing a letter beyond ASCII to an
ASCII terminal ends a program with an error. Paths, names of layers and messages of
other packages contain both. So all consoles are made here: they read no markup, and a
letter that cannot be shown is written as an escape, `\xe9`.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

import rich.console
import rich.progress
import rich.table
import rich.text
from rich import cells

ESCAPES = "backslashreplace"
_BESIDE_BAR = 58  # columns of loss, accuracy, count and time
_NOTEBOOK = {"force_jupyter": False, "force_terminal": False, "width": 110}


class _Stream:
    """A stream that writes what it cannot show as escapes."""

    def __init__(self, stream: IO[str]):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes the text, with escapes for letters that cannot be shown."""
        return self._stream.write(shown(text, getattr(self._stream, "encoding", None)))


class _Console(rich.console.Console):
    """A console whose stream takes every text."""

    @property
    def file(self) -> IO[str]:
        """The stream that the console writes to."""
        file: Any = _Stream(super().file)
        return file

    @file.setter
    def file(self, new: IO[str]) -> None:
        self._file = new


def create(**options: Any) -> rich.console.Console:
    """Makes a console that reads no markup and colours no words by itself.

    In a notebook it prints plain lines, since a bar would need ipywidgets.

    Args:
        **options: Options of `rich.console.Console`: `stderr`, `quiet`, `file`, ...
    """
    options = {"markup": False, "highlight": False, "emoji": False, **options}
    console = _Console(**options)
    return _Console(**{**options, **_NOTEBOOK}) if console.is_jupyter else console


def program() -> rich.console.Console:
    """Makes the console for standard output, at the start of a program.

    Output without this console, such as tracebacks, then causes no error either.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ESCAPES)
    return create()


def say(console: rich.console.Console, text: str) -> None:
    """Prints a message unchanged; long lines are not broken."""
    _print(console, rich.text.Text(shown(text, console.encoding)))


def stream(console: rich.console.Console, text: str) -> None:
    """Prints a piece of a text that goes on in the same line."""
    console.print(rich.text.Text(shown(text, console.encoding)), soft_wrap=True, end="")


def say_error(console: rich.console.Console, error: BaseException | str) -> None:
    """Prints the message of an error after the word "error:"."""
    message = shown(str(error), console.encoding)
    _print(console, rich.text.Text.assemble(("error:", "bold red"), " ", message))


def shown(text: str, encoding: str | None) -> str:
    """The text, with escapes for letters that an encoding does not have.

    Args:
        text: Any text; it may contain undecodable bytes of a file name.
        encoding: Encoding of the terminal. Default: UTF-8.
    """
    encoding = encoding or "utf-8"
    return text.encode(encoding, ESCAPES).decode(encoding)


def fitted(console: rich.console.Console, parts: Sequence[str]) -> str:
    """Joins parts to a line: on a terminal only as many as fit; elsewhere all.

    Args:
        console: Console that will show the line.
        parts: Parts, the most important first; the first is always kept.

    Example:
        >>> narrow = create(width=20, force_terminal=True)
        >>> fitted(narrow, ["epoch 1/2", "loss 0.52", "train 98 %"])
        'epoch 1/2  loss 0.52'
    """
    line, *rest = parts
    for part in rest:
        longer = f"{line}  {part}"
        if console.is_terminal and len(longer) > console.width:
            break
        line = longer
    return line


def bar(console: rich.console.Console, unit: str = "") -> rich.progress.Progress:
    """Makes a progress bar: description, bar, count of total, and the time left.

    It is one line: the bar is as short as the console is narrow, and a description that
    is too long ends in an ellipsis.

    Args:
        console: Console that shows the bar.
        unit: Name of what is counted.
    """
    return rich.progress.Progress(
        rich.progress.TextColumn(
            "{task.description}",
            markup=False,
            table_column=rich.table.Column(no_wrap=True, overflow="ellipsis"),
        ),
        rich.progress.BarColumn(max(4, min(40, console.width - _BESIDE_BAR))),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn(f"{unit}, left" if unit else "left", markup=False),
        rich.progress.TimeRemainingColumn(),
        console=console,
    )


def table(
    console: rich.console.Console, head: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    """Prints a table of names and numbers; no cell is cut or broken, on any console."""
    lines = [[shown(cell, console.encoding) for cell in row] for row in (head, *rows)]
    widths = [max(map(cells.cell_len, column)) for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        padded = [
            " " * (width - cells.cell_len(cell)) + cell
            for cell, width in zip(line, widths, strict=True)
        ]
        padded[0] = f"{line[0]}{' ' * (widths[0] - cells.cell_len(line[0]))}"
        text = rich.text.Text("  ".join(padded).rstrip())
        text.stylize("" if number else "bold")
        _print(console, text)


def _print(console: rich.console.Console, text: rich.text.Text) -> None:
    console.print(text, soft_wrap=True)
