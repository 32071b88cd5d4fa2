"""How glibc keeps the memory of many threads.

It gives a thread an arena of its own, up to eight for a core, and an arena keeps what was freed
in it: 32 threads that each once held a large answer hold on to it for good. With few arenas they
use the same memory one after the other.
"""

import ctypes

_M_ARENA_MAX = -8  # of malloc.h
_NUM_ARENAS = 2


def keep_few_arenas() -> bool:
    """Tell the allocator, before there are threads; say whether it took it (glibc alone does)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_ARENA_MAX, _NUM_ARENAS))
