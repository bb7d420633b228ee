"""A setting of the C library that makes steps faster; whoever runs the process decides on it."""

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # names and numbers of glibc's malloc.h


@cache
def keep_freed_memory() -> None:
    """Ask the C library to keep freed memory for the next step, instead of giving it back to the system.

    A step needs the same arrays as the one before. By default glibc takes each large one from the system and
    gives it back, and the system clears its pages every time, which takes longer than many a computation on
    them. It holds for the whole process, so a program chooses it, and no function of this library does; other
    C libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)  # large arrays come from the heap, too,
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)  # which never shrinks,
        mallopt(_M_ARENA_MAX, 1)  # and of which all threads share one
