"""`fastfcn eval`: the scores of a checkpoint folder."""

import sys
from argparse import Namespace

from fastfcn_jax import cli
from fastfcn_jax.errors import UserError

# Flags of an evaluation, which --mean would not heed.
EVALUATING = (
    *("checkpoint", "config", "protocol", "output", "compare", "calibration", "boundary"),
)


def define(parser: cli.Parser) -> None:
    parser.need(
        "--checkpoint",
        "runs/demo",
        "Checkpoint folder, or published name.",
        unless="mean",
        type=cli.path,
        metavar="DIR",
    )
    parser.add_config("Other data or test settings than the stored ones.", needed=False)
    parser.add_argument("--protocol", help="single | ms_flip | …; default: config.eval.protocol.")
    parser.add_argument(
        "--output",
        type=cli.path,
        metavar="DIR",
        help="Default: eval/ in the checkpoint folder; eval_NAME/ for a published name.",
    )
    parser.add_argument(
        "--compare",
        type=cli.path,
        metavar="FILE",
        help="metrics.json of another evaluation: the difference, with its interval.",
    )
    parser.add_argument(
        "--mean",
        type=cli.path,
        nargs="+",
        metavar="RUN",
        help="Evaluate nothing: print mean and deviation of stored scores of runs, one per seed.",
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="On a Ray cluster: of this HOST:PORT, of RAY_ADDRESS, or of this host.",
    )
    parser.add_argument(
        "--calibration", action="store_true", help="Also compute the calibration error (ECE)."
    )
    parser.add_argument("--boundary", action="store_true", help="Also compute boundary IoU.")


def run(arguments: Namespace) -> None:
    if arguments.mean is not None:
        from fastfcn_jax.evaluation import over_runs

        if given := [name for name in EVALUATING if getattr(arguments, name)]:
            raise UserError(f"--mean evaluates nothing; leave --{given[0]} out.")
        over_runs.print_summary(over_runs.summarize(arguments.mean))
        return
    from fastfcn_jax.evaluation.run import evaluate_folder

    evaluate_folder(
        arguments.checkpoint,
        config=arguments.config,
        protocol=arguments.protocol,
        output=arguments.output,
        compare=arguments.compare,
        calibration=arguments.calibration,
        boundary=arguments.boundary,
        ray=arguments.ray,
    )


COMMAND = cli.Command(
    name="eval",
    example="fastfcn eval --checkpoint runs/demo --protocol ms_flip --output scores",
    about="""Scores a model on its validation split.

Prints IoU and accuracy of every class and leaves OUT/metrics.json and OUT/report.html.
`--mean RUN RUN ...` prints the mean and the deviation of scores that are already there.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
