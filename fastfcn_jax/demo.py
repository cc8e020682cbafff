"""Trains, evaluates and predicts on generated street scenes; no data set is needed."""

import shlex
import sys
from argparse import Namespace
from pathlib import Path

from fastfcn_jax import cli
from fastfcn_jax.errors import UserError

PHOTOGRAPHS = 6
DRAWN, SIZE = 30, (360, 480)  # of `draw`; the size that camvid-small was trained at


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


def draw(folder: str | Path) -> int:
    """Draws a folder such as a user has: `photos/`, `labels/` of the same names, `classes.txt`.

    Args:
      folder: is created; must be absent or empty.

    Returns:
      0.

    Raises:
      UserError: the folder has files, or cannot be written.
    """
    from fastfcn_jax import files
    from fastfcn_jax.data.datasets import overcast
    from fastfcn_jax.data.datasets.synthetic import StreetScenes

    folder = Path(folder).expanduser()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"--draw {folder}: is in use; give a new folder.")
    streets = StreetScenes("train", SIZE)
    for part in ("photos", "labels"):
        files.make_folder(folder / part)
    for i in range(DRAWN):
        _, image, label = streets[i]
        photo = overcast.photograph(image, label)
        files.write_image(folder / "photos" / f"street_{i:02}.jpg", photo)
        files.write_image(folder / "labels" / f"street_{i:02}.png", label)
    files.write_text(folder / "classes.txt", "\n".join(streets.info.class_names) + "\n")
    print(f"drew {DRAWN} streets into {folder}: photos, labels, classes.txt; next:")
    photos = shlex.quote(str(folder / "photos"))
    print(f"  fastfcn predict --checkpoint camvid-small --input {photos} --output seen")
    print(f"  fastfcn doctor --folder {shlex.quote(str(folder))}")
    return 0


def define(parser: cli.Parser) -> None:
    parser.add_argument("--workdir", type=cli.path, metavar="DIR", help="Default: runs/demo.")
    parser.add_argument(
        "--steps", type=cli.at_least(0), default=0, metavar="N", help="Fewer, for a quick look."
    )
    parser.add_argument(
        "--draw",
        type=cli.path,
        metavar="FOLDER",
        help="Train nothing; draw 30 labelled photographs to try the other commands on.",
    )


def run(arguments: Namespace) -> int:
    if arguments.draw is not None:
        for flag in ("steps", "workdir"):
            if getattr(arguments, flag):
                raise UserError(f"--{flag}: --draw trains nothing; leave one of them out.")
        return draw(arguments.draw)
    return demo(arguments.workdir or Path("runs/demo"), steps=arguments.steps)


COMMAND = cli.Command(
    name="demo",
    example="fastfcn demo",
    about="""Trains a small FastFCN on generated street scenes, scores it on held-out scenes and
labels six of them, in a few minutes on two cores. Writes the checkpoint, scores, a report and
pictures to runs/demo. With --draw only draws photographs to try the other commands on.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
