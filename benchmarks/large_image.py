"""Peak memory of `predict --tile` on pictures of several sizes.

python benchmarks/large_image.py --checkpoint DIR --photo FILE [--sides 20000,10000]
    [--suffix png|jpg|tif] [--tile 1024] [--folder FOR_THE_PICTURES]

Each picture is the photograph repeated. For each, one process only decodes it and another one is
the command itself; before that, the command runs on a picture of one tile. The memory of the
command beyond the decoder's peak and the labels is that of tiles, JAX and drawing.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from absl import app, flags

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from fastfcn_jax.data import decode  # noqa: E402

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A small model.", required=True)
PHOTO = flags.DEFINE_string("photo", None, "Photograph to repeat.", required=True)
SIDES = flags.DEFINE_list("sides", ["20000", "10000"], "Sides of the pictures.")
SUFFIX = flags.DEFINE_enum("suffix", "png", ["png", "jpg", "tif"], "Format of the pictures.")
TILE = flags.DEFINE_integer("tile", 1024, "Side of a tile.")
FOLDER = flags.DEFINE_string("folder", None, "Folder for pictures and results; default: temporary.")
DECODE = (
    "import sys; from fastfcn_jax.data import decode; "
    "from pathlib import Path; decode.image(Path(sys.argv[1]).read_bytes(), '')"
)


def peak_mb(*arguments: str) -> tuple[float, float]:
    """(largest resident set in MB, seconds) of a Python process."""
    command = ["/usr/bin/time", "-v", sys.executable, *arguments]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    kilobytes = int(re.search(r"Maximum resident set size \(kbytes\): (\d+)", done.stderr)[1])
    *hours, minutes, seconds = re.search(r"m:ss\): ([\d:.]+)", done.stderr)[1].split(":")
    return kilobytes * 1024 / 1e6, 3600 * sum(map(int, hours)) + 60 * int(minutes) + float(seconds)


def make(side: int, folder: Path) -> Path:
    photo = cv2.imread(PHOTO.value)
    if photo is None:
        raise SystemExit(f"{PHOTO.value} cannot be read")
    times = (-(-side // photo.shape[0]), -(-side // photo.shape[1]), 1)
    path = folder / f"{side}.{SUFFIX.value}"
    cv2.imwrite(str(path), np.tile(photo, times)[:side, :side])
    return path


def measure(side: int, folder: Path) -> dict:
    path = make(side, folder)
    output = folder / f"out{side}"
    decoding, _ = peak_mb("-c", DECODE, str(path))
    predict = ("-m", "fastfcn_jax.predict", "--checkpoint", CHECKPOINT.value, "--input", str(path))
    peak, seconds = peak_mb(*predict, "--output", str(output), "--tile", str(TILE.value))
    labels = decode.label((output / f"{side}.png").read_bytes(), "labels")
    assert labels.shape == (side, side)
    pixels, label_map = 3 * side**2 / 1e6, side**2 / 1e6
    return {
        "side": side,
        "file_mb": round(path.stat().st_size / 1e6),
        "pixels_mb": round(pixels),
        "labels_mb": round(label_map),
        "decoding_alone_peak_mb": round(decoding),
        "predict_peak_mb": round(peak),
        "beyond_pixels_and_labels_mb": round(peak - pixels - label_map),
        "seconds": round(seconds),
    }


def main(_) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(FOLDER.value or temporary)
        for side in [TILE.value, *map(int, SIDES.value)]:
            print(json.dumps(measure(side, folder)), flush=True)


if __name__ == "__main__":
    app.run(main)
