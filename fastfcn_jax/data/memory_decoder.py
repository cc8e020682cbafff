"""Decodes images in memory by TensorStore's drivers, which unlike OpenCV refuse damaged data."""

import functools
import threading

import numpy as np
import tensorstore as ts
from jaxtyping import UInt8


def decode(driver: str, data: bytes) -> UInt8[np.ndarray, "h w c"]:
    """Decodes a file's bytes by `driver`, "png" or "jpeg".

    Raises:
      ValueError: the bytes do not decode, or libjpeg or libpng issued a warning.
    """
    store, context = _memory()
    key = str(threading.get_ident())
    store.write(key, data).result()
    spec = {"driver": driver, "kvstore": {"driver": "memory", "path": key}}
    return ts.open(spec, context=context).result().read().result()


@functools.cache
def _memory() -> tuple[ts.KvStore, ts.Context]:
    """The in-memory store that the drivers read from; it keeps the last file of each thread."""
    context = ts.Context()
    return ts.KvStore.open({"driver": "memory"}, context=context).result(), context
