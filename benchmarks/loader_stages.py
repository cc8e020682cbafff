"""Time of each stage of mmsegmentation's data pipeline and of ours, on one core.

python benchmarks/loader_stages.py --root CITYSCAPES [--crop 512x1024] [--samples 24]
    [--contenders mmseg,png] [--cache DIR]

Processor time in ms, mean over the samples; each sample is made three times and the least time of
each stage counts.
"""

import collections
import os
import tempfile
import time

import cv2
import loader
from absl import app, flags

from fastfcn_jax.data import decode, source
from fastfcn_jax.data.augment import crop_first, mmseg

STAGES = {
    decode: ("image", "label"),
    source.LabelTable: ("__call__",),
    mmseg: (
        *("resize_image", "resize_label", "one_class_fills"),
        *("random_flip", "photometric_distortion"),
    ),
    crop_first: ("_take_label", "_take_image"),
}


class Stages:
    """Adds up the time of the functions it wraps."""

    def __init__(self):
        self.seconds = collections.Counter()

    def timed(self, name, function):
        def run(*arguments, **keywords):
            start = time.process_time()
            try:
                return function(*arguments, **keywords)
            finally:
                self.seconds[name] += time.process_time() - start

        return run

    def table(self, sample, count: int) -> dict[str, float]:
        """Milliseconds per sample, of each stage and in total."""
        total = collections.Counter()
        for i in range(-2, count):
            least = {}
            for _ in range(3):
                self.seconds.clear()
                self.timed("all", sample)(i % 100)
                for name, seconds in self.seconds.items():
                    least[name] = min(seconds, least.get(name, seconds))
            if i >= 0:
                total.update(least)
        return {name: 1e3 * seconds / count for name, seconds in total.items()}


def main(arguments: list[str]) -> None:
    del arguments
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    stages = Stages()
    crop = loader.CROPS[_CROP.value]
    for owner, names in STAGES.items():
        for name in names:
            setattr(owner, name, stages.timed(name.strip("_"), getattr(owner, name)))
    with tempfile.TemporaryDirectory() as folder:
        for contender in _CONTENDERS.value:
            sample = loader.sampler(contender, _ROOT.value, _CACHE.value or folder, crop)
            if contender == "mmseg":
                steps = sample.dataset.pipeline
                steps.transforms = [stages.timed(type(t).__name__, t) for t in steps.transforms]
            print(f"\n{contender}, {_CROP.value}")
            for name, ms in stages.table(sample, _SAMPLES.value).items():
                print(f"  {name:24} {ms:7.2f}", flush=True)


if __name__ == "__main__":
    _ROOT = flags.DEFINE_string("root", None, "Cityscapes folder.", required=True)
    _CROP = flags.DEFINE_enum("crop", "512x1024", list(loader.CROPS), "Crop size.")
    _CONTENDERS = flags.DEFINE_list(
        "contenders",
        [c for c in loader.CONTENDERS if "batches" not in c],
        "Which of the contenders of loader.py.",
    )
    _CACHE = flags.DEFINE_string("cache", None, "Folder of the decoded cache; default: temporary.")
    _SAMPLES = flags.DEFINE_integer("samples", 24, "Samples of each contender.", lower_bound=1)
    app.run(main)
