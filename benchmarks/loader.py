"""Samples per second and core: mmsegmentation's pipeline, ours from PNG, ours from the cache.

python benchmarks/loader.py --root CITYSCAPES [--crops 512x1024,512x512] [--workers 1,2]
    [--rounds 15] [--output FILE.json]

All contenders take turns in each round, and the median over the rounds counts: a busy machine
affects them alike. A worker is a process bound to one core; "x mmseg" and the shares of the two
limits compare processor time. Needs mmsegmentation (`make test` installs it).
"""

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from absl import app, flags

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("", "tests")]

from fastfcn_jax.config import base  # noqa: E402
from fastfcn_jax.data import cache, datasets, malloc, pipeline, sets  # noqa: E402
from fastfcn_jax.data.augment import crop_first, mmseg, steps  # noqa: E402
from fastfcn_jax.data.datasets import cityscapes  # noqa: E402
from fastfcn_jax.data.source import Source  # noqa: E402

CROPS = {"512x1024": (512, 1024), "512x512": (512, 512)}
SETTINGS = {
    "resize_scale": (2048, 1024),
    "ratio_range": (0.5, 2.0),
    "cat_max_ratio": 0.75,
    "flip": 0.5,
    "photometric": True,
}
BATCH = 8
CONTENDERS = (
    "mmseg",
    "png",
    "png crop first",
    "cache",
    "cache batches",
    "cache device",
    "cache device batches",
    "limit all stages",
    "limit",
)


def sampler(name: str, root: str, folder: str, crop_size: tuple[int, int]):
    """A function from a sample's number to the sample, read and augmented."""
    settings = SETTINGS | {"crop_size": crop_size}
    if name == "mmseg":
        return _mmseg(root, crop_size)
    source = datasets.load("cityscapes", root, "train")
    if name.startswith(("cache", "limit")):
        source = cache.open_or_build(folder, source)
    if name.startswith("limit"):
        return partial(_limit, source, crop_size, name != "limit")
    augment = partial(mmseg.augment if name == "png" else crop_first.augment, **settings)
    draws = None
    if "device" in name:
        augment, draws = _device(crop_size)
    if "batches" in name:
        return _batches(source, augment, draws)
    sample = pipeline.AugmentedSamples(source, augment, 0, draws)
    return lambda i: sample(i, i % len(source))


def _device(crop_size: tuple[int, int]):
    """What the host does with `data.device_augmentation`: the crop, and the draws."""
    data = base.get_config().data
    data.update(SETTINGS, crop_size=crop_size, crop_first=True, device_augmentation=True)
    return pipeline.build_augment(data), steps.device_draws(data)


def _as_many_as_cityscapes(source: Source) -> sets.Selection:
    """The frames over and over, as many as Cityscapes has.

    Grain shuffles without a table, and to shuffle six samples takes it milliseconds for each.
    """
    count = 2975
    return sets.Selection((source,), np.zeros(count, int), np.arange(count) % len(source))


def _batches(source, augment, draws=None):
    """The loader as in training: Grain's order, and batches of 8."""
    source, options = _as_many_as_cityscapes(source), {"seed": 0, "threads": 0, "prefetch": 0}
    stream = pipeline.train_batches(
        source, augment, device_draws=draws, batch_size=BATCH, **options
    )
    return lambda i: next(stream) if i % BATCH == 0 else None


def _limit(cached, crop_size, all_stages: bool, i: int):
    """A limit for loaders of uint8 crops: copy the window and resize it.

    With all stages also read the label once, flip, and distort with the same functions, as the
    result has to equal mmsegmentation's.
    """
    malloc.keep_freed()
    rng = np.random.default_rng((0, i))
    sample = cached[i % len(cached)]
    height, width = sample.label.shape
    ratio = rng.uniform(0.5, 2.0)
    h, w = (min(int(c / ratio), n) for c, n in zip(crop_size, (height, width), strict=True))
    y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    image = cv2.resize(sample.image[y : y + h, x : x + w].copy(), crop_size[::-1])
    if not all_stages:
        return image
    window = sample.label[y : y + h, x : x + w].copy()
    label = cv2.resize(window, crop_size[::-1], interpolation=cv2.INTER_NEAREST)
    image, label = mmseg.random_flip(image, label, rng, probability=SETTINGS["flip"])
    return mmseg.finish(image, label, rng, crop_size=crop_size, photometric=True)


def _mmseg(root: str, crop_size: tuple[int, int]):
    """mmsegmentation's own dataset class and training pipeline, packing included."""
    import oracle

    oracle.import_mmseg()
    from mmseg.datasets import CityscapesDataset

    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {
            "type": "RandomResize",
            "scale": SETTINGS["resize_scale"],
            "ratio_range": SETTINGS["ratio_range"],
            "keep_ratio": True,
        },
        {"type": "RandomCrop", "crop_size": crop_size, "cat_max_ratio": 0.75},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PhotoMetricDistortion"},
        {"type": "PackSegInputs"},
    ]
    prefix = {"img_path": "leftImg8bit/train", "seg_map_path": "gtFine/train"}
    dataset = CityscapesDataset(data_root=root, data_prefix=prefix, pipeline=pipeline)

    def sample(i: int):
        np.random.seed(i)  # noqa: NPY002 - what mmseg draws from
        return dataset[i % len(dataset)]

    sample.dataset = dataset  # loader_stages.py times its transforms
    return sample


def worker(core: int, name: str, root: str, folder: str, crop: str, pipe) -> None:
    """A process that times a block of samples on "go" and sends its seconds (wall, CPU)."""
    os.sched_setaffinity(0, {core})
    cv2.setNumThreads(1)
    sample = sampler(name, root, folder, CROPS[crop])
    first = BATCH
    for i in range(first):
        sample(i)
    pipe.send("ready")
    while (count := pipe.recv()) is not None:
        wall, cpu = time.perf_counter(), time.process_time()
        for i in range(first, first + count):
            sample(i)
        first += count
        pipe.send((time.perf_counter() - wall, time.process_time() - cpu))


