"""Compares predictions, scores and speed with mmsegmentation on labelled images, in one run.

python benchmarks/inference.py --data ade20k|cityscapes|camvid --root FOLDER [--split val]
    [--count 2] [--heads psp,aspp,enc] [--protocols single,slide,ms_flip,ms_flip_0x]
    [--rounds 1] [--scale WIDTH,HEIGHT] [--json FILE]

Both sides get the same random weights (FastFCN ResNet-50) and decoded images, and return label maps
at the images' own size: mmsegmentation by `inference_model` and its test-time augmentation, ours by
`Predictor`. mmsegmentation's maps are scored by its `IoUMetric`, ours by `evaluation.metrics`. The
sides take turns; medians are compared. Compilation is timed separately.
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

import mmseg_inference
import numpy as np
from absl import app, flags

from fastfcn_jax.data import datasets
from fastfcn_jax.evaluation.metrics import confusion_matrix, scores
from fastfcn_jax.inference import protocols
from fastfcn_jax.inference.predictor import Predictor

# The test scales of mmsegmentation's configurations; for CamVid the photographs' own size.
SCALES = {"ade20k": (2048, 512), "cityscapes": (2048, 1024), "camvid": (480, 360)}
DATA = flags.DEFINE_enum("data", "ade20k", list(SCALES), "Data set.")
DATA_ROOT = flags.DEFINE_string("root", None, "Its folder.", required=True)
SPLIT = flags.DEFINE_string("split", "val", "Its split.")
COUNT = flags.DEFINE_integer("count", 2, "Images, spread over the split.", lower_bound=1)
HEADS = flags.DEFINE_list("heads", ["psp", "aspp", "enc"], "Heads.")
PROTOCOLS = flags.DEFINE_list("protocols", ["single"], "single, slide, ms_flip, ms_flip_0x.")
SCALE = flags.DEFINE_list("scale", None, "Test scale, width and height; default: the data set's.")
ROUNDS = flags.DEFINE_integer("rounds", 1, "Timed rounds a side.", lower_bound=1)
JSON = flags.DEFINE_string("json", None, "Append the rows to this file.")
RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
CROP, STRIDE = (512, 512), (341, 341)


def theirs(reference, name: str, image: np.ndarray, scale: tuple[int, int]) -> np.ndarray:
    whole = type(reference.test_cfg)(mode="whole")
    slide = type(reference.test_cfg)(mode="slide", crop_size=CROP, stride=STRIDE)
    reference.test_cfg = slide if name == "slide" else whole
    if name == "ms_flip":
        resizes = [{"scale_factor": ratio} for ratio in RATIOS]
        return mmseg_inference.infer_tta(reference, image, resizes)
    if name == "ms_flip_0x":
        resizes = [{"scale": tuple(int(side * ratio) for side in scale)} for ratio in RATIOS]
        return mmseg_inference.infer_tta(reference, image, resizes)
    return mmseg_inference.infer(reference, image, scale)


def timed(predict, images: list[np.ndarray]) -> tuple[float, list[np.ndarray]]:
    start = time.perf_counter()
    answers = [predict(image) for image in images]
    return time.perf_counter() - start, answers


def compare(head: str, name: str, pair, samples, num_classes: int, scale: tuple[int, int]) -> dict:
    reference, model, variables = pair
    protocol = protocols.build(name, test_scale=scale, ratios=RATIOS, crop_size=CROP, stride=STRIDE)
    predictor = Predictor(model, variables, protocol=protocol)
    images = [sample.image for sample in samples]
    labels = [sample.label for sample in samples]
    predictor.expect(image.shape[:2] for image in images)
    first, ours = timed(predictor, images)
    seconds: dict[str, list[float]] = {"mmseg": [], "ours": []}
    for _ in range(ROUNDS.value):
        spent, expected = timed(lambda image: theirs(reference, name, image, scale), images)
        seconds["mmseg"].append(spent)
        spent, ours = timed(predictor, images)
        seconds["ours"].append(spent)
    median = {side: statistics.median(values) for side, values in seconds.items()}
    matrix = sum(confusion_matrix(*both, num_classes) for both in zip(labels, ours, strict=True))
    mine = scores(matrix)
    return {
        "data": DATA.value,
        "head": head,
        "protocol": name,
        "images": len(images),
        "different_pixels": sum(int((a != b).sum()) for a, b in zip(ours, expected, strict=True)),
        "equal_percent_of_worst_image": min(
            100 * float((a == b).mean()) for a, b in zip(ours, expected, strict=True)
        ),
        "classes_predicted": len(np.unique(np.concatenate([a.ravel() for a in ours]))),
        "ours_mIoU_mAcc_aAcc": [round(v, 2) for v in (mine.miou, mine.macc, mine.aacc)],
        "mmseg_mIoU_mAcc_aAcc": mmseg_inference.iou_metric(labels, expected, num_classes),
        "mmseg_s": round(median["mmseg"], 2),
        "ours_s": round(median["ours"], 2),
        "ratio": round(median["mmseg"] / median["ours"], 2),
        "programs": predictor.plan.programs,
        "first_run_with_compilation_s": round(first, 1),
    }


def main(_) -> None:
    source = datasets.load(DATA.value, DATA_ROOT.value, SPLIT.value)
    chosen = np.linspace(0, len(source) - 1, min(COUNT.value, len(source))).astype(int)
    samples = [source[int(i)] for i in chosen]
    num_classes = len(source.info.class_names)
    scale = tuple(map(int, SCALE.value)) if SCALE.value else SCALES[DATA.value]
    for head in HEADS.value:
        pair = mmseg_inference.full_pair(head, num_classes)
        for name in PROTOCOLS.value:
            row = compare(head, name, pair, samples, num_classes, scale)
            print(json.dumps(row), flush=True)
            if JSON.value:
                with open(JSON.value, "a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    app.run(main)
