"""The one kind of error that is the user's to mend."""


class RunError(Exception):
    """A run cannot start or go on; the message names the cause and the way out.

    `main` prints it without a traceback and exits with status 1. Nothing that stands
    in the workdir is lost.
    """
