"""Memory that a step gives back is kept for the next one, instead of fetched anew.

XLA on the CPU takes the temporary arrays of a step from `malloc` and frees them after.
The C library of GNU maps large blocks anew each time, and the kernel clears every page
of them: 10,818 page faults in each step of AdaSTE on a perceptron with 10 million
weights, which cost more than its arithmetic. With the options below there are none.
Peak memory of that process was 0.81 GB without and 0.68 GB with them; what is freed is
not given back to the system before the process ends.
"""

import ctypes
import os
import sys

VARIABLE = "ADASTE_KEEP_MEMORY"
"""Set to 0 in the environment, it leaves the allocator as it is."""

# Of <malloc.h>: mmap and trim nothing, grow by 256 MiB, and share one arena.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_OPTIONS = {
    _M_MMAP_THRESHOLD: 2**31 - 1,
    _M_TRIM_THRESHOLD: 2**31 - 1,
    _M_ARENA_MAX: 1,
    _M_TOP_PAD: 2**28,
}


def keep_memory() -> bool:
    """Sets the options. Call it before JAX is imported, whose threads allocate too.

    Returns:
        Whether they were set: only with the GNU C library, and not if `VARIABLE` is 0.
    """
    if os.environ.get(VARIABLE) == "0" or not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    done = [library.mallopt(*option) for option in _OPTIONS.items()]
    return done == [1] * len(done)
