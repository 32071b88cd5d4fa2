"""Memory that many threads used is used again by others; what stays is not looked at again."""

import ctypes
import subprocess
import sys

import pytest

HAS_GLIBC = hasattr(ctypes.CDLL(None), "malloc_info")
# Threads that are all there at once each want an arena of their own.
THREADS = """
import ctypes, sys, threading
from mmsearch.serving.memory import keep_few_arenas
if sys.argv[1] == "few":
    assert keep_few_arenas()
libc = ctypes.CDLL(None)
together = threading.Barrier(9)
def hold():
    libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=hold) for _ in range(8)]
for thread in threads:
    thread.start()
together.wait()
libc.fopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


def num_arenas(asked: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", THREADS, asked], capture_output=True, text=True, check=True
    )
    return done.stdout.count("<heap nr=")


@pytest.mark.skipif(not HAS_GLIBC, reason="glibc alone has arenas")
def test_threads_share_two_arenas_where_else_each_has_its_own() -> None:
    assert num_arenas("few") <= 2
    assert num_arenas("many") > 2


def test_what_was_loaded_is_not_looked_at_by_the_collector() -> None:
    loaded = """
import gc, http.client, typing
from mmsearch.serving.memory import keep_what_is_there
before = len(gc.get_objects())
keep_what_is_there()
print(before, len(gc.get_objects()))
"""
    done = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )

    before, after = map(int, done.stdout.split())

    assert after < before / 50
