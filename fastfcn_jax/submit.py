"""Makes and checks submission files for the test servers of Cityscapes, ADE20K and Pascal VOC."""

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from fastfcn_jax import cli, servers, text
from fastfcn_jax.data import datasets, decode
from fastfcn_jax.data.source import read_file
from fastfcn_jax.errors import UserError
from fastfcn_jax.servers import SERVERS, Server
from fastfcn_jax.terminal.progress import track

FINDINGS = 1  # exit status of a check that found something
MAX_LISTED = 20


def check(server: Server, archive_path: Path, images: dict[str, Path]) -> list[str]:
    """Returns what the server would reject, one sentence each.

    Raises:
      UserError: the file is not an archive of the server's kind.
    """
    findings: list[str] = []
    if len(images) != server.expected:
        findings.append(f"{len(images)} test images are here, the server has {server.expected}.")
    with servers.members(server, archive_path) as members:
        owners = {filename: server.owner(filename, images) for filename, _ in members}
        counts = Counter(owners[filename] for filename, _ in members)
        for name in images:
            if counts[name] != 1:
                findings.append(f"{name}: {counts[name]} predictions instead of one.")
        for filename, read in track(members, len(members), "checking"):
            name = owners[filename]
            if name is None:
                findings.append(f"{filename}: {_no_owner(server)}.")
            else:
                findings += _check_member(server, filename, read, images[name])
    return findings


def _no_owner(server: Server) -> str:
    if server.folder:
        return f"not {server.folder}/ and the name of a test image"
    return "belongs to no test image"


def _check_member(server: Server, filename: str, read: servers.Read, image: Path) -> list[str]:
    try:
        data = read()
    except servers.READ_ERRORS as error:
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
    model = api.load(checkpoint, protocol=protocol, quiet=True)  # `announce` says it
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
    """Predicts the test images, packs and checks the results; or checks an existing archive.

    Args:
      images: folder of the test images.
      checkpoint, output: the model and the archive to write.
      archive: an existing archive, which is only checked.
      protocol: how to test ("single", "ms_flip", ...); None: the configured protocol.

    Returns:
      What the server would reject, one sentence each.

    Raises:
      UserError: no images, no model, a model of other classes, or a file that cannot be written.
    """
    found = server.images(images)
    if archive is None:
        if checkpoint is None or output is None:
            raise UserError(
                "--checkpoint or --output is missing; for example --checkpoint "
                "runs/jpu_psp_cityscapes --output FILE.zip, or --check FILE.zip to check a file."
            )
        if output.is_dir() or not output.absolute().parent.is_dir():
            raise UserError(f"--output {output}: give the name of a file in a folder that exists.")
        predictions = _predict(server, found, checkpoint, protocol)
        servers.write(server, output, track(predictions, len(found), "predicting"))
        archive = output
    return check(server, archive, found)


def define(parser: cli.Parser) -> None:
    parser.add_argument("server", nargs="?", choices=list(SERVERS), help="The test server.")
    parser.need("--images", "leftImg8bit/test", "Folder of the test images.", type=cli.path)
    parser.add_argument(
        "--checkpoint", type=cli.path, metavar="DIR", help="Checkpoint folder or published name."
    )
    parser.add_argument("--output", type=cli.path, metavar="FILE", help="The archive to write.")
    parser.add_argument("--check", type=cli.path, metavar="FILE", help="Only check this archive.")
    parser.add_argument("--protocol", help="single | ms_flip | …; default: the model's.")


def run(arguments: Namespace) -> int:
    if arguments.server is None:
        raise UserError(
            f"the server is missing, {' or '.join(SERVERS)}; for example {COMMAND.example}."
        )
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
    about="""Predicts the test images, writes the archive that the server expects, and checks it;
--check FILE only checks one. The exit status is 1 if the server would reject something.

Cityscapes expects label ids 0..33 in one PNG per image, <city>_<sequence>_<frame>*.png; ADE20K
expects 1..150 (0 = other) in PNGs named like the images; voc 0..20 in palette PNGs in
results/VOC2012/Segmentation/comp6_test_cls/ of a .tgz. Of VOC's JPEGImages/ those are taken that
ImageSets/Segmentation/test.txt beside it names.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
