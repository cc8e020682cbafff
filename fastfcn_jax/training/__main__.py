"""`fastfcn train`: trains a configuration."""

import sys
from argparse import Namespace

from fastfcn_jax import cli


def define(parser: cli.Parser) -> None:
    parser.add_config("Experiment to train.")
    parser.add_argument(
        "--workdir", type=cli.path, metavar="DIR", help="Default: runs/<configuration>[-variant]."
    )
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="Process 0, if several train.")
    parser.add_argument(
        "--num-processes", type=cli.at_least(1), metavar="N", help="Number of processes."
    )
    parser.add_argument(
        "--process-id", type=cli.at_least(0), metavar="I", help="Index of this process, from 0."
    )


def run(arguments: Namespace) -> int:
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
