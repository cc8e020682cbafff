"""The test servers: which files they take, and the archives of such files."""

import contextlib
import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fastfcn_jax import text
from fastfcn_jax.data import listing
from fastfcn_jax.data.datasets import ade20k, cityscapes, layout, pascal_voc
from fastfcn_jax.errors import UserError
from fastfcn_jax.files import replacing

Predictions = Iterable[tuple[str, UInt8[np.ndarray, "_ _"]]]  # (image name, class indices)
Read = Callable[[], bytes]
# What reading a member raises if the archive is damaged.
READ_ERRORS = (
    *(OSError, RuntimeError, NotImplementedError, EOFError),
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error),
)


@dataclass(frozen=True)
class Server:
    """What a test server expects.

    name: the data set's name.
    suffix: suffix of the image files; the rest of a file name is the name of the image.
    values: stored value of each class, in the model's order.
    legal: all values allowed in a file.
    expected: number of test images.
    folder: where the files must be in the archive; "": anywhere.
    is_tar: the archive is a compressed tar file; else a zip file.
    palette: colours of the stored values; (): the files are grey.
    listed: beside the folder of the images, the list of those that are tested; "": all are.
    """

    name: str
    suffix: str
    values: tuple[int, ...]
    legal: tuple[int, ...]
    expected: int
    folder: str = ""
    is_tar: bool = False
    palette: tuple[tuple[int, int, int], ...] = ()
    listed: str = ""

    def encode(self, labels: UInt8[np.ndarray, "h w"]) -> bytes:
        """Encodes class indices as a PNG of stored values; 255 becomes 0."""
        table = np.zeros(256, np.uint8)
        table[: len(self.values)] = self.values
        if not self.palette:
            return cv2.imencode(".png", table[labels])[1].tobytes()
        picture, file = Image.fromarray(table[labels]), io.BytesIO()
        picture.putpalette([channel for color in self.palette for channel in color])
        picture.save(file, "PNG")
        return file.getvalue()

    def images(self, folder: Path) -> dict[str, Path]:
        """Image files by image name, with which the names of predictions begin.

        Raises:
          UserError: there is no image, or two have the same name.
        """
        found = [p for p in listing.below(folder).files if p.name.endswith(self.suffix)]
        if not found:
            raise UserError(f"--images {folder}: no file ending in {self.suffix}.")
        named: dict[str, Path] = {}
        for path in found:
            other = named.setdefault(path.name.removesuffix(self.suffix), path)
            if other != path:
                raise UserError(f"{path}: same name as {other}; remove or rename one of them.")
        file = folder.absolute().parent / self.listed
        if not self.listed or not file.is_file():
            return named
        wanted = layout.listed_names(file)
        if missing := [name for name in wanted if name not in named]:
            raise UserError(f"{file}: names {missing[0]}, which is not in --images {folder}.")
        print(f"test images: the {len(wanted)} of {len(named)} that {file} names")
        return {name: named[name] for name in wanted}

    def filename(self, name: str) -> str:
        """The name of an image's prediction in the archive."""
        return str(PurePosixPath(self.folder, f"{name}.png"))

    def owner(self, filename: str, images: dict[str, Path]) -> str | None:
        """The image that a file of an archive belongs to."""
        if not filename.endswith(".png"):
            return None
        if self.folder:
            name = PurePosixPath(filename).stem
            return name if name in images and filename == self.filename(name) else None
        # Cityscapes allows any text after the frame number: try shorter and shorter prefixes.
        parts = PurePosixPath(filename).name.removesuffix(".png").split("_")
        for length in range(len(parts), 0, -1):
            if (name := "_".join(parts[:length])) in images:
                return name
        return None


SERVERS = {
    "cityscapes": Server(
        "cityscapes",
        cityscapes.IMAGE_SUFFIX,
        tuple(label for label, *_ in cityscapes.CLASSES),
        tuple(range(34)),
        1525,
    ),
    "ade20k": Server(
        "ade20k", ".jpg", tuple(range(1, len(ade20k.CLASSES) + 1)), tuple(range(151)), 3352
    ),
    # comp6: models that saw other data than VOC's, such as ImageNet (VOC 2012 devkit, section 5).
    "voc": Server(
        "pascal_voc",
        ".jpg",
        tuple(range(21)),
        tuple(range(21)),
        1456,
        folder="results/VOC2012/Segmentation/comp6_test_cls",
        is_tar=True,
        palette=tuple(color for _, color in pascal_voc.CLASSES),
        listed="ImageSets/Segmentation/test.txt",
    ),
}


def write(server: Server, path: Path, predictions: Predictions) -> None:
    """Writes predictions as the server expects; the file is complete or absent.

    Raises:
      UserError: the disk is full or cannot be written.
    """
    with replacing(path) as temporary:
        if server.is_tar:
            with tarfile.open(temporary, "w:gz") as archive:
                for name, labels in predictions:
                    data = server.encode(labels)
                    entry = tarfile.TarInfo(server.filename(text.shown(name)))
                    entry.size = len(data)
                    archive.addfile(entry, io.BytesIO(data))
        else:
            with zipfile.ZipFile(temporary, "w") as archive:
                for name, labels in predictions:
                    archive.writestr(server.filename(text.shown(name)), server.encode(labels))


@contextlib.contextmanager
def members(server: Server, path: Path) -> Iterator[list[tuple[str, Read]]]:
    """The files of an archive as (name, function that reads it).

    Raises:
      UserError: it is not an archive of the server's kind.
    """
    kind, opened = ("tar", _tar) if server.is_tar else ("zip", _zip)
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(opened(path))
        except READ_ERRORS as error:
            raise UserError(f"--check {path}: not a {kind} file that can be read.") from error
        yield found


@contextlib.contextmanager
def _zip(path: Path) -> Iterator[list[tuple[str, Read]]]:
    with zipfile.ZipFile(path) as archive:
        files = [entry for entry in archive.infolist() if not entry.is_dir()]
        yield [(entry.filename, partial(archive.read, entry)) for entry in files]


@contextlib.contextmanager
def _tar(path: Path) -> Iterator[list[tuple[str, Read]]]:
    with tarfile.open(path) as archive:
        files = [entry for entry in archive.getmembers() if not entry.isdir()]
        yield [(entry.name.removeprefix("./"), partial(_read, archive, entry)) for entry in files]


def _read(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(entry)
    if file is None:
        raise OSError("it is a link or a device")
    return file.read()
