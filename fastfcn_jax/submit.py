"""Makes and checks submission files for the Cityscapes and ADE20K test servers."""

import dataclasses
import sys
import zipfile
import zlib
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from jaxtyping import UInt8

from fastfcn_jax import cli, text
from fastfcn_jax.data import datasets, decode, listing
from fastfcn_jax.data.datasets import ade20k, cityscapes
from fastfcn_jax.data.source import read_file
from fastfcn_jax.errors import UserError
from fastfcn_jax.files import replacing
from fastfcn_jax.terminal.progress import track

FINDINGS = 1  # exit status of a check that found something
MAX_LISTED = 20


@dataclasses.dataclass(frozen=True)
class Server:
    """What a test server expects.

    suffix: suffix of the image files; the rest of a file name is the name of the image.
    values: stored value of each class, in the model's order.
    legal: all values allowed in a file.
    expected: number of test images.
    """

    name: str
    suffix: str
    values: tuple[int, ...]
    legal: tuple[int, ...]
    expected: int

    def encode(self, labels: UInt8[np.ndarray, "h w"]) -> bytes:
        """Encodes class indices as a PNG of stored values; 255 becomes 0."""
        table = np.zeros(256, np.uint8)
        table[: len(self.values)] = self.values
        return cv2.imencode(".png", table[labels])[1].tobytes()

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
        return named


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
}


def write_zip(
    server: Server, path: Path, predictions: Iterable[tuple[str, UInt8[np.ndarray, "_ _"]]]
) -> None:
    """Writes (image name, class indices) as the server expects; the file is complete or absent.

    Raises:
      UserError: the disk is full or cannot be written.
    """
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, labels in predictions:
            archive.writestr(f"{text.shown(name)}.png", server.encode(labels))


def check(server: Server, archive_path: Path, images: dict[str, Path]) -> list[str]:
    """Returns what the server would reject, one sentence each.

    Raises:
      UserError: the file is not a zip file.
    """
    findings: list[str] = []
    if len(images) != server.expected:
        findings.append(f"{len(images)} test images are here, the server has {server.expected}.")
    try:
        archive = zipfile.ZipFile(archive_path)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"--check {archive_path}: not a zip file that can be read.") from error
    with archive:
        members = [entry for entry in archive.infolist() if not entry.is_dir()]
        owners = {entry.filename: _owner(entry.filename, images) for entry in members}
        counts = Counter(owners.values())
        for name in images:
            if counts[name] != 1:
                findings.append(f"{name}: {counts[name]} predictions instead of one.")
        for entry in track(members, len(members), "checking"):
            name = owners[entry.filename]
            if name is None:
                findings.append(f"{entry.filename}: belongs to no test image.")
            else:
                findings += _check_member(server, archive, entry, images[name])
    return findings


def _owner(filename: str, images: dict[str, Path]) -> str | None:
    stem = PurePosixPath(filename).name.removesuffix(".png")
    if not filename.endswith(".png"):
        return None
    # Cityscapes allows any text after the frame number: try shorter and shorter prefixes.
    parts = stem.split("_")
    for length in range(len(parts), 0, -1):
        if (name := "_".join(parts[:length])) in images:
            return name
    return None


def _check_member(
    server: Server, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, image: Path
) -> list[str]:
    filename = entry.filename
    try:
        data = archive.read(entry)
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        return [f"{filename}: cannot be read ({error})."]
    try:
        labels = decode.label(data, filename)
        size = decode.size(read_file(str(image)), str(image))
    except UserError as error:
        return [str(error)]
    if labels.ndim != 2:
        return [f"{filename}: a colour image; it must have one grey channel of 8 bits."]
    if labels.shape != size:
        return [
            f"{filename}: {labels.shape[1]}x{labels.shape[0]} pixels, "
            f"the image has {size[1]}x{size[0]}."
        ]
    illegal = sorted(set(np.unique(labels).tolist()) - set(server.legal))
    if illegal:
        last = server.legal[-1]
        return [f"{filename}: values {illegal[:5]} are not label ids (0..{last})."]
    return []


