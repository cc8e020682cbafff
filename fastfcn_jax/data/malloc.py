"""Lets the process keep what it frees, so that arrays of megabytes need no new pages each time."""

import ctypes
import functools

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_MAPPED_FROM = 32 << 20  # glibc takes no larger one
_KEPT = 64 << 20


@functools.cache
def keep_freed() -> None:
    """Tells glibc, once a process; other allocators are left as they are.

    glibc gives freed memory back to the system, and each page of the next array costs a fault
    then: a quarter of the time of a sample that is read from the decoded cache.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
