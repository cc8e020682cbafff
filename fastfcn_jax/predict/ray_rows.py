"""Photographs as rows of a Ray data set: listed files, a Parquet table, or tar shards."""

import glob
import itertools
import os
import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from fastfcn_jax import addresses, text
from fastfcn_jax.data.listing import IMAGE_SUFFIXES
from fastfcn_jax.errors import UserError
from fastfcn_jax.files import first_line
from fastfcn_jax.predict.inputs import Photograph
from fastfcn_jax.predict.settings import Settings

BATCH = 64  # photographs that an actor takes at a time, and does again if it dies meanwhile
TABLE, SHARDS = ".parquet", ".tar"
PATH, BYTES, IMAGE = "path", "bytes", "image"  # columns of a table; `image` as Hugging Face has it


class Failed(NamedTuple):
    """A row that is no photograph, as `Records.failed` takes it."""

    name: str
    source: str
    reason: str


def packed(source: str, suffix: str) -> list[str]:
    """The tables or shards that an input consists of: a file, those of a folder, or of a pattern.

    Empty if it is something else.
    """
    if addresses.is_address(source):
        files = addresses.matches if any(s in source for s in "*?[") else _at
        return [addresses.beside(source, p) for p in files(source) if p.endswith(suffix)]
    path = Path(source)
    if path.is_file():
        return [str(path)] if path.suffix == suffix else []
    pattern = str(path / f"*{suffix}") if path.is_dir() else source
    return sorted(found for found in glob.glob(pattern, recursive=True) if found.endswith(suffix))


def _at(address: str) -> list[str]:
    if not addresses.is_folder(address):
        return [addresses.place(address)]
    folder, names = next(addresses.walk(address))
    return [str(folder / name) for name in names]


def of_listed(ray: Any, photographs: Iterable[Photograph]) -> Any:
    """A data set of names; the actors read the files."""
    import pyarrow

    def block(some: Sequence[Photograph]) -> Any:
        places = [p.address if p.path is None else str(p.path) for p in some]
        stems = [os.fsencode(p.stem) for p in some]
        return pyarrow.table({"address": list(map(os.fsencode, places)), "stem": stems})

    listed, tables = iter(photographs), []
    while some := list(itertools.islice(listed, BATCH)):
        tables.append(block(some))
    return ray.data.from_arrow(tables or [block([])])


def of_tables(ray: Any, files: list[str], settings: Settings) -> tuple[Any, int]:
    """A data set of the rows of Parquet files, and their number.

    Rows have `path`, and those that hold their picture `bytes`, or `image` of both.

    Raises:
      UserError: there is no such column, or two rows would give results of the same name.
    """
    import pyarrow.parquet

    system = addresses.filesystem(files[0] if addresses.is_address(files[0]) else "file://")
    places = [addresses.place(f) if addresses.is_address(f) else os.path.abspath(f) for f in files]
    try:
        with system.open(places[0], "rb") as file:
            columns = pyarrow.parquet.read_schema(file).names
    except Exception as error:
        raise UserError(f"{files[0]}: no Parquet table ({first_line(error)}).") from error
    wanted = [name for name in (PATH, BYTES, IMAGE) if name in columns]
    if PATH not in wanted and IMAGE not in wanted:
        raise UserError(
            f"{files[0]}: needs a column `path` (and `bytes`, if the table holds the pictures) or "
            f"`image` of both; it has {', '.join(columns[:8])}."
        )
    names = PATH if PATH in wanted else f"{IMAGE}.{PATH}"
    count = _count(system, places, names, settings, is_read=wanted != [PATH])
    return ray.data.read_parquet(places, filesystem=system).select_columns(wanted), count


