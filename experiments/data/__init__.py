"""Data sets: found, read, split, decoded and fed to the steps."""
