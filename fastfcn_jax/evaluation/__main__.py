"""`fastfcn eval`: the scores of a checkpoint folder."""

import sys
from argparse import Namespace
from collections.abc import Sequence

from fastfcn_jax import cli, launch, ray_cluster
from fastfcn_jax.errors import UserError

# Flags of an evaluation, which --merge and --mean would ignore.
EVALUATING = (
    *("checkpoint", "config", "protocol", "calibration", "boundary", "shard"),
    *("processes", "coordinator", "num_processes", "process_id", "ray"),
)
WRITING = ("output", "compare")


def define(parser: cli.Parser) -> None:
    parser.need(
        "--checkpoint",
        "runs/demo",
        "Checkpoint folder, or published name.",
        unless=("mean", "merge"),
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
        "--calibration", action="store_true", help="Also compute the calibration error (ECE)."
    )
    parser.add_argument("--boundary", action="store_true", help="Also compute boundary IoU.")
    parser.add_argument(
        "--shard", metavar="I/N", help="Count share I (from 0) of N of the images, for --merge."
    )
    parser.add_argument(
        "--merge",
        type=cli.path,
        nargs="+",
        metavar="SHARD",
        help="Evaluate nothing: add the counts of all shards; needs --output.",
    )
    launch.define(parser)
    launch.define_ray(parser)


def run(arguments: Namespace) -> int | None:
    if arguments.mean is not None:
        from fastfcn_jax.evaluation import over_runs

        _refuse(arguments, "mean", (*EVALUATING, *WRITING, "merge"))
        over_runs.print_summary(over_runs.summarize(arguments.mean))
        return None
    if arguments.merge is not None:
        from fastfcn_jax.evaluation.run import merge_shards

        _refuse(arguments, "merge", EVALUATING)
        if arguments.output is None:
            raise UserError("--output is missing; for example --merge shards --output scores.")
        merge_shards(arguments.merge, output=arguments.output, compare=arguments.compare)
        return None
    if arguments.shard and arguments.compare:
        raise UserError("--shard has no scores to compare; give --compare to --merge.")
    if arguments.ray is not None:
        ray_cluster.refuse(processes=arguments.processes)
    if (status := launch.several(arguments)) is not None:
        return status
    from fastfcn_jax.evaluation.run import evaluate_folder

    evaluate_folder(
        arguments.checkpoint,
        config=arguments.config,
        protocol=arguments.protocol,
        output=arguments.output,
        compare=arguments.compare,
        calibration=arguments.calibration,
        boundary=arguments.boundary,
        shard=arguments.shard,
        coordinator=arguments.coordinator,
        num_processes=arguments.num_processes,
        process_id=arguments.process_id,
        ray=arguments.ray,
    )
    return None


def _refuse(arguments: Namespace, flag: str, others: Sequence[str]) -> None:
    for name in others:
        if getattr(arguments, name) not in (None, False):
            words = name.replace("_", "-")
            raise UserError(f"--{flag} evaluates nothing; leave --{words} out.")


COMMAND = cli.Command(
    name="eval",
    example="fastfcn eval --checkpoint runs/demo --protocol ms_flip --output scores",
    about="""Scores a model on its validation split.

Prints IoU and accuracy of every class and leaves OUT/metrics.json and OUT/report.html.
Several processes divide the images; `--shard I/N` stores the counts of a share and `--merge SHARD
SHARD ...` adds them.
`--mean RUN RUN ...` prints the mean and the deviation of scores that are already there.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
