"""Reads data sets in TFDS' ArrayRecord format, written by our builders or by TFDS' own."""

import functools
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastfcn_jax.data.source import DatasetInfo, Encoded, EncodedSource
from fastfcn_jax.errors import UserError

SPLIT_NAMES = {"val": "validation"}  # our name: TFDS' name
LABEL = "segmentation_label"
IMAGES = ("image", "image_left")  # our builders; TFDS' own Cityscapes

_last = threading.local()


def find(root: str, name: str) -> Path | None:
    """The folder of the newest prepared version of data set `name` in `root`, or None.

    `root` is that folder itself or a TFDS data_dir (`root/name[/config]/version`).
    """
    if not root:
        return None
    found = [p.parent for p in sorted(Path(root).glob("dataset_info.json"))]
    for pattern in (f"{name}/*/dataset_info.json", f"{name}/*/*/dataset_info.json"):
        found += [p.parent for p in sorted(Path(root).glob(pattern))]
    found = [d for d in found if _info(d).get("name") == name]
    return found[-1] if found else None


def load(directory: Path, split: str, info: DatasetInfo, to_classes: Callable) -> EncodedSource:
    """Opens a split of a prepared data set.

    Raises:
      UserError: the split is not there, or the files are not ArrayRecord.
    """
    content = _info(directory)
    if content.get("fileFormat") != "array_record":
        raise UserError(
            f"{directory}: stored as {content.get('fileFormat', 'tfrecord')}, which needs "
            "TensorFlow to read; prepare it again with file_format='array_record'."
        )
    names = [s["name"] for s in content.get("splits", [])]
    stored = split if split in names else SPLIT_NAMES.get(split, split)
    if stored not in names:
        raise UserError(f"{directory}: no split '{split}', only {', '.join(names)}.")
    features = json.loads((directory / "features.json").read_text("utf-8"))
    image = next(f for f in IMAGES if f in features["featuresDict"]["features"])
    records = Records(str(directory), stored, image)
    return EncodedSource(info, RecordIds(records), records, to_classes)


@dataclass(frozen=True)
class Records:
    """Reads encoded images and labels from records; the `read` of an `EncodedSource`."""

    directory: str
    split: str
    image: str

    def __len__(self) -> int:
        return len(_open(self))

    def __call__(self, index: int) -> Encoded:
        record = self.record(index)
        name = f"{self.directory} {self.split} {record['image_id'].decode()}"
        return Encoded(record[self.image], record[LABEL], f"{name} image", f"{name} label")

    def files(self) -> list[str]:
        """All files that it reads from."""
        return sorted(map(str, Path(self.directory).iterdir()))

    def record(self, index: int) -> dict[str, bytes]:
        """The features of one example. The last is kept, as its id is requested right after it."""
        if getattr(_last, "key", None) != (self, index):
            _last.record = _open(self)[index]
            _last.key = (self, index)
        return _last.record


@dataclass(frozen=True)
class RecordIds(Sequence):
    """Names of the samples, read from the records on demand."""

    records: Records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.records.record(int(index))["image_id"].decode()


@functools.cache
def _open(records: Records):
    import tensorflow_datasets as tfds  # takes seconds to import

    skip = {records.image: tfds.decode.SkipDecoding(), LABEL: tfds.decode.SkipDecoding()}
    builder: Any = tfds.builder_from_directory(records.directory)
    return builder.as_data_source(records.split, decoders=skip)


def _info(directory: Path) -> dict:
    return json.loads((directory / "dataset_info.json").read_text("utf-8"))
