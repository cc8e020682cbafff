"""`fastfcn weights`: published weights by name."""

import sys
from argparse import Namespace

from fastfcn_jax import cli
from fastfcn_jax.errors import UserError


def define(parser: cli.Parser) -> None:
    parser.add_argument("what", nargs="?", choices=["list", "get", "where"], help="What to do.")
    parser.add_argument("name", nargs="?", help="A name from `list`, or the publisher's own.")
    parser.add_argument(
        "--offline", action="store_true", help="Do not use the network (also: FASTFCN_OFFLINE=1)."
    )


def run(arguments: Namespace) -> None:
    from fastfcn_jax.weights import store

    match arguments.what, arguments.name:
        case "list", None:
            print(table())
        case "get", str(name):
            backbone = store.where(name).entry.is_backbone
            get = store.get_file if backbone else store.get
            print(get(name, offline=arguments.offline))
        case "where", str(name):
            print(described(name))
        case _:
            raise UserError("say what: fastfcn weights list, get NAME, or where NAME.")


def table() -> str:
    """One line per name: published mIoU (single scale, multi-scale and flip), copy, source."""
    from fastfcn_jax.config import experiment
    from fastfcn_jax.weights import registry, store

    lines = [f"{'name':45} {'mIoU':>6} {'ms+flip':>7}  here  {'licence':12} source"]
    for entry in registry.ENTRIES.values():
        scores = ("", "")
        if entry.config:
            published = experiment.load(entry.config).published
            figures = (published.miou, published.miou_ms_flip)
            scores = tuple(f"{x:.2f}" if x else "-" for x in figures)
        here = "yes" if entry.bundled or store.where(entry.name).is_here else ""
        lines.append(
            f"{entry.name:45} {scores[0]:>6} {scores[1]:>7}  {here:4}  {entry.licence:12} "
            f"{entry.source}"
        )
    return "\n".join(lines)


def described(name: str) -> str:
    """Address, checksum and local paths of a name, one per line."""
    from fastfcn_jax.weights import store

    place = store.where(name)
    entry = place.entry
    origin = entry.source if entry.bundled else f"linked from {entry.source}"
    here = {True: "", False: "  (not yet here)"}
    lines = [
        f"name      {entry.name}",
        f"address   {entry.address or origin}",
        f"checksum  {entry.checksum or 'none published'}",
        f"file      {place.file}{here[place.file.exists()]}",
    ]
    if entry.is_backbone:
        lines.append(f"model     {entry.flags}")
    elif place.folder is not None:
        lines.append(f"folder    {place.folder}{here[place.folder.exists()]}")
    return "\n".join(lines)


COMMAND = cli.Command(
    name="weights",
    example="fastfcn weights get jpu_psp_cityscapes",
    about="""Published weights by name.

list shows the names; get fetches a file, verifies its checksum, converts it once and prints the
checkpoint folder; where shows address and local paths. --checkpoint takes the names as well.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
