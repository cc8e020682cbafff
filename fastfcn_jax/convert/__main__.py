"""`fastfcn convert`: PyTorch weights in and out."""

import sys
from argparse import Namespace

from fastfcn_jax import cli


def define(parser: cli.Parser) -> None:
    parser.need("--input", "FILE.pth", "A file of weights, or a checkpoint folder.", type=cli.path)
    parser.need("--output", "converted", "What to write: a folder, or a file.", type=cli.path)
    parser.add_config("The model that the file holds; auto (default): recognise it.", auto=True)
    parser.add_argument(
        "--classes", type=cli.path, metavar="FILE", help="Class names: JSON, YAML or one per line."
    )
    parser.add_argument(
        "--weights",
        choices=["ema", "model"],
        help="Which to take if the file has averaged (ema) and plain weights; default: ema.",
    )
    parser.add_argument(
        "--to",
        choices=["mmseg", "official", "paddleseg"],
        help="Which code the written file is for.",
    )
    parser.add_argument(
        "--reset-head", action="store_true", help="Initialise new classifiers (fine-tuning)."
    )


def run(arguments: Namespace) -> None:
    from fastfcn_jax.convert.convert import convert

    said = convert(
        arguments.input,
        arguments.output,
        config="auto" if arguments.config is None else arguments.config,
        classes=arguments.classes,
        weights=arguments.weights,
        to=arguments.to,
        reset_head=arguments.reset_head,
    )
    print(said if arguments.spec is None else f"{said}  ({arguments.spec})")


COMMAND = cli.Command(
    name="convert",
    example="fastfcn convert --input FILE.pth --output converted",
    about="""Turns a .pth, .safetensors or .pdparams file of mmsegmentation, of the official code or
of PaddleSeg into a checkpoint folder, or back (--input DIR --output FILE --to LINEAGE).

The model is recognised from the names and shapes in the file, its classes from the file's metadata.
With --config, the file must agree with the configuration in lineage, depth, neck, head, widths and
class count. Nothing in the file is executed.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
