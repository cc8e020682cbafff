"""Predictions and throughput of whole images against real mmsegmentation, in one run.

python benchmarks/inference.py --images FILE,FILE --heads psp,aspp,enc --protocols single,ms_flip
    --scale 2048,512 [--rounds 2] [--json FILE]

Both sides get the same random weights (FastFCN ResNet-50, 150 classes), read the same files and
give class maps at the images' own size; mmsegmentation through `inference_model` and its
test-time-augmentation model, ours through `Predictor`. Rounds alternate; the medians are compared.
Compilation is timed apart. The share of equal pixels is printed beside the times.
"""

# ruff: noqa: E402
import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import cv2
import mmseg_inference
import numpy as np
from absl import app, flags

from fastfcn_jax.evaluation import protocols
from fastfcn_jax.evaluation.inference import Predictor

IMAGES = flags.DEFINE_list("images", None, "Photographs.", required=True)
HEADS = flags.DEFINE_list("heads", ["psp", "aspp", "enc"], "Heads.")
PROTOCOLS = flags.DEFINE_list("protocols", ["single"], "single, ms_flip, ms_flip_0x, slide.")
SCALE = flags.DEFINE_list("scale", ["2048", "512"], "Test scale, width and height.")
CLASSES = flags.DEFINE_integer("classes", 150, "Number of classes.")
ROUNDS = flags.DEFINE_integer("rounds", 2, "Timed rounds a side.")
JSON = flags.DEFINE_string("json", None, "Append the rows to this file.")
RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
CROP, STRIDE = (512, 512), (341, 341)


def theirs(reference, name: str, image: np.ndarray, scale: tuple[int, int]) -> np.ndarray:
    if name == "ms_flip":
        resizes = [{"scale_factor": ratio} for ratio in RATIOS]
        return mmseg_inference.infer_tta(reference, image, resizes)
    if name == "ms_flip_0x":
        resizes = [{"scale": tuple(int(side * ratio) for side in scale)} for ratio in RATIOS]
        return mmseg_inference.infer_tta(reference, image, resizes)
    whole = type(reference.test_cfg)(mode="whole")
    slide = type(reference.test_cfg)(mode="slide", crop_size=CROP, stride=STRIDE)
    reference.test_cfg = slide if name == "slide" else whole
    return mmseg_inference.infer(reference, image, scale)


def compare(head: str, name: str, pair, images: list[np.ndarray], scale: tuple[int, int]) -> dict:
    reference, model, variables = pair
    protocol = protocols.build(name, test_scale=scale, ratios=RATIOS, crop_size=CROP, stride=STRIDE)
    predictor = Predictor(model, variables, protocol=protocol)
    predictor.expect(image.shape[:2] for image in images)
    start = time.perf_counter()
    ours = [predictor(image) for image in images]
    first = time.perf_counter() - start
    seconds: dict[str, list[float]] = {"mmseg": [], "ours": []}
    for _ in range(ROUNDS.value):
        start = time.perf_counter()
        expected = [theirs(reference, name, image, scale) for image in images]
        seconds["mmseg"].append(time.perf_counter() - start)
        start = time.perf_counter()
        ours = [predictor(image) for image in images]
        seconds["ours"].append(time.perf_counter() - start)
    equal = [float((a == b).mean()) for a, b in zip(ours, expected, strict=True)]
    median = {side: statistics.median(values) for side, values in seconds.items()}
    return {
        "head": head,
        "protocol": name,
        "images": len(images),
        "equal": min(equal),
        "mmseg_s": round(median["mmseg"], 2),
        "ours_s": round(median["ours"], 2),
        "ratio": round(median["mmseg"] / median["ours"], 2),
        "programs": predictor.plan.programs,
        "first_run_with_compilation_s": round(first, 1),
    }


def main(_) -> None:
    images = []
    for file in IMAGES.value:
        image = cv2.imread(file)
        if image is None:
            raise SystemExit(f"{file} cannot be read")
        images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    scale = tuple(int(side) for side in SCALE.value)
    for head in HEADS.value:
        pair = mmseg_inference.full_pair(head, CLASSES.value)
        for name in PROTOCOLS.value:
            row = compare(head, name, pair, images, scale)
            print(json.dumps(row), flush=True)
            if JSON.value:
                with open(JSON.value, "a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    app.run(main)
