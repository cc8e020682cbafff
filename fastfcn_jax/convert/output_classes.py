"""Names and colours of the classes that converted weights predict."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from fastfcn_jax import text
from fastfcn_jax.convert.file_meta import FileMeta
from fastfcn_jax.data import datasets
from fastfcn_jax.data.datasets import class_list, folder
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError


def read(path: Path) -> DatasetInfo:
    """Reads classes.json or .yaml as in a data set's folder, or a text file with one name per line.

    Raises:
      UserError: the file is missing or invalid.
    """
    if path.suffix in (".json", ".yaml"):
        return class_list.read(path).info
    names = [line.strip() for line in text.read(path).splitlines() if line.strip()]
    if not names:
        raise UserError(f"--classes {path}: is empty; write one class name per line.")
    return DatasetInfo("folder", tuple(names), distinct_colors(len(names)))


def configured(config: ConfigDict) -> DatasetInfo | None:
    """The configured data set's classes; None for `folder` without a root."""
    if config.data.name == "folder" and not config.data.root:
        return None
    return datasets.info(config.data.name, config.data.root)


def by_names(names: tuple[str, ...]) -> DatasetInfo | None:
    """The known data set with these classes in this order."""
    infos = (module.INFO for module in datasets.DATASETS.values() if module is not folder)
    return next((info for info in infos if info.class_names == names), None)


def of_names(names: tuple[str, ...]) -> DatasetInfo | None:
    """The known data set with these classes in any order."""
    infos = (module.INFO for module in datasets.DATASETS.values() if module is not folder)
    return next((info for info in infos if set(info.class_names) == set(names)), None)


def by_count(count: int) -> DatasetInfo | None:
    """The only published data set with so many classes."""
    names = ("cityscapes", "ade20k", "pascal_context", "camvid")
    infos = [datasets.info(name, "") for name in names]
    return next((info for info in infos if info.num_classes == count), None)


def of_outputs(
    meta: FileMeta, count: int, expected: DatasetInfo | None
) -> tuple[DatasetInfo, list[str]]:
    """The classes of the `count` outputs of a file's classifier, and notes on what was assumed.

    The file's own names take precedence over those of the data set `expected`, as they say what was
    trained. Without them, the data set's names are used, or numbers if there is no data set.
    """
    names, notes = meta.class_names, []
    if names and len(names) != count:
        notes = [f"the file names {len(names)} classes for {count} outputs: not used"]
        names = ()
    if not names:
        if expected is not None and expected.num_classes == count:
            return expected, notes
        names = tuple(f"class {k}" for k in range(count))
        notes.append("the file names no classes: they are numbered; name them with --classes FILE")
        return DatasetInfo("folder", names, distinct_colors(count)), notes
    if expected is not None and names == expected.class_names:
        return expected, notes
    expected = expected or of_names(names)
    if expected is not None and expected.num_classes == count:
        notes.append(_difference(names, expected))
    name = expected.name if expected is not None else "folder"
    return DatasetInfo(name, names, _colors(meta, names, expected)), notes


def _difference(names: tuple[str, ...], expected: DatasetInfo) -> str:
    pairs = enumerate(zip(names, expected.class_names, strict=True))
    number, (ours, theirs) = next(pair for pair in pairs if pair[1][0] != pair[1][1])
    order = "in another order" if sorted(names) == sorted(expected.class_names) else "differently"
    return (
        f"the file names the classes of {expected.name} {order}, and its names are taken: "
        f"class {number} is {ours!r}, not {theirs!r}"
    )


def _colors(meta: FileMeta, names: tuple[str, ...], expected: DatasetInfo | None) -> np.ndarray:
    """The file's colours, or else the data set's colours for the same names."""
    if len(meta.palette) == len(names):
        return np.array(meta.palette, np.uint8)
    if expected is None or not set(names) <= set(expected.class_names):
        return distinct_colors(len(names))
    known = dict(zip(expected.class_names, expected.palette, strict=True))
    return np.array([known[name] for name in names], np.uint8)


def distinct_colors(count: int) -> np.ndarray:
    """Colours for classes that have none, uint8 RGB (count, 3)."""
    return np.array([class_list.distinct_color(k) for k in range(count)], np.uint8).reshape(
        count, 3
    )
