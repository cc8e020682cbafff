"""Reads images and labels from zip files in place, from any thread or process."""

import threading
import zipfile
import zlib
from dataclasses import dataclass

from fastfcn_jax.data.source import Encoded
from fastfcn_jax.errors import UserError

_open = threading.local()  # path -> ZipFile per thread: threads wait for each other on a shared one


@dataclass(frozen=True)
class ZipFiles:
    """Pairs of archive members: the `read` of an `EncodedSource`."""

    image_archive: str
    label_archive: str
    images: tuple[str, ...]
    labels: tuple[str, ...]

    def __call__(self, index: int) -> Encoded:
        image, label = self.images[index], self.labels[index]
        return Encoded(
            _member(self.image_archive, image),
            _member(self.label_archive, label),
            f"{self.image_archive}/{image}",
            f"{self.label_archive}/{label}",
        )

    def files(self) -> tuple[str, ...]:
        """All files that it reads."""
        return self.image_archive, self.label_archive


def members(archive: str) -> list[str]:
    """Sorted names of an archive's files.

    Raises:
      UserError: it is not a complete zip file.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            return sorted(n for n in opened.namelist() if not n.endswith("/"))
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{archive}: not a complete zip file ({error}); download it again."
        ) from error


def _member(archive: str, name: str) -> bytes:
    opened = _open.__dict__.setdefault("archives", {})
    try:
        if archive not in opened:
            opened[archive] = zipfile.ZipFile(archive)
        return opened[archive].read(name)
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{archive}/{name}: cannot be read ({error}); download the archive again."
        ) from error
