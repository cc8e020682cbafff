"""How many pixels each class has: for class weights, and for the doctor's histogram."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Int

from fastfcn_jax.data import decode
from fastfcn_jax.data.source import EncodedSource, Source


def label_counts(
    source: Source, *, max_images: int = 500, threads: int = 8
) -> Int[np.ndarray, "256"]:
    """Pixels of each label value (255: ignored) over evenly spaced images of the source.

    Photographs are not decoded where labels are files of their own.

    Raises:
      UserError: a label cannot be read or has a value that is no class.
    """
    indices = np.unique(np.linspace(0, len(source) - 1, max_images).astype(int))
    with ThreadPoolExecutor(threads) as pool:
        counts = list(pool.map(lambda i: _count(source, int(i)), indices))
    return np.sum(counts, axis=0)


def _count(source: Source, index: int) -> Int[np.ndarray, "256"]:
    if isinstance(source, EncodedSource):
        files = source.read(index)
        stored = decode.label(files.label, files.label_name)
        label = source.to_classes(stored, files.label_name)
    else:
        label = source[index].label
    return np.bincount(label.ravel(), minlength=256)
