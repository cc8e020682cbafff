"""Exports the published networks to ONNX, checks them on a photograph, and times both sides.

python benchmarks/onnx_speed.py --image PHOTO [--heads psp,aspp,enc] [--size 360,480] [--rounds 2]

FastFCN with ResNet-50 at full width, 19 classes, random weights with random BatchNorm statistics.
Comparison and speed are those of `fastfcn export`.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import app, flags
from export_matrix import save

from fastfcn_jax.export import export

IMAGE = flags.DEFINE_string("image", None, "Photograph to compare on.", required=True)
HEADS = flags.DEFINE_list("heads", ["psp", "aspp", "enc"], "Which networks.")
SIZE = flags.DEFINE_list("size", ["360", "480"], "Height and width of the program's input.")
ROUNDS = flags.DEFINE_integer("rounds", 2, "Timed runs of each side.")


def main(_):
    size = int(SIZE.value[0]), int(SIZE.value[1])
    for head in HEADS.value:
        with tempfile.TemporaryDirectory() as folder:
            save(head, Path(folder) / "model")
            output = Path(folder) / "model.onnx"
            check, job = export.export(
                Path(folder) / "model", output, size, "onnx", Path(IMAGE.value)
            )
            print(f"{head} {size[0]}x{size[1]}: {check}", flush=True)
            print(f"  {export.speed(job, output, ROUNDS.value)}", flush=True)


if __name__ == "__main__":
    app.run(main)
