"""`fastfcn bench`: where the time of a training step goes on this device."""

import sys
from argparse import Namespace

from fastfcn_jax import cli


def define(parser: cli.Parser) -> None:
    parser.add_config("Experiment to measure.")
    parser.add_argument(
        "--batch",
        type=cli.at_least(0),
        default=0,
        metavar="N",
        help="Images at a time; default: config.train.batch_size.",
    )
    parser.add_argument(
        "--rounds", type=cli.at_least(1), default=5, metavar="N", help="Turns that each part takes."
    )
    parser.add_argument(
        "--notwin", dest="twin", action="store_false", help="Leave out the dilated twin of a JPU."
    )
    parser.add_argument("--json", type=cli.path, metavar="FILE", help="File for the figures.")


def run(arguments: Namespace) -> None:
    from fastfcn_jax import files
    from fastfcn_jax.bench import parts

    found = parts.measured(
        arguments.config,
        batch=arguments.batch,
        rounds=arguments.rounds,
        with_twin=arguments.twin,
    )
    print(parts.table(found))
    if arguments.json is not None:
        files.write_json(arguments.json, found)


COMMAND = cli.Command(
    name="bench",
    example="fastfcn bench --config jpu_psp_cityscapes --batch 2",
    about="""Measures a training step and prediction part by part, with random weights and images.

"training" is one forward and backward pass of the part; "roofline" the share of its time that its
arithmetic or memory traffic takes at the rates measured on this device. The image size is
config.data.crop_size.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
