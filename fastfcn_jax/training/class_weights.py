"""Class weights of the loss, as configured or from label frequencies."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from fastfcn_jax import models
from fastfcn_jax.data import sets
from fastfcn_jax.data.source import Source
from fastfcn_jax.errors import UserError

MAX_IMAGES = 500  # evenly spaced over the data set; enough to estimate class frequencies


def resolve(weights: Sequence[float | str], source: Source, model: ConfigDict) -> tuple[float, ...]:
    """Returns the configured weights, or weights from label frequencies for ("auto",).

    Args:
      model: `config.model`; a one-channel model has one weight, the second class's relative to the
        first one's.

    Raises:
      UserError: there is not one weight per class, or a weight is negative or not finite.
    """
    one_channel = models.is_one_channel(model, len(source.info.class_names))
    if tuple(weights) == ("auto",):
        found = balanced(label_frequencies(source))
        return (found[1] / found[0],) if one_channel else found
    if weights and one_channel and len(weights) != 1:
        raise UserError(
            f"config.loss.class_weights has {len(weights)} values; with config.model.num_classes=1 "
            "give one, the factor of the second class (pos_weight of PyTorch)."
        )
    if weights and not one_channel and len(weights) != len(source.info.class_names):
        raise UserError(
            f"config.loss.class_weights has {len(weights)} values, "
            f"{source.info.name} has {len(source.info.class_names)} classes."
        )
    values = tuple(float(weight) for weight in weights)
    if not all(0.0 <= value < math.inf for value in values):
        raise UserError(f"config.loss.class_weights={values} must be finite and not negative.")
    return values


def balanced(frequencies: np.ndarray) -> tuple[float, ...]:
    """ENet's weights 1 / ln(1.02 + frequency), scaled so that the mean over pixels is 1.

    arXiv 1606.02147, section 5.2. With this scale, a learning rate chosen without
    weights remains suitable. Classes that never occur get 1.
    """
    weights = 1.0 / np.log(1.02 + frequencies)
    weights /= (weights * frequencies).sum()
    weights[frequencies == 0] = 1.0
    return tuple(float(weight) for weight in weights)


def label_frequencies(source: Source) -> np.ndarray:
    """Fraction of valid pixels of each class, from up to 500 images."""
    counts = label_counts(source, max_images=MAX_IMAGES)
    counts = counts[: len(source.info.class_names)]
    return counts / max(counts.sum(), 1)


def label_counts(
    source: Source, *, max_images: int = 500, threads: int = 8
) -> Int[np.ndarray, "256"]:
    """Number of pixels of each label value (255: ignored) in evenly spaced images of the source.

    Does not decode photographs if labels are separate files.

    Raises:
      UserError: a label cannot be read or contains a value that is not a class.
    """
    indices = np.unique(np.linspace(0, len(source) - 1, max_images).astype(int))
    with ThreadPoolExecutor(threads) as pool:
        counts = list(pool.map(lambda i: _count(source, int(i)), indices))
    return np.sum(counts, axis=0)


def _count(source: Source, index: int) -> Int[np.ndarray, "256"]:
    return np.bincount(sets.read_label(source, index).ravel(), minlength=256)
