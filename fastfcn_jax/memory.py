"""Lets the process keep what it frees, so that large arrays need no new pages each time."""

import ctypes
import functools
import os
from importlib import metadata, util

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8  # malloc.h
_MAPPED_FROM = 32 << 20  # glibc takes no larger one
_KEPT = 64 << 20


@functools.cache
def keep_freed() -> None:
    """Tells glibc, once a process and before JAX starts; other allocators are left as they are.

    glibc gives freed memory back to the system, and each page of the next array costs a fault
    then: a quarter of the time of a sample that is read from the decoded cache. Where JAX has
    only the CPU, the arrays of its programs come from glibc too, gigabytes a training step:
    there everything is kept, in one arena, as what one thread frees another takes next.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    if _has_accelerator():
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
    else:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
        mallopt(_M_ARENA_MAX, 1)


def _has_accelerator() -> bool:
    """Whether JAX may start on something else than a CPU, asked without starting it."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return False
    return bool(metadata.entry_points(group="jax_plugins")) or util.find_spec("libtpu") is not None
