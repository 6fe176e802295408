"""The errors that can end a run, and the exit status of each."""

FAILED = 1
STOPPED = 75
"""EX_TEMPFAIL of sysexits.h: try again later."""


class RunError(Exception):
    """A run cannot start or continue; the message names the cause and what to do.

    `main` prints it without a traceback and exits with status 1. Nothing in the workdir
    is lost.
    """


class StoppedError(Exception):
    """A run was asked to stop, by SIGTERM or SIGINT, and has saved its state.

    `main` exits with status 75; the same command continues from there.
    """
