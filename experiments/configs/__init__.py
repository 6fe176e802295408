"""One file for each experiment. `NAME.py:smoke` runs the same program in seconds."""
