"""The time that the data pipeline alone takes for a batch."""

import time

from ml_collections import ConfigDict

from fastfcn_jax.data import pipeline, sets
from fastfcn_jax.errors import UserError


def seconds(config: ConfigDict, batches: int = 8) -> float | None:
    """Seconds per batch, a mean over `batches`; None without data at config.data.root."""
    try:
        source = sets.load_training(config.data)
    except UserError:
        return None
    stream = pipeline.build_train(config, source)
    for _ in range(config.data.prefetch + 1):  # the first ones were prepared ahead
        next(stream)
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return (time.perf_counter() - start) / batches
