"""Writes all files of a prepared folder, or none of them."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fastfcn_jax import files, text
from fastfcn_jax.doctor.collect import LABELS_FOLDER
from fastfcn_jax.errors import UserError

Drawing = tuple[Path, Callable[[], np.ndarray]]


def label_place(photo: Path) -> Path:
    """Path of a photograph's converted label; both are relative to the folder."""
    return Path(LABELS_FOLDER) / photo.with_suffix(".png")


def listing(pairs: Iterable[tuple[Path, Path]]) -> str:
    """Lines `photo<tab>label`."""
    names = ((text.escaped(p.as_posix()), text.escaped(q.as_posix())) for p, q in pairs)
    return "".join(f"{photo}\t{label}\n" for photo, label in names)


def write(
    folder: Path,
    texts: Mapping[str, str],
    labels: Iterable[Drawing] = (),
    *,
    adds: bool = False,
) -> list[str]:
    """Writes texts and labels; returns the backup names of the user's own files.

    Args:
      texts: name -> content.
      labels: path relative to the folder, and a function that returns its pixels.
      adds: keep earlier labels, and replace texts without a backup, as the new ones include them.

    Raises:
      UserError: the folder cannot be written; it is unchanged.
    """
    unfinished = {name: folder / f".{name}.unfinished" for name in texts}
    drawn = folder / f".{LABELS_FOLDER}.unfinished"
    try:
        with _removed_at_the_end([*unfinished.values(), drawn]):
            for name, content in texts.items():
                unfinished[name].write_text(content, "utf-8")
            places = _draw(drawn, labels)
            changed = [n for n, content in texts.items() if _differs(folder / n, content)]
            kept = [] if adds else [_kept(folder / n) for n in changed]
            _place(drawn, folder / LABELS_FOLDER, places, adds=adds)
            for name, path in unfinished.items():
                os.replace(path, folder / name)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error}); fix that, or copy the photos elsewhere."
        ) from error
    return kept


@contextlib.contextmanager
def _removed_at_the_end(paths: list[Path]) -> Iterator[None]:
    try:
        yield
    finally:
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _draw(drawn: Path, labels: Iterable[Drawing]) -> list[Path]:
    def one(label: Drawing) -> Path:
        place = label[0].relative_to(LABELS_FOLDER)
        (drawn / place).parent.mkdir(parents=True, exist_ok=True)
        files.write_image(drawn / place, label[1]())
        return place

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, labels))


def _place(drawn: Path, target: Path, places: list[Path], *, adds: bool) -> None:
    if not adds and target.is_dir():
        shutil.rmtree(target)
    for place in places:
        (target / place).parent.mkdir(parents=True, exist_ok=True)
        os.replace(drawn / place, target / place)


def _differs(path: Path, content: str) -> bool:
    return path.exists() and path.read_bytes() != content.encode()


def _kept(path: Path) -> str:
    """Copies a file, which may be the user's own, to the first free name."""
    names = (f"{path.name}.bak{number or ''}" for number in range(1000))
    name = next(n for n in names if not (path.parent / n).exists())
    shutil.copy2(path, path.parent / name)
    return name
