"""`fastfcn export`: writes a checkpoint folder as one file for other programs."""

import re
import sys
from argparse import Namespace

from fastfcn_jax import cli
from fastfcn_jax.errors import UserError
from fastfcn_jax.export.request import FREE_SIZES, MIN_AGREEMENT, files_of

FORMATS = ["stablehlo", "onnx", "openvino", "safetensors", "tflite", "hub"]
TIMED = ("onnx", "openvino")  # formats whose speed is compared with our own


def define(parser: cli.Parser) -> None:
    parser.need(
        "--checkpoint",
        "runs/demo",
        "Checkpoint folder, or published name.",
        type=cli.path,
        metavar="DIR",
    )
    parser.need("--format", "onnx", "What to write.", choices=FORMATS)
    parser.need("--output", "model.onnx", "File to write; hub: folder.", type=cli.path)
    parser.add_argument(
        "--size", nargs="+", metavar="N", help="Height and width, or free; not for hub."
    )
    parser.add_argument(
        "--image", type=cli.path, help="Photograph to compare on; default: a generated scene."
    )
    parser.add_argument(
        "--precision",
        choices=["float32", "float16", "bf16", "int8"],
        default="float32",
        help="Of the arithmetic; float16: onnx, bf16: openvino, int8: both.",
    )
    parser.add_argument(
        "--calibration",
        type=cli.path,
        metavar="FOLDER",
        help="Photographs for int8 and to compare on, or the data set's root.",
    )
    parser.add_argument(
        "--min-agreement",
        type=float,
        metavar="SHARE",
        help=f"Of labels that must equal float32's, or no file is left; default: {MIN_AGREEMENT}.",
    )
    parser.add_argument("--metrics", type=cli.path, help="hub: metrics.json for the model card.")
    parser.add_argument(
        "--license", help="Of the weights: mit, apache-2.0, …; default: as published, if known."
    )
    parser.add_argument(
        "--half", action="store_true", help="hub: kernels as float16, in half the bytes."
    )
    parser.add_argument("--push", metavar="OWNER/NAME", help="hub: also upload the folder there.")


def run(arguments: Namespace) -> None:
    if arguments.format == "hub":
        return _write_for_hub(arguments)
    least = arguments.min_agreement
    if arguments.precision == "float32" and least is not None:
        raise UserError("--min-agreement is for other precisions than float32; leave it out.")
    least = MIN_AGREEMENT if least is None else least
    if arguments.size is None:
        raise UserError("--size is missing; for example --size 512 1024.")
    words = " ".join(arguments.size)
    size = None if words == "free" else parse_size(words)
    from fastfcn_jax.export.export import export, speed

    output = arguments.output
    check, job = export(
        *(arguments.checkpoint, output, size, arguments.format, arguments.image),
        licence=arguments.license,
        precision=arguments.precision,
        calibration=arguments.calibration,
        min_agreement=least,
    )
    if arguments.precision == "float32":
        sizes = FREE_SIZES if size is None else (size,)
        listed = ", ".join(f"{height}x{width}" for height, width in sizes)
        print(f"compared on {check.image}, {listed}: {check}")
    else:
        print(f"{check}; {100 * least:.4g} % were wanted, --min-agreement changes that")
    written = files_of(output, arguments.format)
    bytes_written = sum(path.stat().st_size for path in written)
    print(f"{bytes_written / 2**20:.1f} MiB -> {' and '.join(map(str, written))}")
    if arguments.format in TIMED:
        print(speed(job, output))


def _write_for_hub(arguments: Namespace) -> None:
    from fastfcn_jax.weights import hub, store

    if arguments.precision != "float32" or arguments.calibration or arguments.min_agreement:
        raise UserError("--format hub holds weights alone; --half writes kernels as float16.")
    hub.write(
        store.checkpoint(arguments.checkpoint),
        arguments.output,
        metrics=arguments.metrics,
        licence=arguments.license or store.licence(arguments.checkpoint),
        half=arguments.half,
    )
    rounded = ", after kernels were rounded to float16" if arguments.half else ""
    print(f"read back, equal bit for bit{rounded} -> {arguments.output}")
    if arguments.push is not None:
        print(hub.push(arguments.output, arguments.push))


def parse_size(words: str) -> tuple[int, int]:
    """Height and width from "512 1024", "512x1024" or "512,1024".

    Raises:
      UserError: these are not two numbers from 32 to 8192.
    """
    numbers = re.fullmatch(r"([0-9]{1,4})[\s,x]+([0-9]{1,4})", words.strip())
    size = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    if not all(32 <= n <= 8192 for n in size):
        raise UserError(f"--size {words}: give height and width, 32 to 8192: --size 512 1024.")
    return size


COMMAND = cli.Command(
    name="export",
    example="fastfcn export --checkpoint runs/demo --format onnx --size 128 256 --output demo.onnx",
    about="""Writes a model as one file and keeps it if its outputs agree with those of its source.

The file takes RGB images, uint8 (b, H, W, 3), and returns class indices and logits. Its name must
end in the format (.stablehlo, .onnx, …; openvino: .xml, with a .bin beside it). `fastfcn predict
--model FILE` and `fastfcn serve --model FILE` run it.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
