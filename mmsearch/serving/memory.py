"""What a process that serves asks of the allocator and of the collector of garbage.

glibc gives a thread an arena of its own, up to eight for a core, and an arena keeps what was
freed in it: 32 threads that each once held a large answer hold on to it for good. With few arenas
they use the same memory one after the other. And a block that is large goes back to the system
once it is free: pictures come and go, and what lies between them would keep all of it.

Python looks at all objects there are once enough of them are new. The 300,000 of the libraries and
of the model never go, and to look at them holds up every request for a tenth of a second.
"""

import ctypes
import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of malloc.h
_NUM_ARENAS = 2
_LARGE_BYTES = 2 * 2**20  # half of it saves 5 MiB more, and costs a twentieth of the speed


def keep_little() -> bool:
    """Tell the allocator, before there are threads; say whether it took it (glibc alone does)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(
        (
            mallopt(_M_ARENA_MAX, _NUM_ARENAS),
            mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES),
            mallopt(_M_TRIM_THRESHOLD, 4 * _LARGE_BYTES),
        )
    )


def keep_what_is_there() -> None:
    """Let the collector look no more at what there is by now, once all is loaded."""
    gc.collect()
    gc.freeze()
