"""TensorStore's picture drivers on bytes in memory: unlike OpenCV they refuse what is damaged."""

import functools
import threading

import numpy as np
import tensorstore as ts
from jaxtyping import UInt8


def decode(driver: str, data: bytes) -> UInt8[np.ndarray, "h w c"]:
    """The pixels that `driver` ("png" or "jpeg") makes of a file's bytes.

    Raises:
      ValueError: it cannot, or libjpeg or libpng warned on the way.
    """
    store, context = _memory()
    key = str(threading.get_ident())
    store.write(key, data).result()
    spec = {"driver": driver, "kvstore": {"driver": "memory", "path": key}}
    return ts.open(spec, context=context).result().read().result()


@functools.cache
def _memory() -> tuple[ts.KvStore, ts.Context]:
    """Where the drivers find the bytes of a file: each thread's last one."""
    context = ts.Context()
    return ts.KvStore.open({"driver": "memory"}, context=context).result(), context
