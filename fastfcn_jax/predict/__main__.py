"""`fastfcn predict`: labels photographs and videos."""

import sys
from argparse import Namespace

from fastfcn_jax import cli, text

SOME_FAILED = 1


def define(parser: cli.Parser) -> None:
    parser.add_argument(
        "--checkpoint", type=cli.path, metavar="DIR", help="Checkpoint folder, or published name."
    )
    parser.add_argument(
        "--model", type=cli.path, metavar="FILE", help="Exported file, instead of --checkpoint."
    )
    parser.need("--input", "photo.jpg", "Image, folder, pattern in quotes, video, or -.")
    parser.need("--output", "predictions", "Folder for the results.", type=cli.path, metavar="DIR")
    parser.add_argument("--protocol", help="single | ms_flip | …; default: the model's.")
    parser.add_argument("--batch-size", type=cli.at_least(1), metavar="N", help="Images per pass.")
    parser.add_argument("--legend", action="store_true", help="List the classes below the overlay.")
    parser.add_argument(
        "--confidence", action="store_true", help="Also write OUT/<stem>_confidence.png."
    )
    parser.add_argument(
        "--save-logits", action="store_true", help="Also write OUT/<stem>.npy, (H, W, classes)."
    )
    parser.add_argument(
        "--tile",
        type=cli.at_least(0),
        default=0,
        metavar="PIXELS",
        help="Predict at the image's own resolution, in overlapping tiles of this side.",
    )


def run(arguments: Namespace) -> int:
    from fastfcn_jax.predict import outputs

    summary = outputs.predict(
        arguments.input,
        arguments.output,
        checkpoint=arguments.checkpoint,
        model=arguments.model,
        protocol=arguments.protocol,
        batch_size=arguments.batch_size,
        legend=arguments.legend,
        confidence=arguments.confidence,
        save_logits=arguments.save_logits,
        tile=arguments.tile,
    )
    for failure in summary.failures:
        print(f"skipped: {text.shown(failure)}", file=sys.stderr)
    return SOME_FAILED if summary.failures else 0


COMMAND = cli.Command(
    name="predict",
    example="fastfcn predict --checkpoint runs/demo --input photo.jpg --output predictions",
    about="""Labels photographs and videos.

Writes OUT/<stem>.png (class indices) and OUT/<stem>_overlay.png for every photograph, in the same
sub-folders as the input's; for a video OUT/<stem>_overlay.mp4 and OUT/<stem>/<frame>.png. A bad
file does not stop the others: it is reported at the end, and the exit status is 1.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
