"""A data set of many image sizes: padded groups against one compiled program for each size.

python benchmarks/many_sizes.py [--model small|resnet50] [--count 12] [--batch 2] [--json FILE]
    [--cpu_time]

Sizes are drawn to resemble ADE20K's validation set as it is described: photographs scaled down to a
short side of 512 if they were larger, mostly 4:3 and 3:2, a quarter of them upright. This is an
assumption, not a copy of the set.

It prints the number of programs and the padding of the plan for 2000 images. Then it predicts the
first `count` of them both ways, each twice in one process, without a compilation cache on disk: the
first run minus the second is compilation. The predictions of both ways are compared. From the
measured parts (seconds per program and per megapixel) it computes the time for all 2000 images,
here and on a device that needs 20 ms for an image of mean size and compiles as slowly as this one.

Models: FastFCN ResNet-50 + JPU + PSP, or a ResNet-18 a quarter as wide; 150 classes, random.
"""

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_COMPILATION_CACHE_DIR"] = ""  # no cache on disk
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
from absl import app, flags
from jax import numpy as jnp

from fastfcn_jax import models
from fastfcn_jax.config.base import get_config
from fastfcn_jax.inference import protocols
from fastfcn_jax.inference.plan import Plan
from fastfcn_jax.inference.predictor import Predictor

MODEL = flags.DEFINE_enum("model", "small", ["small", "resnet50"], "Model to run.")
COUNT = flags.DEFINE_integer("count", 12, "Images timed.")
CPU_TIME = flags.DEFINE_bool("cpu_time", False, "Count CPU seconds: on a busy machine, one core.")
BATCH = flags.DEFINE_integer("batch", 2, "Images per pass in the padded run.")
JSON = flags.DEFINE_string("json", None, "Write the figures to this file.")
SCALE = (2048, 512)
TOTAL = 2000
CLASSES = 150
DEVICE_IMAGE_S = 0.020


def ade20k_like_sizes(count: int, seed: int = 0) -> list[tuple[int, int]]:
    """(height, width) of `count` images."""
    rng = np.random.default_rng(seed)
    sizes = []
    for _ in range(count):
        short = 512 if rng.random() < 0.7 else int(rng.integers(200, 512))
        kind = rng.random()
        ratio = 4 / 3 if kind < 0.5 else 1.5 if kind < 0.75 else rng.uniform(1.0, 2.2)
        long = round(short * ratio)
        sizes.append((short, long) if rng.random() < 0.75 else (long, short))
    return sizes


def planned(name: str, limit: int, sizes: list[tuple[int, int]]) -> dict:
    protocol = protocols.build(name, test_scale=SCALE)
    plan = Plan(protocol, sizes, limit)
    padded = sum(plan.group(size).pixels for size in sizes)
    true = sum(h * w for size in sizes for h, w in protocol.scales(size))
    return {
        "protocol": name,
        "sizes": len(set(sizes)),
        "programs": plan.programs,
        "padded_over_true_pixels": round(padded / true, 3),
    }


def random_model():
    config = get_config().model
    if MODEL.value == "small":
        config.update(backbone="resnet18", base_width=16, neck_channels=32, head_channels=32)
    model = models.build(config, CLASSES)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    rng = np.random.default_rng(0)

    def draw(leaf):
        spread = np.sqrt(2 / np.prod(leaf.shape[:3])) if leaf.ndim == 4 else 0.0
        values = (
            rng.normal(size=leaf.shape) * spread if spread else rng.uniform(0.5, 1.5, leaf.shape)
        )
        return values.astype(np.float32)

    return model, jax.tree.map(draw, shapes)


def timed(predictor: Predictor, images: list[np.ndarray]) -> tuple[float, dict]:
    clock = time.process_time if CPU_TIME.value else time.perf_counter
    start = clock()
    answers = dict(predictor.stream(enumerate(images)))
    return clock() - start, answers


