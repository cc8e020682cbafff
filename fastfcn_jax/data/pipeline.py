"""Training batches that depend on seed and step alone; Grain reads, augments and stacks them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import grain
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from fastfcn_jax.data import malloc, pixel_type
from fastfcn_jax.data.augment import crop_first, mmseg, official, paddleseg, steps
from fastfcn_jax.data.augment.device_draws import DeviceDraws
from fastfcn_jax.data.pixel_type import RGB
from fastfcn_jax.data.source import Sample, Source
from fastfcn_jax.errors import UserError

Augment = Callable[..., mmseg.Augmented]  # (image, label, rng) -> Augmented


def build_train(
    config: ConfigDict,
    source: Source,
    *,
    start_step: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[dict[str, np.ndarray]]:
    """`train_batches` with the settings of a configuration."""
    return train_batches(
        source,
        build_augment(config.data, source),
        device_draws=steps.device_draws(config.data),
        batch_size=config.train.batch_size,
        seed=config.seed,
        start_step=start_step,
        shard=shard,
        threads=config.data.threads,
        prefetch=config.data.prefetch,
        workers=config.data.workers,
    )


def build_augment(data: ConfigDict, source: Source | None = None) -> Augment:
    """The training augmentation that `config.data` describes, as far as the host makes it.

    Args:
      source: the data set, from which a mosaic takes other images.

    Raises:
      UserError: the augmentation is unknown, cannot crop first, or does not take such images.
    """
    if data.augment or data.device_augmentation:
        return steps.build(data, source)
    is_rgb = pixel_type.of(data) == RGB
    if data.augmentation == "mmseg":
        return partial(
            crop_first.augment if data.crop_first else mmseg.augment,
            crop_size=tuple(data.crop_size),
            resize_scale=tuple(data.resize_scale),
            ratio_range=tuple(data.ratio_range),
            cat_max_ratio=data.cat_max_ratio,
            flip=data.flip,
            photometric=data.photometric and is_rgb,
        )
    if data.crop_first:
        raise UserError("data.crop_first: only the mmseg augmentation can crop first; set False.")
    if data.augmentation in ("official", "paddleseg") and not is_rgb:
        raise UserError(
            f"data.augmentation: '{data.augmentation}' takes 8-bit RGB alone, as Pillow does; "
            "set 'mmseg'."
        )
    if data.augmentation == "official":
        return partial(
            official.augment,
            crop_size=tuple(data.crop_size),
            base_size=data.base_size,
            flip=data.flip,
            rotation=data.rotation,
            blur=data.blur,
            padding_label=data.padding_label,
        )
    if data.augmentation == "paddleseg":
        return partial(
            paddleseg.augment,
            crop_size=tuple(data.crop_size),
            ratios=paddleseg.factors(tuple(data.ratio_range), data.ratio_step),
            flip=data.flip,
            photometric=data.photometric,
        )
    raise UserError(
        f"data.augmentation: '{data.augmentation}' is not one of mmseg, official, paddleseg."
    )


def left_out(data: ConfigDict) -> str:
    """A sentence about the configured augmentation that these images do not get; "" if none."""
    pixel = pixel_type.of(data)
    if data.augment and (names := steps.left_out(data)):
        return f"no {', '.join(names)} (data.augment), as the images have {pixel}"
    if data.augment:
        return ""
    if pixel == RGB or not data.photometric or data.augmentation != "mmseg":
        return ""
    return f"no changes of colour (data.photometric), as the images have {pixel}"


def train_batches(
    source: Source,
    augment: Augment,
    *,
    device_draws: DeviceDraws | None = None,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    shard: tuple[int, int] = (0, 1),
    threads: int = 8,
    prefetch: int = 4,
    workers: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless training batches. The step number is the only state.

    Every epoch is shuffled differently. Sample p of a step's batch is augmented with
    `default_rng((seed, step * batch_size + p))`, so the number of threads, worker processes and
    hosts does not change a batch. Hosts take consecutive parts of the global batch.

    Args:
      device_draws: draws what the device does with each sample, after the host's augmentation.
      batch_size: samples of the global batch, over all hosts.
      start_step: the step whose batch comes first.
      shard: (index, count) of this host.
      threads: threads that read and augment; each prepares a whole batch.
      prefetch: smallest number of batches prepared ahead.
      workers: processes with `threads` threads each; 0: threads of this process, which is faster
      unless the augmentation holds Python's GIL. With processes the program needs an
        `if __name__ == "__main__"` guard.

    Yields:
      dict with `image` (b, h, w, c), mostly uint8 RGB, `label` uint8 (b, h, w), `size` int32
      (b, 2): height and width before padding, `index` int64 (b,) into `source`, and what
      `device_draws` adds; b = batch_size / count.
    """
    index, count = shard
    if batch_size % count:
        raise UserError(f"train.batch_size: {batch_size} does not divide among {count} hosts.")
    order = grain.MapDataset.range(len(source)).shuffle(seed=seed).repeat(None)
    samples = order.map_with_index(AugmentedSamples(source, augment, seed, device_draws))
    own = batch_size // count
    # `repeat` without an end has sys.maxsize samples; for batches of one, Grain rounds up by one,
    # and len() overflows.
    batched = samples.batch(own, batch_fn=_stack) if own > 1 else samples.map(_alone)
    batches = batched[start_step * count + index :: count]
    return _read(batches, threads, prefetch, workers)


def in_order(
    source: Source, indices: Sequence[int] | None = None, *, threads: int = 8, prefetch: int = 8
) -> Iterator[tuple[int, Sample]]:
    """Yields (index, sample) for the given indices (default: all), in order, read by threads."""
    indices = range(len(source)) if indices is None else indices
    indexed: Any = _Indexed(source, indices)
    return _read(grain.MapDataset.source(indexed), threads, prefetch)


@dataclass(frozen=True)
class AugmentedSamples:
    """Callable that returns sample `index` of a source, augmented for its `position` in the run."""

    source: Source
    augment: Augment
    seed: int
    device_draws: DeviceDraws | None = None

    def __call__(self, position: int, index: int) -> dict[str, Any]:
        malloc.keep_freed()
        sample = self.source[index]
        rng = np.random.default_rng((self.seed, position))
        image, label, size = self.augment(sample.image, sample.label, rng)
        return {
            "image": image,
            "label": label,
            "size": np.array(size, np.int32),
            "index": np.int64(index),
            **(self.device_draws(rng) if self.device_draws else {}),
        }


@dataclass(frozen=True)
class _Indexed:
    source: Source
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> tuple[int, Sample]:
        return int(self.indices[i]), self.source[self.indices[i]]


def _alone(sample: dict[str, Any]) -> dict[str, np.ndarray]:
    return _stack([sample])


def _stack(samples: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.stack([s[key] for s in samples]) for key in samples[0]}


def _read(dataset: grain.MapDataset, threads: int, prefetch: int, workers: int = 0) -> Iterator:
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads absl flags and fails while they are unparsed
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch, threads, 1))
    read = dataset.to_iter_dataset(options)
    if workers:
        read = read.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(read)
