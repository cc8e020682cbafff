"""`fastfcn convert`: PyTorch weights in and out."""

import sys
from argparse import Namespace

from fastfcn_jax import cli


def define(parser: cli.Parser) -> None:
    parser.need("--input", "FILE.pth", "A .pth file, or a checkpoint folder.", type=cli.path)
    parser.need("--output", "converted", "What to write: the other one.", type=cli.path)
    parser.add_config("The model that the .pth file holds.", needed=False)
    parser.add_argument(
        "--to", choices=["mmseg", "official"], help="Whose code the written .pth file is for."
    )
    parser.add_argument(
        "--reset-head", action="store_true", help="Start the classifiers anew (fine-tuning)."
    )


def run(arguments: Namespace) -> None:
    from fastfcn_jax.convert.convert import convert

    said = convert(
        arguments.input,
        arguments.output,
        config=arguments.config,
        to=arguments.to,
        reset_head=arguments.reset_head,
    )
    print(said if arguments.spec is None else f"{said}  ({arguments.spec})")


COMMAND = cli.Command(
    name="convert",
    example="fastfcn convert --input FILE.pth --config jpu_psp_cityscapes --output converted",
    about="""Turns a .pth file of mmsegmentation or of the official code into a checkpoint folder,
or (--input DIR --output FILE.pth --to mmseg|official) back.

The file is compared with the configuration: lineage, depth, neck, head, widths and classes have to
agree. Nothing in the file is executed.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
