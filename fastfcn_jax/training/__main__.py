"""`fastfcn train`: trains a configuration."""

import sys
from argparse import Namespace

from fastfcn_jax import cli, launch


def define(parser: cli.Parser) -> None:
    parser.add_config("Experiment to train.")
    parser.add_argument(
        "--workdir", type=cli.path, metavar="DIR", help="Default: runs/<configuration>[-variant]."
    )
    launch.define(parser)


def run(arguments: Namespace) -> int:
    if (status := launch.several(arguments)) is not None:
        return status
    from fastfcn_jax.training import start

    return start.train(
        arguments.config,
        arguments.workdir or start.default_workdir(arguments.spec),
        coordinator=arguments.coordinator,
        num_processes=arguments.num_processes,
        process_id=arguments.process_id,
    )


COMMAND = cli.Command(
    name="train",
    example="fastfcn train --config jpu_psp_cityscapes --config.data.root=CITYSCAPES",
    about="""Trains an experiment, or resumes the training in --workdir where it stopped.

Writes checkpoints, metrics.jsonl, tensorboard, run.json, report.html and pictures to DIR. Ctrl-C
finishes the current step, saves a checkpoint and exits.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
