"""What a process that serves asks of the allocator and of the collector of garbage.

glibc gives a thread an arena of its own, up to eight for a core, and an arena keeps what was
freed in it: 32 threads that each once held a large answer hold on to it for good. With few arenas
they use the same memory one after the other.

Python looks at all objects there are once enough of them are new. The 300,000 of the libraries and
of the model never go, and to look at them holds up every request for a tenth of a second.
"""

import ctypes
import gc

_M_ARENA_MAX = -8  # of malloc.h
_NUM_ARENAS = 2


def keep_few_arenas() -> bool:
    """Tell the allocator, before there are threads; say whether it took it (glibc alone does)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_ARENA_MAX, _NUM_ARENAS))


def keep_what_is_there() -> None:
    """Let the collector look no more at what there is by now, once all is loaded."""
    gc.collect()
    gc.freeze()