def measure(crop: str, workers: int, root: str, folder: str, rounds: int) -> dict[str, dict]:
    """Samples per second of each contender with that many worker processes, in turns."""
    cores = sorted(os.sched_getaffinity(0))[:workers]
    context = multiprocessing.get_context("spawn")
    teams = {}
    for name in CONTENDERS:
        team = []
        for core in cores:
            here, there = context.Pipe()
            arguments = (core, name, root, folder, crop, there)
            process = context.Process(target=worker, args=arguments, daemon=True)
            process.start()
            assert here.recv() == "ready"
            team.append((process, here))
        teams[name] = team
    times = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name, team in teams.items():
            count = 48 if name.startswith(("cache", "limit")) else 6
            for _, pipe in team:
                pipe.send(count)
            results = [pipe.recv() for _, pipe in team]
            wall = max(r[0] for r in results)
            cpu = sum(r[1] for r in results) / len(results)
            times[name].append((wall / count, cpu / count))
    for team in teams.values():
        for process, pipe in team:
            pipe.send(None)
            process.join()
    return {name: _summary(values, times, workers) for name, values in times.items()}


def _summary(values: list[tuple], times: dict[str, list[tuple]], workers: int) -> dict:
    """Medians over the rounds; ratios of processor time are taken within each round."""
    wall, cpu = (statistics.median(v[k] for v in values) for k in (0, 1))

    def ratio(name: str) -> float:
        return statistics.median(o[1] / v[1] for v, o in zip(values, times[name], strict=True))

    return {
        "samples_per_second": workers / wall,
        "ms": 1e3 * wall,
        "cpu_ms": 1e3 * cpu,
        "times_mmseg": ratio("mmseg"),
        "share_of_all_stages": ratio("limit all stages"),
        "share_of_limit": ratio("limit"),
    }


def sizes(root: str, folder: str) -> dict[str, float]:
    """Megabytes per sample on disk, and in the window of a crop (image and label).

    Each crop that is redrawn because of `cat_max_ratio` reads another window of the label.
    """
    source = datasets.load("cityscapes", root, "train")
    cached = cache.open_or_build(folder, source)
    names = source.read.files()
    rng = np.random.default_rng(0)
    result = {
        "png_mb": sum(os.stat(n).st_size for n in names) / len(source) / 1e6,
        "cache_mb": os.stat(cached.path).st_size / len(cached) / 1e6,
    }
    for crop, (h, w) in CROPS.items():
        ratios = rng.uniform(0.5, 2.0, 20_000)
        touched = np.minimum(h / ratios, 1024) * np.minimum(w / ratios, 2048) * 4
        result[f"read_mb_{crop}"] = float(touched.mean() / 1e6)
    return result


def resume(root: str, folder: str) -> dict[str, float]:
    """Seconds until the first batch of a run that starts at a step; the least of five."""
    cached = _as_many_as_cityscapes(
        cache.open_or_build(folder, datasets.load("cityscapes", root, "train"))
    )
    augment = partial(crop_first.augment, **SETTINGS, crop_size=(64, 64))
    result = {}
    for step in (0, 100_000):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            next(
                pipeline.train_batches(
                    cached, augment, batch_size=BATCH, seed=0, start_step=step, threads=0
                )
            )
            times.append(time.perf_counter() - start)
        result[f"first_batch_seconds_step_{step}"] = min(times)
    return result


def main(arguments: list[str]) -> None:
    del arguments
    root = _ROOT.value
    cityscapes.load(root, "train")  # a wrong root fails here, with a clear message
    report = {"cpu": os.cpu_count(), "opencv": cv2.__version__}
    with tempfile.TemporaryDirectory(dir=_CACHE.value) as folder:
        cache.open_or_build(folder, datasets.load("cityscapes", root, "train"))
        for crop in _CROPS.value:
            for workers in map(int, _WORKERS.value):
                result = measure(crop, workers, root, folder, _ROUNDS.value)
                report[f"{crop}, {workers} workers"] = result
                print(
                    f"\n{crop}, {workers} worker(s): samples/s | CPU ms a sample | x mmseg | "
                    "% of the limit with all stages | % of the limit"
                )
                for name, r in result.items():
                    shares = (100 * r[k] for k in ("share_of_all_stages", "share_of_limit"))
                    print(
                        f"  {name:22} {r['samples_per_second']:8.1f} {r['cpu_ms']:8.2f}"
                        f" {r['times_mmseg']:7.2f}" + "".join(f" {s:6.1f}" for s in shares),
                        flush=True,
                    )
        report["sizes"] = sizes(root, folder)
        report["resume"] = resume(root, folder)
    print("\n" + json.dumps([report["sizes"], report["resume"]], indent=1))
    if _OUTPUT.value:
        Path(_OUTPUT.value).write_text(json.dumps(report, indent=1), "utf-8")


if __name__ == "__main__":
    _ROOT = flags.DEFINE_string("root", None, "Cityscapes folder.", required=True)
    _CROPS = flags.DEFINE_list("crops", list(CROPS), "Crop sizes.")
    _WORKERS = flags.DEFINE_list("workers", ["1", "2"], "Numbers of worker processes.")
    _ROUNDS = flags.DEFINE_integer("rounds", 15, "Interleaved rounds; the median counts.")
    _CACHE = flags.DEFINE_string("cache", None, "Folder for the caches; default: temporary.")
    _OUTPUT = flags.DEFINE_string("output", None, "JSON file for the figures.")
    app.run(main)
