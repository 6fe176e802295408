"""Uses one-bit files: the description of the network in a file, and the network."""
