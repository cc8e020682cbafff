"""Keeps freed memory in the process, so that large arrays do not need new pages every time.

And gives it back where it will not be needed again.
"""

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


def release_freed() -> None:
    """Returns what has been freed to the system; only with glibc.

    After the first step of a training on a CPU that is what the compiler took, and the temporary
    memory of that step: glibc puts the next step's behind it, as it no longer fits by some bytes,
    and uses that one from then on. Where memory is to be kept (`MALLOC_TRIM_THRESHOLD_`), the
    process would otherwise hold both.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
