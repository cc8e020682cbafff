"""Keeps freed memory in the process, so that large arrays do not need new pages every time."""

import ctypes
import functools

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_MAPPED_FROM = 32 << 20  # the largest that glibc accepts
_KEPT = 64 << 20


@functools.cache
def keep_freed() -> None:
    """Configures glibc's malloc, once per process; other allocators are not changed.

    By default glibc returns freed memory to the system, and each page of the next array then
    costs a page fault: a quarter of the time per sample when reading the decoded cache.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
