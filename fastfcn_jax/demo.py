"""Trains, evaluates and predicts on generated street scenes; no data set is needed."""

import sys
from argparse import Namespace
from pathlib import Path

from fastfcn_jax import cli

PHOTOGRAPHS = 6


def demo(workdir: str | Path = "runs/demo", *, steps: int = 0) -> int:
    """Trains `configs/demo.py`, scores it on the held-out scenes and labels six of them.

    Args:
      workdir: folder for all output; a second call resumes an interrupted training.
      steps: number of training steps; 0: the configured number.

    Returns:
      The exit status: 0, or that of the training if a signal stopped it; nothing is evaluated then.

    Raises:
      UserError: the folder cannot be written.
    """
    from fastfcn_jax.config import experiment
    from fastfcn_jax.evaluation.run import evaluate_folder
    from fastfcn_jax.predict.outputs import predict
    from fastfcn_jax.training import start

    workdir = Path(workdir).expanduser()
    config = experiment.load("demo")
    config.train.steps = steps or config.train.steps
    if status := start.train(config, workdir):
        return status
    evaluate_folder(workdir, output=workdir / "evaluation")
    write_photographs(workdir / "photos")
    predict(workdir / "photos", workdir / "predictions", checkpoint=workdir)
    print(f"checkpoint   {workdir / 'checkpoints'}")
    print(f"scores       {workdir / 'evaluation' / 'metrics.json'}, report.html")
    print(f"predictions  {workdir / 'predictions'}")
    return 0


def write_photographs(folder: Path, count: int = PHOTOGRAPHS) -> None:
    """Saves the first held-out scenes as `<id>.png`."""
    from fastfcn_jax import files
    from fastfcn_jax.data import datasets

    source = datasets.load("synthetic", "", "val")
    files.make_folder(folder)
    for i in range(min(count, len(source))):
        files.write_image(folder / f"{source.ids[i].replace('/', '_')}.png", source[i].image)


def define(parser: cli.Parser) -> None:
    parser.add_argument(
        "--workdir", type=cli.path, default=Path("runs/demo"), help="Default: runs/demo."
    )
    parser.add_argument(
        "--steps", type=cli.at_least(0), default=0, metavar="N", help="Fewer, for a quick look."
    )


def run(arguments: Namespace) -> int:
    return demo(arguments.workdir, steps=arguments.steps)


COMMAND = cli.Command(
    name="demo",
    example="fastfcn demo",
    about="""Trains a small FastFCN on generated street scenes, scores it on held-out scenes and
labels six of them, in a few minutes on two cores. Writes the checkpoint, scores, a report and
pictures to runs/demo.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
