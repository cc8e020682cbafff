"""The images to train on: one data set, or several ones concatenated, repeated and balanced."""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, SupportsIndex

import numpy as np
from jaxtyping import Bool, Int, UInt8
from ml_collections import ConfigDict

from fastfcn_jax.data import cache, datasets, decode, pixel_type
from fastfcn_jax.data.source import DatasetInfo, EncodedSource, Sample, Source
from fastfcn_jax.errors import UserError

FORM = "'NAME SPLIT REPEAT ROOT', for example 'pascal_voc trainval 4 /data/VOC2012'"


class Entry(NamedTuple):
    """One data set of several; every image of its split occurs `repeat` times in an epoch."""

    name: str
    split: str
    repeat: int
    root: str


@dataclass(frozen=True)
class Selection:
    """Samples picked from other sources: the n-th is sample `index[n]` of `parts[part[n]]`."""

    parts: tuple[Source, ...]
    part: Int[np.ndarray, "n"]
    index: Int[np.ndarray, "n"]

    @property
    def info(self) -> DatasetInfo:
        return self.parts[0].info

    @property
    def ids(self) -> Sequence[str]:
        """As in the parts; with the data set's name in front if there are several parts."""
        several = len(self.parts) > 1
        names = [
            [f"{source.info.name}/{i}" if several else i for i in source.ids]
            for source in self.parts
        ]
        return [names[p][i] for p, i in zip(self.part, self.index, strict=True)]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: SupportsIndex) -> Sample:
        place = int(index)
        return self.parts[self.part[place]][int(self.index[place])]


def parse(entry: str) -> Entry:
    """Reads an entry of `config.data.sets`; the folder comes last and may contain spaces.

    Raises:
      UserError: it has another form.
    """
    name, split, repeat, root = [*entry.split(maxsplit=3), "", "", "", ""][:4]
    if not root or not repeat.isdecimal() or int(repeat) < 1:
        raise UserError(f"config.data.sets: {entry!r} is not {FORM}.")
    return Entry(name, split, int(repeat), os.path.expanduser(root))


def load_training(
    d: ConfigDict, *, cached: bool = False, say: Callable[[str], None] = print
) -> Source:
    """Opens the images to train on that `config.data` describes.

    cached: from the decoded cache of `d.cache`, if that is set; it is built first if necessary.

    Raises:
      UserError: a data set cannot be opened, or one has other classes than the first.
    """

    def load(name: str, root: str, split: str) -> Source:
        source = datasets.load(name, root, split, pixel_type.of(d))
        wanted = cached and d.cache
        return cache.open_or_build(d.cache, source, threads=d.threads) if wanted else source

    if d.sets:
        entries = [parse(entry) for entry in d.sets]
        parts = [load(entry.name, entry.root, entry.split) for entry in entries]
        for entry, part in zip(entries, parts, strict=True):
            say(f"  {entry.name} {entry.split}: {len(part)} images, {entry.repeat} times")
        source = concatenate(parts, [entry.repeat for entry in entries])
    else:
        source = load(d.name, d.root, d.train_split)
    if d.balance_below:
        source = balanced(source, d.balance_below, threads=d.threads)
        say(f"balanced: an epoch has {len(source)} samples")
    return source


def concatenate(parts: Sequence[Source], repeats: Sequence[int]) -> Selection:
    """All samples of the first source, `repeats[0]` times over, then those of the next.

    Raises:
      UserError: the sources have different classes.
    """
    first = parts[0].info
    for part in parts[1:]:
        if part.info.class_names != first.class_names:
            raise UserError(
                f"config.data.sets: {part.info.name} has other classes than {first.name}, or in "
                "another order; only data sets with the same classes can be mixed."
            )
    part = [np.full(len(p) * r, k) for k, (p, r) in enumerate(zip(parts, repeats, strict=True))]
    index = [np.tile(np.arange(len(p)), r) for p, r in zip(parts, repeats, strict=True)]
    return Selection(tuple(parts), np.concatenate(part), np.concatenate(index))


def balanced(source: Source, threshold: float, *, threads: int = 8) -> Selection:
    """Repeats the images of rare classes, by the rule of LVIS (Gupta et al. 2019).

    With f(c) the fraction of images that show class c, an image occurs
    ceil(max(1, sqrt(threshold / f(c)))) times, for the rarest class c that it shows (mmengine's
    ClassBalancedDataset). Reads every label once.

    Raises:
      UserError: a label cannot be read.
    """
    times = repeat_times(classes_shown(source, threads=threads), threshold)
    index = np.repeat(np.arange(len(source)), times)
    return Selection((source,), np.zeros_like(index), index)


def classes_shown(source: Source, *, threads: int = 8) -> Bool[np.ndarray, "n k"]:
    """Which classes each image shows."""
    count = source.info.num_classes

    def shown(index: int) -> np.ndarray:
        return np.bincount(read_label(source, index).ravel(), minlength=256)[:count] > 0

    with ThreadPoolExecutor(threads) as pool:
        return np.stack(list(pool.map(shown, range(len(source)))))


def read_label(source: Source, index: int) -> UInt8[np.ndarray, "h w"]:
    """The label of a sample; its photograph is not decoded if the label is a separate file.

    Raises:
      UserError: the label cannot be read or contains a value that is not a class.
    """
    if isinstance(source, Selection):
        return read_label(source.parts[source.part[index]], int(source.index[index]))
    if not isinstance(source, EncodedSource):
        return source[index].label
    files = source.read(index)
    return source.to_classes(decode.label(files.label, files.label_name), files.label_name)


def repeat_times(shown: Bool[np.ndarray, "n k"], threshold: float) -> Int[np.ndarray, "n"]:
    """How often each image occurs; see `balanced`."""
    frequency = shown.mean(0)
    factor = [max(1.0, math.sqrt(threshold / f)) if f else 1.0 for f in frequency]
    return np.ceil(np.where(shown, factor, 1.0).max(1)).astype(int)
