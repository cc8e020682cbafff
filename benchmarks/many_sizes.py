"""A data set of many image sizes: padded groups against one compiled program a size.

python benchmarks/many_sizes.py [--count 24] [--batch 2] [--shrink 2] [--json FILE]

Sizes are drawn like ADE20K's validation set, from what is published of it: photographs scaled down
to a short side of 512 where they were larger, mostly 4:3 and 3:2, a quarter upright, the smaller
ones left as they were. That is an assumption, not a copy of the set.

Prints what the plan for 2000 images costs in programs and padding, then times the first `count` of
them both ways on this machine with a small model (ResNet-18 at a quarter width + JPU + PSP, 150
classes), compilation included, and says what the measured parts give for all 2000.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_COMPILATION_CACHE_DIR"] = ""  # every compilation counts
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
from absl import app, flags
from jax import numpy as jnp

from fastfcn_jax import models
from fastfcn_jax.base_config import get_config
from fastfcn_jax.evaluation import protocols
from fastfcn_jax.evaluation.inference import Predictor
from fastfcn_jax.evaluation.plan import Plan

COUNT = flags.DEFINE_integer("count", 24, "Images timed.")
SHRINK = flags.DEFINE_integer("shrink", 1, "Divide the timed images' sides and test scale.")
BATCH = flags.DEFINE_integer("batch", 2, "Images a pass in the padded run.")
JSON = flags.DEFINE_string("json", None, "Write the figures to this file.")
SCALE = (2048, 512)
TOTAL = 2000
CLASSES = 150


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


def small_model():
    config = get_config().model
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
    start = time.perf_counter()
    answers = dict(predictor.stream(enumerate(images)))
    return time.perf_counter() - start, answers


def main(_) -> None:
    sizes = ade20k_like_sizes(TOTAL)
    plans = [planned(*row, sizes) for row in (("single", 6), ("ms_flip", 20), ("ms_flip_0x", 20))]
    for row in plans:
        print(json.dumps(row), flush=True)

    model, variables = small_model()
    variables = jax.device_put(variables)
    shrink = SHRINK.value
    sizes = [(height // shrink, width // shrink) for height, width in sizes]
    scale = (SCALE[0] // shrink, SCALE[1] // shrink)
    protocol = protocols.build("single", test_scale=scale)
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (*s, 3), dtype=np.uint8) for s in sizes[: COUNT.value]]

    padded = Predictor(model, variables, protocol=protocol, batch_size=BATCH.value)
    padded.expect(sizes)
    first, ours = timed(padded, images)
    again, _ = timed(padded, images)

    alone_first = alone_again = 0.0
    for i, image in enumerate(images):
        alone = Predictor(model, variables, protocol=protocol)
        alone.expect([image.shape[:2]])  # exact: one program for this very size
        seconds, answer = timed(alone, [image])
        alone_first += seconds
        assert (answer[0].labels == ours[i].labels).mean() > 0.9999
        alone_again += timed(alone, [image])[0]
    distinct = len({image.shape for image in images})
    compile_padded = (first - again) / padded.plan.programs
    compile_alone = (alone_first - alone_again) / distinct
    all_padded = padded.plan.programs * compile_padded + again / len(images) * TOTAL
    all_alone = len(set(sizes)) * compile_alone + alone_again / len(images) * TOTAL
    figures = {
        "images": len(images),
        "distinct_sizes": distinct,
        "padded_s": round(first, 1),
        "per_size_s": round(alone_first, 1),
        "speedup": round(alone_first / first, 2),
        "compile_s_padded": round(compile_padded, 2),
        "compile_s_per_size": round(compile_alone, 2),
        "image_s_padded": round(again / len(images), 3),
        "image_s_per_size": round(alone_again / len(images), 3),
        "speedup_2000": round(all_alone / all_padded, 2),
    }
    print(json.dumps(figures))
    if JSON.value:
        Path(JSON.value).write_text(json.dumps({"plans": plans, "measured": figures}, indent=2))


if __name__ == "__main__":
    app.run(main)
