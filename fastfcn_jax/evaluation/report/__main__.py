"""`fastfcn report`: compares runs in one page."""

import sys
from argparse import Namespace
from pathlib import Path

from fastfcn_jax import cli


def define(parser: cli.Parser) -> None:
    parser.add_argument(
        "runs",
        nargs="*",
        type=cli.path,
        metavar="RUN",
        help="Workdirs of trainings, or --output folders of `fastfcn eval`.",
    )
    parser.add_argument(
        "--output",
        type=cli.path,
        default=Path("comparison.html"),
        metavar="FILE",
        help="The page; default: comparison.html.",
    )


def run(arguments: Namespace) -> None:
    from fastfcn_jax.evaluation.report import comparison

    comparison.report(arguments.runs, arguments.output)


COMMAND = cli.Command(
    name="report",
    example="fastfcn report runs/a runs/b --output comparison.html",
    about="""Compares any number of runs in one page: their curves over one another, scores with
intervals, IoU of every class, and the settings in which they differ. The first run is the one that
the others are compared with. Loads no model and needs no data set.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
