"""One experiment, one file. `NAME.py:smoke` is the same program in seconds."""
