"""`fastfcn predict`: labels photographs and videos."""

import functools
import sys
from argparse import Namespace

from fastfcn_jax import cli, launch, ray_cluster, text
from fastfcn_jax.predict.settings import POLYGONS, VALUES

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
    parser.add_argument(
        "--tile",
        type=cli.at_least(0),
        default=0,
        metavar="PIXELS",
        help="At the image's own resolution, in overlapping tiles of this side.",
    )
    add = functools.partial(_switch, parser)
    add("--no-overlay", "Write labels without overlays.")
    add("--legend", "List the classes below the overlay.")
    add("--confidence", "Also write OUT/<stem>_confidence.png.")
    add("--save-logits", "Also write OUT/<stem>.npy, (H, W, classes).")
    parser.add_argument(
        "--values",
        choices=VALUES,
        default="classes",
        help="stored: label maps hold what the data set's labels hold, such as 0 and 255.",
    )
    parser.add_argument("--polygons", choices=POLYGONS, help="Also write the regions' outlines.")
    add("--no-georeference", "Treat a GeoTIFF as a picture; else it gives a GeoTIFF.")
    add("--keep-suffix", "a.jpg gives a.jpg.png, so that a.jpg and a.png stay apart.")
    add("--skip-existing", "Go on: leave out what this model and these settings have done.")
    launch.define_ray(parser)
    parser.add_argument(
        "--shard", metavar="I/N", help="Share I (from 0) of N; by itself under srun and mpirun."
    )


def _switch(parser: cli.Parser, name: str, words: str) -> None:
    parser.add_argument(name, action="store_true", help=words)


def run(arguments: Namespace) -> int:
    choices = {
        "checkpoint": arguments.checkpoint,
        "model": arguments.model,
        "protocol": arguments.protocol,
        "batch_size": arguments.batch_size,
        "overlay": not arguments.no_overlay,
        "legend": arguments.legend,
        "confidence": arguments.confidence,
        "save_logits": arguments.save_logits,
        "values": arguments.values,
        "polygons": arguments.polygons,
        "georeference": not arguments.no_georeference,
        "keep_suffix": arguments.keep_suffix,
        "tile": arguments.tile,
        "skip_existing": arguments.skip_existing,
    }
    if arguments.ray is None:
        from fastfcn_jax.predict import outputs

        summary = outputs.predict(
            arguments.input, arguments.output, shard=arguments.shard, **choices
        )
    else:
        from fastfcn_jax.predict import ray_job

        ray_cluster.refuse(shard=arguments.shard)
        summary = ray_job.predict(arguments.input, arguments.output, arguments.ray, **choices)
    for failure in summary.failures:
        print(f"skipped: {text.shown(failure)}", file=sys.stderr)
    return SOME_FAILED if summary.failures else 0


COMMAND = cli.Command(
    name="predict",
    example="fastfcn predict --checkpoint runs/demo --input photo.jpg --output predictions",
    about="""Labels photographs and videos.

Writes OUT/<stem>.png (class indices) and OUT/<stem>_overlay.png for every photograph, in the same
sub-folders as the input's; for a video OUT/<stem>_overlay.mp4 and OUT/<stem>/<frame>.png; and a
line for each in OUT/predictions.jsonl. A bad file does not stop the others: it is reported at the
end, and the exit status is 1.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