def _predict(server: Server, images: dict[str, Path], checkpoint: Path, protocol: str | None):
    """Yields (name, class indices) of each image; UserError if the model's classes do not fit."""
    from fastfcn_jax import api, runtime
    from fastfcn_jax.checkpoints import model_folder

    runtime.cache_compilations()
    model = api.load(checkpoint, protocol=protocol)
    if note := model_folder.compare_classes(checkpoint, model.info, datasets.info(server.name, "")):
        print(note)
    sizes = [size for path in images.values() for size in _size(path)]
    print(model.predictor.announce(sizes))
    for name, prediction in model.stream(_readable(images)):
        yield name, prediction.labels


def _size(path: Path) -> list[tuple[int, int]]:
    """[(height, width)], or [] for a bad file, which `_readable` will report."""
    try:
        return [decode.size(read_file(str(path)), str(path))]
    except UserError:
        return []


def _readable(images: dict[str, Path]) -> Iterator[tuple[str, UInt8[np.ndarray, "_ _ 3"]]]:
    """Yields name and pixels of each image; reports and skips bad files."""
    for name, path in images.items():
        try:
            yield name, decode.image(read_file(str(path)), str(path))
        except UserError as error:
            print(f"skipped: {text.shown(error)}", file=sys.stderr)


def submit(
    server: Server,
    images: Path,
    *,
    checkpoint: Path | None = None,
    output: Path | None = None,
    archive: Path | None = None,
    protocol: str | None = None,
) -> list[str]:
    """Predicts the test images, zips and checks the results; or checks an existing zip file.

    Args:
      images: folder of the test images.
      checkpoint, output: the model and the zip file to write.
      archive: an existing zip file, which is only checked.
      protocol: how to test ("single", "ms_flip", ...); None: the configured protocol.

    Returns:
      What the server would reject, one sentence each.

    Raises:
      UserError: no images, no model, a model of other classes, or a file that cannot be written.
    """
    found = server.images(images)
    if archive is None:
        if checkpoint is None or output is None:
            raise UserError("give --checkpoint and --output, or --check.")
        if output.is_dir() or not output.absolute().parent.is_dir():
            raise UserError(f"--output {output}: give the name of a file in a folder that exists.")
        predictions = _predict(server, found, checkpoint, protocol)
        write_zip(server, output, track(predictions, len(found), "predicting"))
        archive = output
    return check(server, archive, found)


def define(parser: cli.Parser) -> None:
    parser.add_argument("server", nargs="?", choices=list(SERVERS), help="The test server.")
    parser.need("--images", "leftImg8bit/test", "Folder of the test images.", type=cli.path)
    parser.add_argument(
        "--checkpoint", type=cli.path, metavar="DIR", help="Checkpoint folder or published name."
    )
    parser.add_argument("--output", type=cli.path, metavar="FILE", help="The zip file to write.")
    parser.add_argument("--check", type=cli.path, metavar="FILE", help="Only check this zip file.")
    parser.add_argument("--protocol", help="single | ms_flip | …; default: the model's.")


def run(arguments: Namespace) -> int:
    if arguments.server is None:
        raise UserError(f"the server is missing: give {' or '.join(SERVERS)}.")
    findings = submit(
        SERVERS[arguments.server],
        arguments.images,
        checkpoint=arguments.checkpoint,
        output=arguments.output,
        archive=arguments.check,
        protocol=arguments.protocol,
    )
    for finding in findings[:MAX_LISTED]:
        print(finding)
    if len(findings) > MAX_LISTED:
        print(f"... and {len(findings) - MAX_LISTED} more")
    path = arguments.check or arguments.output
    print(f"{path}: {len(findings)} findings" if findings else f"{path}: ready to submit")
    return FINDINGS if findings else 0


COMMAND = cli.Command(
    name="submit",
    example="fastfcn submit cityscapes --checkpoint runs/jpu_psp_cityscapes"
    " --images leftImg8bit/test --output FILE.zip",
    about="""Predicts the test images, writes the zip file that the server expects, and checks it;
--check FILE.zip only checks a file. The exit status is 1 if the server would reject something.

Cityscapes expects label ids 0..33 in one PNG per image, <city>_<sequence>_<frame>*.png; ADE20K
expects 1..150 (0 = other) in PNGs named like the images.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
