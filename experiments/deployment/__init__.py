"""One-bit files in use: what a file says of its network, and the network itself."""
