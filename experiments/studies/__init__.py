"""Studies: programs that measure the answer to a question about the library."""
