"""Questions that were put to the library, as programs that answer them again."""
