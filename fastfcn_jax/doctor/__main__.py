"""`fastfcn doctor`: checks an experiment, or turns a folder of photographs into a data set."""

import os
import sys
from argparse import Namespace
from pathlib import Path

from fastfcn_jax import cli, text
from fastfcn_jax.errors import UserError


def define(parser: cli.Parser) -> None:
    parser.add_config("Experiment to check.", needed=False)
    parser.add_argument(
        "--folder", type=cli.path, metavar="PHOTOS", help="Folder of photographs and labels."
    )
    parser.add_argument(
        "--checkpoint",
        type=cli.path,
        metavar="DIR",
        help="Model to compare with the data: a folder or a published name.",
    )
    parser.add_argument(
        "--images", type=cli.path, metavar="OUT", help="Folder for pictures of augmented samples."
    )
    parser.add_argument(
        "--workdir", type=cli.path, default=Path("runs"), help="Where checkpoints will be written."
    )
    parser.add_argument(
        "--samples", type=cli.at_least(1), default=200, help="Images to read from each split."
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="Replace what --folder wrote before; the old files are kept as .bak.",
    )
    _define_review(parser)
    _define_adoption(parser.add_argument_group("choices that --folder otherwise makes itself"))


def _define_review(parser: cli.Parser) -> None:
    parser.add_argument(
        "--suspects",
        type=cli.at_least(1),
        metavar="N",
        help="With --checkpoint: list the N labels that the model contradicts most.",
    )
    parser.add_argument(
        "--next",
        type=cli.path,
        metavar="PHOTOS",
        help="With --checkpoint: list which photographs of a folder to label next.",
    )
    parser.add_argument(
        "--count", type=cli.at_least(1), default=20, metavar="N", help="How many --next lists."
    )
    parser.add_argument(
        "--output",
        type=cli.path,
        metavar="DIR",
        help="For these lists; default: suspects/ or next/ in the checkpoint folder.",
    )


def _define_adoption(group) -> None:
    group.add_argument(
        "--photos",
        default="",
        type=os.path.expanduser,
        metavar="PATTERN",
        help="Sub-folder of all photographs, or a pattern such as 'a/*_rgb.png'.",
    )
    group.add_argument(
        "--labels",
        default="",
        type=os.path.expanduser,
        metavar="PATTERN",
        help="Sub-folder of all labels or outlines, or a pattern.",
    )
    group.add_argument(
        "--names",
        default="",
        type=os.path.expanduser,
        metavar="FILE|none",
        help="List of class names, or 'none' for no list.",
    )
    group.add_argument(
        "--split",
        choices=("auto", "fifth"),
        default="auto",
        help="auto: by lists and folders; fifth: one photograph in five validates.",
    )
    group.add_argument(
        "--update",
        action="store_true",
        help="Add new photographs to a folder, keeping its classes and split.",
    )
    group.add_argument(
        "--skip_bad", action="store_true", help="Leave out files that cannot be used."
    )
    group.add_argument(
        "--clean", action="store_true", help="Repair labels with smooth edges or stray colours."
    )
    group.add_argument(
        "--empty", action="store_true", help="Label photographs without an outline as background."
    )
    group.add_argument(
        "--palettes",
        choices=("auto", "numbers", "colors"),
        default="auto",
        help="What labels with a palette mean; auto: their numbers, if all palettes agree.",
    )
    group.add_argument(
        "--channels",
        choices=("auto", "rgb", "all"),
        default="auto",
        help="What photos hold; auto: all channels but transparency; rgb: read as 8-bit RGB.",
    )


def run(arguments: Namespace) -> int:
    if arguments.folder is not None:
        from fastfcn_jax.doctor import adopt

        lines = adopt.adopt(
            arguments.folder,
            photos=arguments.photos,
            labels=arguments.labels,
            names=arguments.names,
            split=arguments.split,
            update=arguments.update,
            overwrite=arguments.overwrite,
            skip_bad=arguments.skip_bad,
            clean=arguments.clean,
            empty=arguments.empty,
            palettes=arguments.palettes,
            channels=arguments.channels,
        )
        print("\n".join(lines))
        return 0
    if arguments.suspects or arguments.next:
        return _look(arguments)
    if arguments.config is None:
        raise UserError(
            "give --config CONFIG, or --folder PHOTOS for photographs of your own; for example "
            "--config jpu_psp_cityscapes."
        )
    from fastfcn_jax.doctor import consult

    fine = consult.doctor(
        arguments.config,
        samples=arguments.samples,
        checkpoint=arguments.checkpoint,
        workdir=arguments.workdir,
        images=arguments.images,
    )
    return 0 if fine else 1


def _look(arguments: Namespace) -> int:
    """Looks at labels or photographs with a trained model."""
    if arguments.checkpoint is None:
        flag = "--suspects" if arguments.suspects else "--next"
        raise UserError(f"{flag} needs a trained model, for example --checkpoint runs/demo.")
    failures = []
    options = {"config": arguments.config, "output": arguments.output}
    if arguments.suspects:
        from fastfcn_jax.doctor import suspects

        suspects.review(arguments.checkpoint, arguments.suspects, **options)
    if arguments.next:
        from fastfcn_jax.doctor import next_labels

        found = next_labels.suggest(
            arguments.checkpoint, str(arguments.next), arguments.count, **options
        )
        failures = found.failures
    for failure in failures:
        print(f"skipped: {text.shown(failure)}", file=sys.stderr)
    return int(bool(failures))


COMMAND = cli.Command(
    name="doctor",
    example="fastfcn doctor --config jpu_psp_cityscapes --config.data.root=CITYSCAPES",
    about="""Checks an experiment before it costs time: data, labels, disk, devices, memory.
Each problem has a remedy; the exit status is 1 if one would stop or ruin a run.

With --folder PHOTOS it finds photographs and their labels in a folder of your own and writes a
configuration for them. With --checkpoint DIR, --suspects N lists labels that are probably wrong,
and --next PHOTOS the photographs to label next.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