def megapixels_run(plan: Plan, sizes: list[tuple[int, int]], batch: int) -> float:
    """The sizes that go through the network, in whole batches; the last one is filled up."""
    used = Counter(plan.group(size) for size in sizes)
    return sum(-(-n // batch) * batch * group.pixels for group, n in used.items()) / 1e6


def run_padded(network, protocol, all_sizes, images) -> tuple[dict, dict]:
    """Measured parts of the padded run, and its predictions."""
    predictor = Predictor(*network, protocol=protocol, batch_size=BATCH.value)
    predictor.expect(all_sizes)
    first, answers = timed(predictor, images)
    again, _ = timed(predictor, images)
    sizes = [image.shape[:2] for image in images]
    programs = len({predictor.plan.group(size) for size in sizes})
    parts = {
        "programs": programs,
        "compile_s": (first - again) / programs,
        "megapixel_s": again / megapixels_run(predictor.plan, sizes, BATCH.value),
        "programs_2000": predictor.plan.programs,
        "megapixels_2000": megapixels_run(predictor.plan, all_sizes, BATCH.value),
    }
    return parts, answers


def run_alone(network, protocol, all_sizes, images, expected) -> dict:
    """Measured parts of one program for each size, one image a pass; compares predictions."""
    first = again = 0.0
    equal = 1.0
    for i, image in enumerate(images):
        predictor = Predictor(*network, protocol=protocol)
        predictor.expect([image.shape[:2]])  # no padding
        seconds, answer = timed(predictor, [image])
        first += seconds
        again += timed(predictor, [image])[0]
        equal = min(equal, float((answer[0].labels == expected[i].labels).mean()))
    true = lambda sizes: sum(h * w for s in sizes for h, w in protocol.scales(s)) / 1e6  # noqa: E731
    sizes = [image.shape[:2] for image in images]
    programs = len(set(sizes))
    return {
        "programs": programs,
        "compile_s": (first - again) / programs,
        "megapixel_s": again / true(sizes),
        "programs_2000": len(set(all_sizes)),
        "megapixels_2000": true(all_sizes),
        "equal_percent_of_worst_image": 100 * equal,
    }


def seconds_2000(parts: dict, megapixel_s: float | None = None) -> float:
    run = (megapixel_s or parts["megapixel_s"]) * parts["megapixels_2000"]
    return parts["programs_2000"] * parts["compile_s"] + run


def main(_) -> None:
    sizes = ade20k_like_sizes(TOTAL)
    plans = [planned(*row, sizes) for row in (("single", 6), ("ms_flip", 20), ("ms_flip_0x", 20))]
    for row in plans:
        print(json.dumps(row), flush=True)

    model, variables = random_model()
    network = model, jax.device_put(variables)
    protocol = protocols.build("single", test_scale=SCALE)
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (*s, 3), dtype=np.uint8) for s in sizes[: COUNT.value]]
    padded, answers = run_padded(network, protocol, sizes, images)
    print(json.dumps({"padded": padded}), flush=True)
    alone = run_alone(network, protocol, sizes, images, answers)
    print(json.dumps({"one_program_a_size": alone}), flush=True)

    device = DEVICE_IMAGE_S * TOTAL / alone["megapixels_2000"]  # seconds per megapixel
    computed = {
        "padded_s": seconds_2000(padded),
        "one_program_a_size_s": seconds_2000(alone),
        "ratio": seconds_2000(alone) / seconds_2000(padded),
        "ratio_without_compilation": (alone["megapixel_s"] * alone["megapixels_2000"])
        / (padded["megapixel_s"] * padded["megapixels_2000"]),
        "ratio_at_20_ms_an_image": seconds_2000(alone, device) / seconds_2000(padded, device),
    }
    print(json.dumps({"computed_for_2000": computed}))
    if JSON.value:
        figures = {"plans": plans, "padded": padded, "alone": alone, "computed": computed}
        Path(JSON.value).write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    app.run(main)