def _count(
    system: Any, places: list[str], column: str, settings: Settings, *, is_read: bool
) -> int:
    """Counts the rows; UserError if one has no name or that of another. Keeps 8 bytes a row.

    is_read: the rows hold their pictures.
    """
    import pyarrow.parquet

    codes = []
    for place in places:
        with system.open(place, "rb") as file:
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(columns=[column]):
                for row in batch.to_pylist():
                    path = row[PATH] if column == PATH else row[IMAGE][PATH]
                    if not path:
                        raise UserError(f"{place}: a row has no `path`, which names its results.")
                    if not (is_read or addresses.is_address(path) or os.path.isabs(path)):
                        raise UserError(f"{place}: path {path} must begin with / or a kind, s3://.")
                    codes.append(hash(_stem(path, settings)))
    ordered = np.sort(np.array(codes, np.int64))
    if (ordered[1:] == ordered[:-1]).any():
        raise UserError(
            f"{places[0]}: two rows would give results of the same name; give each a `path` of its "
            "own, or --keep-suffix if they differ in their suffixes."
        )
    return len(ordered)


def of_shards(ray: Any, files: list[str], settings: Settings) -> Any:
    """A data set of the pictures in tar files (WebDataset), opened as they are reached."""
    import pyarrow

    shards = ray.data.from_arrow([pyarrow.table({"shard": [file]}) for file in files])
    return shards.map_batches(
        _pictures, fn_kwargs={"settings": settings}, batch_size=1, batch_format="pyarrow"
    )


def _pictures(table: Any, settings: Settings) -> Iterator[Any]:
    """A table of one row for each picture in the tar files of a table."""
    import pyarrow

    for shard in table["shard"].to_pylist():
        for address, stem, content, reason in _members(shard, settings):
            yield pyarrow.table(
                {
                    "address": [os.fsencode(address)],
                    "stem": [os.fsencode(stem)],
                    "content": pyarrow.array([content], pyarrow.large_binary()),
                    "reason": [reason],
                }
            )


def _members(shard: str, settings: Settings) -> Iterator[tuple[str, str, bytes, str]]:
    """(address, stem, bytes, what is wrong) of each picture of a tar file."""
    base = posixpath.basename(shard).removesuffix(SHARDS)
    seen: dict[str, str] = {}
    try:
        with _opened(shard) as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                inside = PurePosixPath(member.name)
                if not member.isfile() or inside.suffix.lower() not in IMAGE_SUFFIXES:
                    continue
                stem = str(PurePosixPath(base, _inside(inside.parent), settings.stem(inside.name)))
                address = f"{shard}/{member.name}"
                if seen.setdefault(stem, member.name) != member.name:
                    reason = f"would replace the results of {seen[stem]}; give --keep-suffix"
                    yield address, str(PurePosixPath(base, inside)), b"", reason
                    continue
                content = tar.extractfile(member)
                yield address, stem, b"" if content is None else content.read(), ""
    except (UserError, OSError, tarfile.TarError, EOFError) as error:
        yield shard, base, b"", f"cannot be read to its end ({first_line(error)})"


def _opened(shard: str) -> Any:
    if addresses.is_address(shard):
        return addresses.filesystem(shard).open(addresses.place(shard), "rb")
    return open(shard, "rb")


def _inside(path: PurePosixPath) -> PurePosixPath:
    """A path that stays below the folder it is put in."""
    return PurePosixPath(*(part for part in path.parts if part not in ("/", "..", ".")))


def _stem(path: str, settings: Settings) -> str:
    """The stem of a row's results: the whole path, without the kind of address."""
    inside = _inside(PurePosixPath(path.split("://", 1)[-1]))
    return str(inside.parent / settings.stem(inside.name))


def photographs(table: Any, settings: Settings) -> Iterator[Photograph | Failed]:
    """The photographs of a table that one of the functions above made."""
    for row in table.to_pylist():
        if "stem" in row:
            yield _of_listed(row)
        else:
            image = row.get(IMAGE) or {}
            path = row[PATH] if PATH in row else image[PATH]
            content = row.get(BYTES) or image.get(BYTES)
            stem = _stem(path, settings)
            if content is None and not addresses.is_address(path):
                yield Photograph(Path(path), stem)
            else:
                yield Photograph(None, stem, path, content)


def _of_listed(row: dict[str, Any]) -> Photograph | Failed:
    address, stem = os.fsdecode(row["address"]), os.fsdecode(row["stem"])
    if row.get("reason"):
        return Failed(stem, address, f"{text.shown(address)}: {row['reason']}.")
    if addresses.is_address(address) or "content" in row:
        return Photograph(None, stem, address, row.get("content"))
    return Photograph(Path(address), stem)
