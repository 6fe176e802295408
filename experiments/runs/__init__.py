"""The files of a run, its processes, and the signals that stop it."""
