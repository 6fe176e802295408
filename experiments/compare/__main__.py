"""Runs the comparison that the command line asks for."""

from experiments import command_line, compare
from experiments.compare import command

if __name__ == "__main__":
    command_line.run(command.main, compare.__doc__)
