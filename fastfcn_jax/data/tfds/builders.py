"""TFDS builders that write published files into ArrayRecord shards, without TensorFlow."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import tensorflow_datasets as tfds

from fastfcn_jax.data import datasets
from fastfcn_jax.data.source import Encoded, EncodedSource
from fastfcn_jax.data.tfds import prepared

EXAMPLES_PER_SHARD = 64


class PublishedFiles(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Copies the images and labels of `manual_dir` byte for byte, and decodes each as a check.

    Args:
      splits: names of the splits, as in `config.data`.
      keep: folder for finished shards. A run that was stopped continues with the first missing one.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Point manual_dir at the data set as published; see datasets.md."
    IMAGE = "image"

    def __init__(self, *, splits: Sequence[str], keep: Path, **kwargs):
        self._splits, self._keep = tuple(splits), keep
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        info = datasets.DATASETS[self.name].INFO
        features = {
            "image_id": tfds.features.Text(),
            self.IMAGE: tfds.features.Image(shape=(None, None, 3)),
            "segmentation_label": tfds.features.Image(shape=(None, None, 1)),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{info.name}: {info.num_classes} classes, labels as published.",
            features=tfds.features.FeaturesDict(features),
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Sequence[Callable[[], Iterator]]]:
        root = str(dl_manager.manual_dir)
        return {
            prepared.SPLIT_NAMES.get(split, split): self._shards(
                cast(EncodedSource, datasets.load(self.name, root, split))  # read from files
            )
            for split in self._splits
        }

    def _shards(self, source: EncodedSource) -> list[Callable[[], Iterator]]:
        starts = range(0, len(source), EXAMPLES_PER_SHARD)
        return [
            partial(self._examples, source, range(s, min(s + EXAMPLES_PER_SHARD, len(source))))
            for s in starts
        ]

    def _examples(self, source: EncodedSource, indices: range) -> Iterator:
        for i in indices:
            pair = _Checked(source, i)
            example = {
                "image_id": source.ids[i],
                self.IMAGE: _Part(pair, "image"),
                "segmentation_label": _Part(pair, "label"),
            }
            yield source.ids[i], example

    def _example_writer(self):
        return _ResumingWriter(self.info.file_format, self._keep)


class Cityscapes(PublishedFiles, skip_registration=True):
    """With the features of TFDS' own builder of that name; labels are label ids."""

    IMAGE = "image_left"


class Ade20k(PublishedFiles, skip_registration=True):
    """The 150-class label maps, which TFDS' scene_parse150 does not have."""


class PascalContext(PublishedFiles, skip_registration=True):
    """59 classes and the background."""


class Camvid(PublishedFiles, skip_registration=True):
    """11 classes and "unlabelled"."""


class PascalVoc(PublishedFiles, skip_registration=True):
    """20 classes and the background."""


class PascalAug(PublishedFiles, skip_registration=True):
    """SBD; its MATLAB files become PNGs."""


class Coco(PublishedFiles, skip_registration=True):
    """The images that pass the filter, with their labels drawn."""


BUILDERS = {
    b.name: b for b in (Cityscapes, Ade20k, PascalContext, Camvid, PascalVoc, PascalAug, Coco)
}


@dataclass
class _Checked:
    """The two files of one sample, read once and decoded as a check."""

    source: EncodedSource
    index: int
    files: Encoded | None = None

    def read(self, part: str) -> bytes:
        if self.files is None:
            self.files = self.source.read(self.index)
            self.source.decode(self.index, self.files)
        return getattr(self.files, part)


@dataclass(frozen=True)
class _Part:
    """A file-like object: nothing is read for a shard that exists already."""

    pair: _Checked
    name: str

    def read(self) -> bytes:
        return self.pair.read(self.name)


class _ResumingWriter(tfds.core.writer.ExampleWriter):  # pyright: ignore[reportAttributeAccessIssue]
    """Writes each shard to `keep` first, where a later run finds it, and links it to its place."""

    def __init__(self, file_format, keep: Path):
        super().__init__(file_format)
        self.keep = keep

    def write(self, path, examples):
        kept = self.keep / Path(path).name
        if kept.is_file():
            print(f"{kept.name}: done before", file=sys.stderr)
        else:
            unfinished = kept.with_name(f"{kept.name}.unfinished")
            super().write(unfinished, examples)
            os.replace(unfinished, kept)
            print(f"{kept.name}: {kept.stat().st_size / 1e6:.0f} MB", file=sys.stderr)
        try:
            os.link(kept, path)
        except OSError:  # a file system without hard links
            shutil.copyfile(kept, path)
