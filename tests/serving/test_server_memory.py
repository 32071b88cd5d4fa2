"""Memory that many threads used is used again by others; what stays is not looked at again."""

import ctypes
import subprocess
import sys

import pytest

HAS_GLIBC = hasattr(ctypes.CDLL(None), "malloc_info")
# Threads that are all there at once each want an arena of their own.
THREADS = """
import ctypes, sys, threading
from mmsearch.serving.memory import keep_little
if sys.argv[1] == "few":
    assert keep_little()
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


@pytest.mark.skipif(not HAS_GLIBC, reason="glibc alone can be told")
def test_what_is_large_goes_back_to_the_system_whatever_lies_behind_it() -> None:
    freed = """
import ctypes, sys
from mmsearch.serving.memory import keep_little
if sys.argv[1] == "little":
    assert keep_little()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
libc.free(libc.malloc(30 * 2**20))  # what is as large is kept from now on, if nobody says more
before = resident()
large = [libc.malloc(8 * 2**20) for _ in range(8)]
for one in large:
    ctypes.memset(one, 1, 8 * 2**20)
behind = libc.malloc(100_000)
for one in large:
    libc.free(one)
print((resident() - before) // 2**20)
"""

    def kept_mib(asked: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", freed, asked], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert kept_mib("little") < 8
    assert kept_mib("much") > 48
