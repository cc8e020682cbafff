"""`fastfcn export`: a checkpoint folder as one file for other programs."""

import re
import sys
from argparse import Namespace

from fastfcn_jax import cli
from fastfcn_jax.errors import UserError

FORMATS = ["stablehlo", "onnx", "safetensors", "tflite"]


def define(parser: cli.Parser) -> None:
    parser.need("--checkpoint", "runs/demo", "Checkpoint folder.", type=cli.path, metavar="DIR")
    parser.need("--format", "onnx", "What to write.", choices=FORMATS)
    parser.need("--output", "model.onnx", "File to write.", type=cli.path, metavar="FILE")
    parser.need("--size", "512 1024", "Height and width of the images.", nargs="+", metavar="N")
    parser.add_argument(
        "--image", type=cli.path, help="Photograph to compare on; default: a drawn street scene."
    )


def run(arguments: Namespace) -> None:
    size = parse_size(" ".join(arguments.size))
    from fastfcn_jax.export.export import export, speed

    output = arguments.output
    check, job = export(arguments.checkpoint, output, size, arguments.format, arguments.image)
    print(f"compared on {check.image}, {size[0]}x{size[1]}: {check}")
    print(f"{output.stat().st_size / 2**20:.1f} MiB -> {output}")
    if arguments.format == "onnx":
        print(speed(job, output))


def parse_size(words: str) -> tuple[int, int]:
    """ "512 1024" (or with x or a comma between) as height and width.

    Raises:
      UserError: not two numbers from 32 to 8192 pixels.
    """
    numbers = re.fullmatch(r"([0-9]{1,4})[\s,x]+([0-9]{1,4})", words.strip())
    size = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    if not all(32 <= n <= 8192 for n in size):
        raise UserError(f"--size {words}: give height and width, 32 to 8192: --size 512 1024.")
    return size


COMMAND = cli.Command(
    name="export",
    example="fastfcn export --checkpoint runs/demo --format onnx --size 128 256 --output demo.onnx",
    about="""Writes a model as one file, runs the file beside its source and keeps it if both agree.

The file takes RGB images, uint8 (b, H, W, 3), and gives class indices and logits. Its name ends in
the format's own (.stablehlo, .onnx, …). `fastfcn predict --model FILE` runs it.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
