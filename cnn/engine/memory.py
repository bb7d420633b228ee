"""A setting of the C library that makes steps faster; each program decides whether to use it."""

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # names and numbers of glibc's malloc.h


@cache
def keep_freed_memory() -> None:
    """Ask the C library to keep freed memory for the next step, instead of returning it to the system.

    Each step needs the same arrays as the one before. By default, glibc requests every large array from the
    system and returns it afterwards. The system clears the pages every time, which often takes longer than
    the computation on them. The setting holds for the whole process, so the program must choose it; no
    function of this library does. Other C libraries are not changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)  # allocate large arrays on the heap, too
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)  # never shrink the heap
        mallopt(_M_ARENA_MAX, 1)  # share one heap among all threads
